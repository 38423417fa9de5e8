package session

import (
	"github.com/closedpaw/closedpaw/client/api"
)

// Owner says whose session it is.
func (m *Manager) Owner(id string) (uint32, error) {
	r, err := m.Store.Get(id)
	if err != nil {
		return 0, err
	}
	return r.UID, nil
}

// List returns the sessions whose owner see lets through, newest first.
func (m *Manager) List(see func(owner uint32) bool) []api.Session { return m.Store.List(see) }

// Show returns what was said in a session.
func (m *Manager) Show(id string) (api.SessionDetail, error) {
	r, err := m.Store.Get(id)
	if err != nil {
		return api.SessionDetail{}, err
	}
	if r.Turns == nil {
		r.Turns = []api.Turn{}
	}
	return r.SessionDetail, nil
}

// Remove forgets a session for good. What is said of it in the audit log stays.
func (m *Manager) Remove(id string) error {
	m.mu.Lock() // nobody begins to work on it meanwhile
	defer m.mu.Unlock()
	if _, busy := m.active[id]; busy {
		return &api.Error{Code: api.CodeConflict, Message: "the session is running", Hint: "end it first: Ctrl-C where it runs"}
	}
	return m.Store.remove(id)
}
