package runsc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/urpc"

	"github.com/closedpaw/closedpaw/daemon/internal/sandbox"
)

// user is the guest's ordinary user and group.
const user = 1000

// execArgs is the wire form of pkg/sentry/control.ExecArgs, as far as it is needed. That package itself cannot be
// linked into control: its init looks for files that an empty root does not have.
type execArgs struct {
	Filename         string   `json:"filename"`
	Argv             []string `json:"argv"`
	Envv             []string `json:"envv"`
	WorkingDirectory string   `json:"wd"`
	KUID, KGID       uint32
	ExtraKGIDs       []uint32
	NoNewPrivileges  bool
	Capabilities     map[string]uint64
	StdioIsPty       bool
	urpc.FilePayload
	GuestFDs    []int
	ContainerID string
}

// dying is for how long the end of a command by SIGKILL may be the end of its sandbox.
const dying = 150 * time.Millisecond

type waitPIDArgs struct {
	PID int32
	CID string
}

type signalArgs struct {
	CID   string
	Signo int32
	PID   int32
	Mode  int // 0: this process alone
}

type process struct {
	b    *box
	c    *urpc.Client
	pid  int32
	done chan struct{}
	st   sandbox.Status
	err  error
}

// Start implements sandbox.Sandbox. At most as many processes run at once as there are connections; more wait.
func (b *box) Start(ctx context.Context, c sandbox.Command, stdin, stdout, stderr *os.File) (sandbox.Process, error) {
	p := &process{b: b, done: make(chan struct{})}
	select {
	case p.c = <-b.free:
	case <-b.gone:
		return nil, sandbox.ErrEnded
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	none := map[string]uint64{"PermittedCaps": 0, "InheritableCaps": 0, "EffectiveCaps": 0, "BoundingCaps": 0, "AmbientCaps": 0}
	a := &execArgs{
		Argv: c.Argv, Envv: append([]string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp", "USER=user", "LANG=C.UTF-8", "TERM=dumb"}, c.Env...),
		WorkingDirectory: sandbox.Workspace, KUID: user, KGID: user, NoNewPrivileges: true, Capabilities: none,
		FilePayload: urpc.FilePayload{Files: []*os.File{stdin, stdout, stderr}}, GuestFDs: []int{0, 1, 2}, ContainerID: b.id,
	}
	if err := call(ctx, p.c, "containerManager.ExecuteAsync", a, &p.pid); err != nil {
		if ctx.Err() != nil { // the connection is closed
			return nil, ctx.Err()
		}
		b.free <- p.c
		select {
		case <-b.gone:
			return nil, sandbox.ErrEnded
		default:
		}
		return nil, fmt.Errorf("cannot run %q: %w", c.Argv[0], explain(err))
	}
	go p.wait()
	return p, nil
}

// call is c.Call for as long as ctx lasts: then it closes the connection, as a sentry that was taken over may never
// answer. Only the end of a session ends its context, and with it goes the sandbox.
func call(ctx context.Context, c *urpc.Client, method string, arg, result any) error {
	stop := context.AfterFunc(ctx, func() { c.Socket.Close() }) // c.Close waits for the call
	err := c.Call(method, arg, result)
	if !stop() {
		return ctx.Err()
	}
	return err
}

// explain tells what is the command's fault. The sentry answers in words alone; they are those of Linux's errnos.
func explain(err error) error {
	var remote urpc.RemoteError
	if !errors.As(err, &remote) {
		return err
	}
	for _, e := range []struct {
		errno syscall.Errno
		is    error
	}{{syscall.ENOENT, sandbox.ErrNoCommand}, {syscall.ENOTDIR, sandbox.ErrNoCommand}, {syscall.EACCES, sandbox.ErrNotExecutable}, {syscall.ENOEXEC, sandbox.ErrNotExecutable}} {
		if strings.HasSuffix(remote.Message, e.errno.Error()) {
			return fmt.Errorf("%w: %w", e.is, err)
		}
	}
	return err
}

func (p *process) wait() {
	var ws uint32
	if err := p.c.Call("containerManager.WaitPID", &waitPIDArgs{PID: p.pid, CID: p.b.id}, &ws); err != nil {
		p.err = fmt.Errorf("%w: %w", sandbox.ErrEnded, err)
	} else {
		p.st = sandbox.StatusOf(syscall.WaitStatus(ws))
	}
	if p.st.Signal == int(syscall.SIGKILL) {
		// Where the whole sandbox is being killed, its commands may be seen to die first.
		select {
		case <-p.b.gone:
			p.err = sandbox.ErrEnded
		case <-time.After(dying):
		}
	}
	p.b.free <- p.c
	close(p.done)
}

// Wait implements sandbox.Process.
func (p *process) Wait(ctx context.Context) (sandbox.Status, error) {
	select {
	case <-p.done:
		return p.st, p.err
	default:
	}
	select {
	case <-p.done:
		return p.st, p.err
	case <-p.b.gone:
		return sandbox.Status{}, sandbox.ErrEnded
	case <-ctx.Done():
		return sandbox.Status{}, ctx.Err()
	}
}

// Kill implements sandbox.Process: SIGKILL to the process itself. What it started ends with the sandbox.
func (p *process) Kill(ctx context.Context) error {
	if err := call(ctx, p.b.ctl, "containerManager.Signal", &signalArgs{CID: p.b.id, Signo: int32(syscall.SIGKILL), PID: p.pid}, nil); err != nil {
		return fmt.Errorf("cannot signal the command: %w", err)
	}
	return nil
}
