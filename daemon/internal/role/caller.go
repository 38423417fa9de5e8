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

// Caller lets many goroutines ask the other side of one connection, each getting its own answer. What comes unasked
// goes to the handler given to Run.
type Caller struct {
	*Conn
	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan Packet
	gone    chan struct{} // closed when Run has ended
	err     error         // why; set before gone is closed
}

// NewCaller wraps c; nothing is received until Run.
func NewCaller(c *Conn) *Caller {
	return &Caller{Conn: c, waiting: map[uint64]chan Packet{}, gone: make(chan struct{})}
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
		delete(c.waiting, p.Seq)
		c.mu.Unlock()
		switch {
		case ok:
			ch <- p
		case p.Seq != 0 && handle == nil: // an answer whose asker gave up
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
	ch := make(chan Packet, 1)
	c.mu.Lock()
	c.next++
	seq := c.next
	c.waiting[seq] = ch
	c.mu.Unlock()
	forget := func() {
		c.mu.Lock()
		delete(c.waiting, seq)
		c.mu.Unlock()
		select { // it may have come at the same moment
		case p := <-ch:
			p.Close()
		default:
		}
	}
	if err := c.Send(seq, m, files...); err != nil {
		forget()
		return Packet{}, err
	}
	var p Packet
	select {
	case p = <-ch:
	case <-c.gone:
		select {
		case p = <-ch: // the other side answered, then ended
		default:
			forget()
			return Packet{}, c.err
		}
	case <-ctx.Done():
		forget()
		return Packet{}, ctx.Err()
	}
	if f, ok := p.Msg.(*Failed); ok {
		p.Close()
		return Packet{}, f
	}
	return p, nil
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
	a, ok := p.Msg.(P)
	if !ok || len(p.Files) > 0 {
		p.Close()
		return nil, fmt.Errorf("%w: %q is no answer to %q", ErrNotPermitted, p.Msg.kind(), m.kind())
	}
	return (*A)(a), nil
}
