// Package runsc is the gVisor tier: sandboxes whose kernel is gVisor's sentry, driven by the sentry's own control RPC.
//
// The launcher starts them and hands over connected control sockets; this package never sees the folder they lie in.
// The RPC is internal to gVisor: client and runsc come from one module version by construction, as both are built
// from this repository's go.mod.
package runsc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/unet"
	"gvisor.dev/gvisor/pkg/urpc"

	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/sandbox"
)

// Tier is this runtime's name in policy and audit.
const Tier = "gvisor"

// Runtime asks the launcher for gVisor sandboxes.
type Runtime struct {
	launcher *role.Caller
	mu       sync.Mutex
	live     map[string]*box
}

var _ sandbox.Runtime = (*Runtime)(nil)

// New returns a Runtime on the connection to the launcher.
func New(launcher *role.Caller) *Runtime {
	return &Runtime{launcher: launcher, live: map[string]*box{}}
}

// Tier implements sandbox.Runtime.
func (r *Runtime) Tier() string { return Tier }

// Died tells the runtime that the launcher saw a sandbox end.
func (r *Runtime) Died(id string) {
	r.mu.Lock()
	b := r.live[id]
	r.mu.Unlock()
	if b != nil {
		b.end()
	}
}

// Create implements sandbox.Runtime: a cold start.
func (r *Runtime) Create(ctx context.Context, f *sandbox.Folder, l sandbox.Limits) (sandbox.Sandbox, error) {
	b := &box{r: r, id: strings.ToLower(rand.Text()[:16]), gone: make(chan struct{})}
	m := &role.CreateSandbox{ID: b.id, MemoryBytes: l.MemoryBytes, Processes: l.Processes, UpperBytes: l.UpperBytes}
	var files []*os.File
	if f != nil {
		m.OwnerUID, files = f.Owner, []*os.File{f.Dir}
	}
	r.mu.Lock()
	r.live[b.id] = b
	r.mu.Unlock()
	p, err := r.launcher.Call(ctx, m, files...)
	if err != nil {
		r.forget(b)
		if ctx.Err() != nil { // it may be starting still
			err = errors.Join(err, b.Remove(context.WithoutCancel(ctx)))
		}
		return nil, fmt.Errorf("cannot start a sandbox: %w", err)
	}
	if err := b.connect(p); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot start a sandbox: %w", err), b.Remove(context.WithoutCancel(ctx)))
	}
	return b, nil
}

func (r *Runtime) forget(b *box) {
	r.mu.Lock()
	delete(r.live, b.id)
	r.mu.Unlock()
}

// box is one gVisor sandbox.
type box struct {
	r    *Runtime
	id   string
	free chan *urpc.Client // idle connections; a waiting process holds one
	ctl  *urpc.Client      // for signals, so that one can always be sent
	mu   sync.Mutex
	all  []*urpc.Client // guarded by mu
	over bool           // guarded by mu
	gone chan struct{}  // closed when over
}

func (b *box) connect(p role.Packet) error {
	defer p.Close()
	if _, ok := p.Msg.(*role.CreatedSandbox); !ok || len(p.Files) < 2 {
		return fmt.Errorf("unexpected answer %T with %d descriptors", p.Msg, len(p.Files))
	}
	b.free = make(chan *urpc.Client, len(p.Files))
	for i, f := range p.Files {
		c, err := b.dial(f)
		if err != nil {
			return err
		}
		if i == 0 {
			b.ctl = c
		} else {
			b.free <- c
		}
	}
	return nil
}

// dial makes a client of a connected control socket.
func (b *box) dial(f *os.File) (*urpc.Client, error) {
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, fmt.Errorf("cannot take over a control socket: %w", err)
	}
	s, err := unet.NewSocket(fd)
	if err != nil {
		syscall.Close(fd)
		return nil, fmt.Errorf("cannot take over a control socket: %w", err)
	}
	c := urpc.NewClient(s)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over { // it died before it could be used
		c.Close()
		return nil, sandbox.ErrEnded
	}
	b.all = append(b.all, c)
	return c, nil
}

// end lets everyone who waits for the sandbox know; it may be called often.
func (b *box) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return
	}
	b.over = true
	close(b.gone)
	for _, c := range b.all {
		c.Socket.Close() // c.Close waits for the call that it should end
	}
}

func (b *box) Gone() <-chan struct{} { return b.gone }

func (b *box) Kill(ctx context.Context) error {
	_, err := role.Ask[role.Finished](ctx, b.r.launcher, &role.KillSandbox{ID: b.id})
	b.end()
	if err != nil {
		return fmt.Errorf("cannot end the sandbox: %w", err)
	}
	return nil
}

func (b *box) Remove(ctx context.Context) error {
	_, err := role.Ask[role.Finished](ctx, b.r.launcher, &role.RemoveSandbox{ID: b.id})
	b.end()
	b.r.forget(b)
	if err != nil {
		return fmt.Errorf("cannot remove the sandbox: %w", err)
	}
	return nil
}

func (b *box) Review(ctx context.Context) (*role.Caller, error) {
	p, err := b.r.launcher.Call(ctx, &role.StartReview{Sandbox: b.id})
	if err != nil {
		return nil, fmt.Errorf("cannot start the review: %w", err)
	}
	if _, ok := p.Msg.(*role.Started); !ok {
		p.Close()
		return nil, fmt.Errorf("cannot start the review: unexpected answer %T", p.Msg)
	}
	c, err := role.NewConn(p.Files[0], role.Control, role.Review)
	if err != nil {
		return nil, fmt.Errorf("cannot start the review: %w", err)
	}
	return role.NewCaller(c), nil
}
