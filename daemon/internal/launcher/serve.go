package launcher

import (
	"errors"
	"fmt"
	"os"
	"regexp"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// maxHelpers bounds the agents, and the reviews, that live at once; maxRequests what is carried out at once.
const (
	maxHelpers  = 128
	maxRequests = 256
)

var agentID = regexp.MustCompile(`^[a-z0-9]{8,32}$`)

// receive serves control until its connection ends. What needs an order, who is admitted and which agent lives, is done
// here; what takes time goes on beside it.
func (l *launcher) receive() error {
	slots := make(chan struct{}, maxRequests)
	beside := func(seq uint64, work func() (role.Message, []*os.File, error)) {
		slots <- struct{}{}
		l.busy.Add(1)
		go func() {
			defer func() { <-slots; l.busy.Done() }()
			m, files, err := work()
			l.answer(seq, m, files, err)
		}()
	}
	isReady := false
	for {
		p, err := l.control.Recv()
		if err != nil {
			return err
		}
		switch m := p.Msg.(type) {
		case *role.Ready:
			if isReady {
				return errors.New("control said twice that it is ready")
			}
			isReady = true
			close(l.ready)
		case *role.Idle:
			select {
			case l.idle <- struct{}{}:
			default: // it is ending already
			}
		case *role.StartAgent:
			files, err := l.startAgent(m.ID)
			l.answer(p.Seq, &role.Started{}, files, err)
		case *role.EndAgent:
			a := l.takeAgent(m.ID)
			beside(p.Seq, func() (role.Message, []*os.File, error) {
				if a != nil {
					a.end()
				}
				return &role.Finished{}, nil, nil
			})
		case *role.CreateSandbox:
			s, err := l.admit(m)
			if err != nil {
				p.Close()
				l.answer(p.Seq, nil, nil, err)
				break
			}
			beside(p.Seq, func() (role.Message, []*os.File, error) {
				defer p.Close()
				conns, err := l.create(s, m, p.Files)
				return &role.CreatedSandbox{}, conns, err
			})
		case *role.StartReview:
			beside(p.Seq, func() (role.Message, []*os.File, error) {
				files, err := l.startReview(m.Sandbox)
				return &role.Started{}, files, err
			})
		case *role.KillSandbox:
			beside(p.Seq, func() (role.Message, []*os.File, error) {
				s, err := l.lock(m.ID)
				if err != nil {
					return nil, nil, err
				}
				defer s.mu.Unlock()
				return &role.Finished{}, nil, l.kill(s)
			})
		case *role.RemoveSandbox:
			beside(p.Seq, func() (role.Message, []*os.File, error) {
				s, err := l.lock(m.ID)
				if err != nil { // gone already is as good
					return &role.Finished{}, nil, nil
				}
				defer s.mu.Unlock()
				return &role.Finished{}, nil, l.discard(s)
			})
		case *role.CheckHost:
			beside(p.Seq, func() (role.Message, []*os.File, error) { return &role.CheckedHost{Checks: l.checkHost()}, nil, nil })
		default: // the table lets control say no other; Failed alone goes every way
			p.Close()
			return fmt.Errorf("%w: %T", role.ErrNotPermitted, m)
		}
	}
}

// answer tells control how a request ended, and closes the descriptors.
func (l *launcher) answer(seq uint64, m role.Message, files []*os.File, err error) {
	defer closeAll(files)
	if err != nil {
		f := &role.Failed{Code: api.CodeInternal}
		var known *role.Failed
		if errors.As(err, &known) {
			f = &role.Failed{Code: known.Code, Hint: known.Hint}
		}
		f.Text = err.Error()
		m, files = f, nil
	}
	if err := l.control.Send(seq, m, files...); err != nil {
		l.complain(err)
	}
}

// tell says something to control unasked.
func (l *launcher) tell(m role.Message) {
	if err := l.control.Send(0, m); err != nil {
		l.complain(err)
	}
}

// complain logs what went wrong towards control, unless all is ending anyway.
func (l *launcher) complain(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.over {
		fmt.Fprintf(os.Stderr, "closedpawd: %v\n", err)
	}
}

// lock finds a sandbox and locks it, once the request that is at work on it is done.
func (l *launcher) lock(id string) (*sandbox, error) {
	no := &role.Failed{Code: api.CodeNotFound, Text: "there is no such sandbox"}
	l.mu.Lock()
	s := l.sandboxes[id]
	l.mu.Unlock()
	if s == nil {
		return nil, no
	}
	s.mu.Lock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sandboxes[id] != s { // it was removed meanwhile
		s.mu.Unlock()
		return nil, no
	}
	return s, nil
}

func (l *launcher) startAgent(id string) ([]*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.over:
		return nil, &role.Failed{Code: api.CodeUnavailable, Text: "closedpawd is stopping"}
	case !agentID.MatchString(id):
		return nil, &role.Failed{Code: api.CodeBadRequest, Text: "cannot start an agent: its id is not [a-z0-9]{8,32}"}
	case l.agents[id] != nil:
		return nil, &role.Failed{Code: api.CodeConflict, Text: "there is an agent of this id already"}
	case len(l.agents) >= maxHelpers:
		return nil, &role.Failed{Code: api.CodeTooMany, Text: fmt.Sprintf("%d agents run already", maxHelpers), Hint: "wait until one has ended"}
	}
	p, mine, err := l.helper(role.Agent, id, l.setup(role.Agent))
	if err != nil {
		return nil, err
	}
	l.agents[id] = p
	go func() {
		<-p.dead
		l.mu.Lock()
		byItself := l.agents[id] == p && !l.over
		if l.agents[id] == p {
			delete(l.agents, id)
		}
		l.mu.Unlock()
		if byItself {
			l.tell(&role.Died{Role: role.Agent, ID: id, Why: p.cmd.ProcessState.String()})
		}
	}()
	return []*os.File{mine}, nil
}

// takeAgent forgets an agent, so that its end is no news.
func (l *launcher) takeAgent(id string) *proc {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.agents[id]
	delete(l.agents, id)
	return p
}

// startReview starts a review of a sandbox that was killed, as the sandbox's own user: its files are of mode 0600 as
// often as not, an overlay cannot be idmapped, and a capability to read all would be one too many.
func (l *launcher) startReview(id string) ([]*os.File, error) {
	s, err := l.lock(id)
	if err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if !s.killed {
		return nil, &role.Failed{Code: api.CodeConflict, Text: "cannot review a sandbox that still runs"}
	}
	var layers []*os.File
	defer func() { closeAll(layers) }()
	for _, d := range []string{"lower", "upper/u", "merged"} {
		f, err := readOnly(s.at(d))
		if err != nil {
			return nil, err
		}
		layers = append(layers, f)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over || len(l.reviews) >= maxHelpers {
		return nil, &role.Failed{Code: api.CodeTooMany, Text: "cannot start a review now", Hint: "try again"}
	}
	p, mine, err := l.helper(role.Review, id, setup{UID: s.user(), GID: s.user()}, layers...)
	if err != nil {
		return nil, err
	}
	l.reviews[p] = true
	go func() {
		<-p.dead
		l.mu.Lock()
		delete(l.reviews, p)
		news := !l.over && !p.cmd.ProcessState.Success()
		l.mu.Unlock()
		if news {
			l.tell(&role.Died{Role: role.Review, ID: id, Why: p.cmd.ProcessState.String()})
		}
	}()
	return []*os.File{mine}, nil
}

// helper starts a role that talks to control alone, and returns control's end.
func (l *launcher) helper(name role.Name, id string, as setup, extra ...*os.File) (*proc, *os.File, error) {
	a, b, err := role.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer b.Close()
	p, err := l.starter.role(name, id, as, append([]*os.File{b}, extra...)...)
	if err != nil {
		a.Close()
		return nil, nil, err
	}
	return p, a, nil
}

// checkHost says what of the host sandboxes need.
func (l *launcher) checkHost() []api.Check {
	check := func(name string, needed bool, err error, detail, fix string) api.Check {
		if err != nil {
			return api.Check{Name: name, Needed: needed, Detail: err.Error(), Fix: fix}
		}
		return api.Check{Name: name, OK: true, Needed: needed, Detail: detail}
	}
	fs, overlay := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if overlay == nil {
		unix.Close(fs)
	}
	ns, userns := l.starter.userns(1, 1, firstBase, firstBase)
	if userns == nil {
		ns.Close()
	}
	var memory error
	if !l.cgroups.memory {
		memory = errors.New("no memory controller: memory is bounded per process, not per sandbox")
	}
	return []api.Check{
		check("gvisor", true, unix.Access(l.Runsc, unix.X_OK), l.Runsc, "install the closedpaw package again, or `make build`"),
		check("overlayfs", true, overlay, "the kernel has it", "modprobe overlay"),
		check("user namespaces", true, userns, "root may make them", "sysctl -w user.max_user_namespaces=10000"),
		check("memory limits", false, memory, "by cgroup", "boot with cgroup v2 and systemd, the default of Debian"),
	}
}
