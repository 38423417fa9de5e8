package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/wire"
)

// States of a session.
const (
	StateRunning     = "running"
	StateDone        = "done"
	StateFailed      = "failed"      // it ended with an error, was cancelled or took too long
	StateInterrupted = "interrupted" // the daemon ended while it ran
)

// MaxKept bounds the sessions that are kept for one user, maxRecord the size of one, and maxBytes that of all of a
// user's together: they are in memory too.
const (
	MaxKept   = 1000
	maxRecord = 16 << 20
	maxBytes  = 64 << 20
)

const recordVersion = 1

// Record is a session as it is kept: one JSON file, {id}.json.
type Record struct {
	Version int `json:"version"`
	api.SessionDetail
	UID     uint32 `json:"uid"`
	System  string `json:"system,omitempty"`
	World   bool   `json:"world"`   // the conversation has seen untrusted text
	Private bool   `json:"private"` // and what is the person's own
}

var recordName = regexp.MustCompile(`^[a-z0-9]{8,32}\.json$`)

// Store keeps the sessions of all users in one folder of control's.
type Store struct {
	dir string
	mu  sync.Mutex
	all map[string]*Record
	len map[string]int // of a record as it is kept, in bytes
}

// OpenStore reads the folder. What ran when the daemon ended is marked as interrupted.
func OpenStore(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the sessions' folder: %w", err)
	}
	es, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the sessions: %w", err)
	}
	s := &Store{dir: dir, all: map[string]*Record{}, len: map[string]int{}}
	for _, e := range es {
		p := filepath.Join(dir, e.Name())
		if !recordName.MatchString(e.Name()) {
			if strings.HasPrefix(e.Name(), ".tmp-") { // a crash while writing
				os.Remove(p)
			}
			continue
		}
		if st, err := e.Info(); err == nil && st.Size() == 0 { // what a power cut makes of a new file that was not synced
			os.Remove(p)
			continue
		}
		r, err := readRecord(p)
		if err != nil { // one user's bad file must not stop all: it is kept, and said
			fmt.Fprintf(os.Stderr, "closedpawd control: session %s cannot be read and is set aside as %s.bad: %v\n", e.Name(), e.Name(), err)
			if err := os.Rename(p, p+".bad"); err != nil {
				return nil, fmt.Errorf("cannot set session %s aside: %w", e.Name(), err)
			}
			continue
		}
		if r.State == StateRunning {
			r.State = StateInterrupted
		}
		s.all[r.ID] = r
		if st, err := e.Info(); err == nil {
			s.len[r.ID] = int(st.Size())
		}
	}
	return s, nil
}

func readRecord(p string) (*Record, error) {
	f, err := os.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return nil, err
	}
	r, err := ParseRecord(b)
	if err == nil && r.ID+".json" != filepath.Base(p) {
		err = errors.New("the name is not its id")
	}
	return r, err
}

// ParseRecord reads a Record strictly.
func ParseRecord(b []byte) (*Record, error) {
	if len(b) > maxRecord {
		return nil, fmt.Errorf("more than %d bytes", maxRecord)
	}
	r := &Record{}
	if err := wire.Decode(b, r); err != nil {
		return nil, err
	}
	if r.Version != recordVersion {
		return nil, fmt.Errorf("version %d, not %d", r.Version, recordVersion)
	}
	return r, nil
}

// New makes a record for uid and keeps it.
func (s *Store) New(uid uint32, kind, model, title string) (*Record, error) {
	now := time.Now().UTC()
	r := &Record{Version: recordVersion, UID: uid}
	r.Session = api.Session{ID: newID(), Kind: kind, Model: model, Title: title, State: StateRunning, Created: now, Updated: now}
	s.mu.Lock()
	n := 0
	for _, o := range s.all {
		if o.UID == uid {
			n++
		}
	}
	if n < MaxKept {
		s.all[r.ID] = r.clone()
	}
	s.mu.Unlock()
	if n >= MaxKept {
		return nil, fmt.Errorf("%w: %d are kept; remove some with: closedpawctl session rm ID", ErrTooMany, n)
	}
	return r, nil
}

// Save writes r, whole or not at all where the daemon ends. It is not synced: a power cut may take the last turn.
func (s *Store) Save(r *Record) error {
	r.Updated = time.Now().UTC()
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("cannot keep session %s: %w", r.ID, err)
	}
	if len(b) > maxRecord {
		return fmt.Errorf("cannot keep session %s: %d bytes are more than %d; begin a new one", r.ID, len(b), maxRecord)
	}
	if err := s.room(r, len(b)); err != nil {
		return err
	}
	tmp := filepath.Join(s.dir, ".tmp-"+r.ID)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("cannot keep session %s: %w", r.ID, err)
	}
	if err := os.Rename(tmp, filepath.Join(s.dir, r.ID+".json")); err != nil {
		return fmt.Errorf("cannot keep session %s: %w", r.ID, err)
	}
	s.mu.Lock()
	s.all[r.ID] = r.clone()
	s.mu.Unlock()
	return nil
}

// room takes n bytes for r, if its user has them left. What a session needs less than before it always gets.
func (s *Store) room(r *Record, n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := n
	for id, o := range s.all {
		if o.UID == r.UID && id != r.ID {
			total += s.len[id]
		}
	}
	if total > maxBytes && n > s.len[r.ID] {
		return fmt.Errorf("%w: they take more than %d MiB; remove some with: closedpawctl session rm ID", ErrTooMany, maxBytes>>20)
	}
	s.len[r.ID] = n
	return nil
}

// clone is what whoever works on a session gets: turns are never changed once they stand in it.
func (r *Record) clone() *Record {
	c := *r
	c.Turns = slices.Clone(r.Turns)
	return &c
}

// Get returns the session with this id.
func (s *Store) Get(id string) (*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.all[id]; ok {
		return r.clone(), nil
	}
	return nil, ErrNotFound
}

// Newest returns uid's newest conversation.
func (s *Store) Newest(uid uint32) (*Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out *Record
	for _, r := range s.all {
		if r.UID == uid && r.Kind == KindAsk && (out == nil || r.Created.After(out.Created)) {
			out = r
		}
	}
	if out == nil {
		return nil, ErrNotFound
	}
	return out.clone(), nil
}

// List returns the sessions whose owner see lets through, newest first.
func (s *Store) List(see func(owner uint32) bool) []api.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []api.Session{}
	for _, r := range s.all {
		if see(r.UID) {
			out = append(out, r.Session)
		}
	}
	slices.SortFunc(out, func(a, b api.Session) int { return b.Created.Compare(a.Created) })
	return out
}

// unused forgets a session that was made but never kept.
func (s *Store) unused(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, kept := s.len[id]; !kept {
		delete(s.all, id)
	}
}

// remove forgets a session for good.
func (s *Store) remove(id string) error {
	s.mu.Lock()
	delete(s.all, id)
	delete(s.len, id)
	s.mu.Unlock()
	if err := os.Remove(filepath.Join(s.dir, id+".json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot remove session %s: %w", id, err)
	}
	return nil
}
