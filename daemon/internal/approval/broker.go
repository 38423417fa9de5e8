// Package approval keeps the questions that wait for a person, and sees to it that each is answered at most once, by
// its owner, for exactly the bytes that were shown.
//
// Deny is what everything but a matching yes comes to: a closed session, an expiry, a wrong digest, an unknown answer.
// The package asks nobody and shows nothing; it must never answer by itself other than to deny.
package approval

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
)

// Outcomes of a question.
const (
	Allow   = "allow"
	Deny    = "deny"
	Expired = "expired"
)

// Errors that callers inspect.
var (
	ErrNotFound = errors.New("no such question")
	ErrNotYours = errors.New("the question is another user's")
	ErrAnswered = errors.New("the question was answered already")
	ErrDigest   = errors.New("the answer is for other bytes than the question's")
	ErrTooMany  = errors.New("too many open questions")
)

// MaxOpen bounds the open questions of one user.
const MaxOpen = 16

// keep is for how long a closed question can still be looked at.
const keep = 10 * time.Minute

// Question is what is put to a person.
type Question struct {
	UID     uint32
	Session string
	Tool    string
	Summary string
	Detail  string
	Reason  string
	Level   string
	Digest  string // of the exact bytes

	// Record is called before anybody can see the question; an error withdraws it.
	Record func(api.Approval) error
}

// Answer is how a question was closed.
type Answer struct {
	Outcome string // Allow, Deny or Expired
	By      string // who, for the audit
}

type entry struct {
	uid    uint32
	a      api.Approval  // Outcome is guarded by the Broker's mu, the rest never changes
	asked  bool          // guarded by mu: it was recorded; before that nobody sees it
	closed chan struct{} // closed with answer set
	answer Answer
}

// Broker holds the questions of all users. It is safe for concurrent use.
type Broker struct {
	life time.Duration
	mu   sync.Mutex
	all  map[string]*entry
}

// New returns a Broker whose questions live for life.
func New(life time.Duration) *Broker {
	return &Broker{life: life, all: map[string]*entry{}}
}

// Ask opens q and waits for its answer. opened is called once the question can be answered. An error means that the
// question was not answered: ctx ended, or the user has too many open; either way the answer is no.
func (b *Broker) Ask(ctx context.Context, q Question, opened func(api.Approval)) (api.Approval, Answer, error) {
	e, asked, err := b.open(q)
	if err != nil {
		return api.Approval{}, Answer{Outcome: Deny}, err
	}
	if q.Record != nil {
		if err := q.Record(asked); err != nil {
			b.close(e, Answer{Outcome: Deny, By: "it could not be recorded"})
			return api.Approval{}, Answer{Outcome: Deny}, err
		}
	}
	b.mu.Lock()
	e.asked = true
	b.mu.Unlock()
	opened(asked)
	t := time.NewTimer(b.life)
	defer t.Stop()
	select {
	case <-e.closed:
	case <-ctx.Done():
		b.close(e, Answer{Outcome: Deny, By: "the session ended"})
	case <-t.C:
		b.close(e, Answer{Outcome: Expired, By: "nobody answered in time"})
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return e.a, e.answer, ctx.Err()
}

// open returns the entry with a copy of the question as it was asked: the entry itself may be answered at any moment.
func (b *Broker) open(q Question) (*entry, api.Approval, error) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for id, e := range b.all {
		switch {
		case e.a.Outcome == "" && e.uid == q.UID:
			n++
		case e.a.Outcome != "" && now.Sub(e.a.Expires) > keep:
			delete(b.all, id)
		}
	}
	if n >= MaxOpen {
		return nil, api.Approval{}, fmt.Errorf("%w: %d wait for an answer", ErrTooMany, n)
	}
	e := &entry{uid: q.UID, closed: make(chan struct{}), a: api.Approval{
		ID: strings.ToLower(rand.Text()[:10]), Session: q.Session, Tool: q.Tool, Summary: q.Summary, Detail: q.Detail, Reason: q.Reason,
		Level: q.Level, Digest: q.Digest, Created: now.UTC(), Expires: now.Add(b.life).UTC(),
	}}
	b.all[e.a.ID] = e
	return e, e.a, nil
}

// close settles e unless it is settled; it says whether this answer was the one.
func (b *Broker) close(e *entry, a Answer) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.a.Outcome != "" {
		return false
	}
	e.answer, e.a.Outcome = a, a.Outcome
	close(e.closed)
	return true
}

// Answer closes a question. Only its owner may, not even root; and only for the bytes that it was asked about.
func (b *Broker) Answer(uid uint32, id string, ans api.Answer, by string) (api.Approval, error) {
	e, err := b.find(id)
	if err != nil {
		return api.Approval{}, err
	}
	if e.uid != uid {
		return api.Approval{}, ErrNotYours
	}
	a := Answer{Outcome: Deny, By: by}
	if ans.Allow {
		if ans.Digest != e.a.Digest {
			return api.Approval{}, ErrDigest
		}
		if e.a.Level != api.LevelConfirm { // nothing here can prove who a person is
			return api.Approval{}, fmt.Errorf("cannot allow at level %q", e.a.Level)
		}
		a.Outcome = Allow
	}
	if !b.close(e, a) {
		return api.Approval{}, ErrAnswered
	}
	return b.Get(id, func(uint32) bool { return true })
}

// Get returns one question, if see lets its owner's be seen.
func (b *Broker) Get(id string, see func(owner uint32) bool) (api.Approval, error) {
	e, err := b.find(id)
	if err != nil || !see(e.uid) {
		return api.Approval{}, ErrNotFound
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return e.a, nil
}

// Owner says whose question it is.
func (b *Broker) Owner(id string) (uint32, error) {
	e, err := b.find(id)
	if err != nil {
		return 0, err
	}
	return e.uid, nil
}

func (b *Broker) find(id string) (*entry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.all[id]; ok && e.asked {
		return e, nil
	}
	return nil, ErrNotFound
}

// Open lists the open questions whose owner see lets through, oldest first.
func (b *Broker) Open(see func(owner uint32) bool) []api.Approval {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := []api.Approval{}
	for _, e := range b.all {
		if e.a.Outcome == "" && e.asked && see(e.uid) {
			out = append(out, e.a)
		}
	}
	slices.SortFunc(out, func(a, c api.Approval) int { return a.Created.Compare(c.Created) })
	return out
}
