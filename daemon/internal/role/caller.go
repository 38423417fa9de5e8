package role

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
)

// ErrGone means that the other role has ended.
var ErrGone = errors.New("role has ended")

// maxLate bounds the answers that may be owed to callers who gave up.
const maxLate = 1024

// Caller lets many goroutines ask the other side of one connection, each getting its own answer. What comes unasked
// goes to the handler given to Run.
type Caller struct {
	*Conn
	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan Packet
	late    map[uint64]bool // calls whose caller gave up: their answers are dropped
	gone    chan struct{}   // closed when Run has ended
	err     error           // why; set before gone is closed
}

// NewCaller wraps c; nothing is received until Run.
func NewCaller(c *Conn) *Caller {
	return &Caller{Conn: c, waiting: map[uint64]chan Packet{}, late: map[uint64]bool{}, gone: make(chan struct{})}
}

// Gone is closed when the other role has ended or broke the rules; Err then says which.
func (c *Caller) Gone() <-chan struct{} { return c.gone }

// Err is why the connection ended.
func (c *Caller) Err() error { return c.err }

// Run receives until the connection ends. handle gets what is no answer, in order, and must not block for long;
// an error of it ends the connection.
func (c *Caller) Run(handle func(Packet) error) error {
	err := c.run(handle)
	c.Close()
	c.err = fmt.Errorf("%w: %s: %w", ErrGone, c.other, err)
	close(c.gone)
	return err
}

func (c *Caller) run(handle func(Packet) error) error {
	for {
		p, err := c.Recv()
		if err != nil {
			return err
		}
		c.mu.Lock()
		ch, ok := c.waiting[p.Seq]
		if ok {
			delete(c.waiting, p.Seq)
			ch <- p // it has room for one
		}
		late := c.late[p.Seq]
		delete(c.late, p.Seq)
		c.mu.Unlock()
		switch {
		case ok:
		case late:
			p.Close()
		case handle == nil:
			p.Close()
			return fmt.Errorf("%w: %q was not asked for", ErrNotPermitted, p.Msg.kind())
		default:
			if err := handle(p); err != nil {
				return err
			}
		}
	}
}

// Call sends m and waits for its answer. A Failed answer is returned as an error.
func (c *Caller) Call(ctx context.Context, m Message, files ...*os.File) (Packet, error) {
	return c.Begin(m, files...)(ctx)
}

// Begin sends m and returns what waits for its answer, which must be called once. What is begun first arrives first.
func (c *Caller) Begin(m Message, files ...*os.File) (wait func(context.Context) (Packet, error)) {
	ch := make(chan Packet, 1)
	c.mu.Lock()
	c.next++
	seq := c.next
	c.waiting[seq] = ch
	c.mu.Unlock()
	sent := c.Send(seq, m, files...)
	return func(ctx context.Context) (Packet, error) {
		p, err := Packet{}, sent
		if err == nil {
			p, err = c.wait(ctx, ch)
		}
		if err != nil {
			c.forget(seq, ch)
			return Packet{}, err
		}
		if f, ok := p.Msg.(*Failed); ok {
			p.Close()
			return Packet{}, f
		}
		return p, nil
	}
}

func (c *Caller) wait(ctx context.Context, ch <-chan Packet) (Packet, error) {
	select {
	case p := <-ch:
		return p, nil
	case <-c.gone:
		select {
		case p := <-ch: // the other side answered, then ended
			return p, nil
		default:
			return Packet{}, c.err
		}
	case <-ctx.Done():
		return Packet{}, ctx.Err()
	}
}

// forget gives up waiting.
func (c *Caller) forget(seq uint64, ch <-chan Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.waiting[seq]; ok {
		delete(c.waiting, seq)
		if c.late[seq] = true; len(c.late) > maxLate {
			c.Close() // it does not answer any more
		}
	}
	select { // it may have come at the same moment: run hands it over under the lock
	case p := <-ch:
		p.Close()
	default:
	}
}

// Ask is Call for an answer of one type without descriptors.
func Ask[A any, P interface {
	*A
	Message
}](ctx context.Context, c *Caller, m Message, files ...*os.File) (*A, error) {
	p, err := c.Call(ctx, m, files...)
	if err != nil {
		return nil, err
	}
	return Answer[A, P](p)
}

// Answer is the message of p, if it is of this type and carries no descriptors.
func Answer[A any, P interface {
	*A
	Message
}](p Packet) (*A, error) {
	a, ok := p.Msg.(P)
	if !ok || len(p.Files) > 0 {
		p.Close()
		return nil, fmt.Errorf("%w: %q is no such answer", ErrNotPermitted, p.Msg.kind())
	}
	return (*A)(a), nil
}
