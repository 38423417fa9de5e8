// Package session is what a person's request becomes: a conversation with a model or the run of a command, the sandbox
// that it works in, and the review of what it did to a folder.
//
// It runs in control. It relays: the conversation is held by an agent, code runs in a sandbox, hostile file trees are
// read by review, and every effect has a permit of the guard. It computes the labels of what a session has seen itself,
// from what it executed; a role's word on them is never asked for.
package session

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/audit"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/sandbox"
	"github.com/closedpaw/closedpaw/policy"
)

// MaxRunning bounds the turns and runs of one user at the same time.
const MaxRunning = 8

// Errors that callers inspect.
var (
	ErrNotFound = errors.New("no such session")
	ErrBusy     = errors.New("the session is busy")
	ErrTooMany  = errors.New("too many sessions at once")
)

// Sink takes a stream's events. more says that another is ready already, so that showing this one may wait for it.
type Sink interface {
	Send(e api.Event, more bool) error
}

// Deps are what sessions need.
type Deps struct {
	Guard    *guard.Guard
	Audit    *audit.Writer
	Runtime  sandbox.Runtime
	Launcher *role.Caller
	Gateway  *role.Caller
	Store    *Store
	Profile  policy.Profile
	Tools    []policy.Tool
	Ollama   string // URL
	Model    string // default; "" means the first of Ollama's that has tools
}

// Manager holds all sessions. It is safe for concurrent use.
type Manager struct {
	Deps
	agents    *agents
	handovers *handovers
	mu        sync.Mutex
	active    map[string]*work // by session
	wg        sync.WaitGroup
}

// NewManager returns a Manager that keeps one agent ready.
func NewManager(d Deps) *Manager {
	return &Manager{Deps: d, agents: newAgents(d.Launcher), handovers: newHandovers(), active: map[string]*work{}}
}

// Close waits until all that runs has ended; whoever calls it has cancelled their contexts before.
func (m *Manager) Close() {
	m.wg.Wait()
	m.handovers.close()
	m.agents.close()
}

// AgentDied tells that the launcher saw an agent end.
func (m *Manager) AgentDied(id string) { m.agents.died(id) }

// Running counts the work of the users that see lets through.
func (m *Manager) Running(see func(owner uint32) bool) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, w := range m.active {
		if see(w.rec.UID) {
			n++
		}
	}
	return n
}

// work is one turn of a conversation, or one run, while it lasts.
type work struct {
	m           *Manager
	rec         *Record
	out         Sink
	interactive bool
	label       policy.Label
	limits      sandbox.Limits
	folder      *sandbox.Folder
	box         sandbox.Sandbox
	usage       api.Usage
	denied      int
	turns       int // model calls that the agent may make
	applied     bool
	apply       *applying // set while the client applies
	released    bool
	start       time.Time
}

func (w *work) send(e api.Event) error { return w.out.Send(e, false) }

// begin registers work on rec, which nobody else may work on meanwhile.
func (m *Manager) begin(rec *Record, out Sink) (*work, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, busy := m.active[rec.ID]; busy {
		return nil, fmt.Errorf("%w: another turn of %s is running", ErrBusy, rec.ID)
	}
	n := 0
	for _, w := range m.active {
		if w.rec.UID == rec.UID {
			n++
		}
	}
	if n >= MaxRunning {
		return nil, fmt.Errorf("%w: %d are running; wait for one to end", ErrTooMany, n)
	}
	// What was read before may be older than the end of the turn before, or removed since.
	fresh, err := m.Store.Get(rec.ID)
	if err != nil {
		return nil, err
	}
	rec.Turns, rec.World, rec.Private = fresh.Turns, fresh.World, fresh.Private
	w := &work{m: m, rec: rec, out: out, label: policy.Label{World: rec.World, Private: rec.Private}, start: time.Now(), limits: sandbox.Limits{
		MemoryBytes: m.Profile.MemoryBytes, Processes: m.Profile.Processes, UpperBytes: m.Profile.UpperBytes}}
	m.active[rec.ID] = w
	m.wg.Add(1)
	return w, nil
}

// saw joins l into the label of the work and of its session, which never goes down: the next turn begins with it.
func (w *work) saw(l policy.Label) {
	w.label = w.label.Join(l)
	w.rec.World, w.rec.Private = w.label.World, w.label.Private
}

// release keeps what was said and lets the session be worked on again. It comes before the last event: whoever has seen
// that may go on at once, while the sandbox is still being removed.
func (w *work) release(state string) error {
	if w.released {
		return nil
	}
	w.released = true
	w.rec.State = state
	err := w.m.Store.Save(w.rec)
	if err != nil {
		w.m.Store.unused(w.rec.ID)
	}
	w.m.mu.Lock()
	delete(w.m.active, w.rec.ID)
	w.m.mu.Unlock()
	return err
}

// end takes everything down again. It is called exactly once, however the work went; err is how.
func (w *work) end(ctx context.Context, err error) {
	defer w.m.wg.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), role.Timeout)
	defer cancel()
	err = errors.Join(err, w.release(StateFailed)) // done has released what went well
	if w.box != nil {
		err = errors.Join(err, w.box.Remove(ctx))
	}
	if w.folder != nil {
		w.folder.Dir.Close()
	}
	reason := "done"
	if err != nil {
		reason = err.Error()
	}
	// If this fails there is nobody left to tell: the work is over, and nothing follows from the record.
	_ = w.m.Audit.SessionEnded(ctx, int64(w.rec.UID), w.rec.ID, reason)
}

// done is the last event of work that went well.
func (w *work) done(reason string) error {
	if err := w.release(StateDone); err != nil {
		return err
	}
	return w.send(api.Event{Type: api.EventDone, Done: &api.Done{Reason: reason, Denied: w.denied, Applied: w.applied}})
}

// sandbox starts the work's sandbox on first use.
func (w *work) sandbox(ctx context.Context) (sandbox.Sandbox, error) {
	if w.box != nil {
		return w.box, nil
	}
	box, err := w.m.Runtime.Create(ctx, w.folder, w.limits)
	if err != nil {
		return nil, err
	}
	w.box = box
	return box, nil
}

// askTime bounds a request to a model that names no time of its own.
const askTime = time.Hour

// commandTime is how long one command may run.
func (m *Manager) commandTime() time.Duration {
	return time.Duration(m.Profile.TimeoutSeconds) * time.Second
}

// deadline bounds the work's time: what the client wants, at most most.
func deadline(ctx context.Context, ms int64, most time.Duration) (context.Context, context.CancelFunc) {
	d := most
	if want := time.Duration(ms) * time.Millisecond; want > 0 && want < d {
		d = want
	}
	return context.WithTimeoutCause(ctx, d, &api.Error{Code: api.CodeTimeout, Message: fmt.Sprintf("stopped: it took longer than %s", d),
		Hint: "give it more time with --timeout, up to what policy allows"})
}

// failed turns the end of ctx into its reason.
func failed(ctx context.Context, err error) error {
	if ctx.Err() == nil || err == nil {
		return err
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return &api.Error{Code: api.CodeCancelled, Message: "cancelled"}
}

func newID() string { return strings.ToLower(rand.Text()[:12]) }

// title is the start of what was asked for, in one line.
func title(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > 60 {
		return string(r[:59]) + "…"
	}
	return s
}
