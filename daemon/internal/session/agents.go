package session

import (
	"context"
	"fmt"
	"sync"

	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// agents gives each turn an agent of its own and keeps the next one ready: starting one takes longer than a model's
// first token may be late.
type agents struct {
	launcher *role.Caller
	spare    chan *agent
	mu       sync.Mutex
	closed   bool
	live     map[string]*agent
}

// agent is one that runs.
type agent struct {
	id   string
	conn *role.Conn
	dead chan struct{} // closed when the launcher saw it end by itself
}

func newAgents(launcher *role.Caller) *agents {
	a := &agents{launcher: launcher, spare: make(chan *agent, 1), live: map[string]*agent{}}
	go a.refill()
	return a
}

// refill starts the next one, unless one is ready. It is called when a turn is over: starting a process before would take
// the processor from the model.
func (a *agents) refill() {
	if len(a.spare) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), role.Timeout)
	defer cancel()
	ag, err := a.start(ctx)
	if err != nil {
		return // the next turn tries itself, and says why it cannot
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		select {
		case a.spare <- ag:
			return
		default:
		}
	}
	go a.stop(ag)
}

// get returns an agent that nobody has used.
func (a *agents) get(ctx context.Context) (*agent, error) {
	for {
		select {
		case ag := <-a.spare:
			if !ag.conn.Readable() {
				return ag, nil
			}
			a.stop(ag) // it may not speak before it is spoken to; or it died while it waited
		default:
			return a.start(ctx)
		}
	}
}

func (a *agents) start(ctx context.Context) (*agent, error) {
	ag := &agent{id: newID(), dead: make(chan struct{})}
	a.mu.Lock()
	a.live[ag.id] = ag
	a.mu.Unlock()
	p, err := a.launcher.Call(ctx, &role.StartAgent{ID: ag.id})
	if err == nil && len(p.Files) != 1 {
		p.Close()
		err = fmt.Errorf("unexpected answer %T", p.Msg)
	}
	if err == nil {
		ag.conn, err = role.NewConn(p.Files[0], role.Control, role.Agent)
	}
	if err != nil {
		a.forget(ag)
		return nil, fmt.Errorf("cannot start an agent: %w", err)
	}
	return ag, nil
}

// stop ends an agent for good.
func (a *agents) stop(ag *agent) {
	ctx, cancel := context.WithTimeout(context.Background(), role.Timeout)
	defer cancel()
	// An agent that is gone already is no failure.
	_, _ = role.Ask[role.Finished](ctx, a.launcher, &role.EndAgent{ID: ag.id})
	ag.conn.Close()
	a.forget(ag)
}

// over ends the agent of a turn and starts the next one's.
func (a *agents) over(ag *agent) {
	a.stop(ag)
	a.refill()
}

func (a *agents) forget(ag *agent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.live, ag.id)
}

// died is called when the launcher saw an agent end: its turn ends with it, even while a tool runs.
func (a *agents) died(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ag := a.live[id]; ag != nil {
		delete(a.live, id)
		close(ag.dead)
	}
}

func (a *agents) close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	select {
	case ag := <-a.spare:
		a.stop(ag)
	default:
	}
}
