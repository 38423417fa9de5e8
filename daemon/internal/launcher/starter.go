package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// starter forks all children, on one thread that lives as long as they do: a child's death signal fires when the
// *thread* that forked it ends, and only that thread may trace it.
type starter struct {
	exe  *os.File // closedpawd itself; executed by descriptor, so an upgrade on disk changes nothing for who runs
	work chan func()
}

func newStarter(self string) (*starter, error) {
	exe, err := os.Open(self)
	if err != nil {
		return nil, fmt.Errorf("cannot open my executable: %w", err)
	}
	s := &starter{exe: exe, work: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked
		for f := range s.work {
			f()
		}
	}()
	return s, nil
}

// close ends the thread, and with it every child that is still there.
func (s *starter) close() {
	close(s.work)
	s.exe.Close()
}

func (s *starter) do(f func() error) error {
	done := make(chan error, 1)
	s.work <- func() { done <- f() }
	return <-done
}

// myself is a command of this very executable, at the child's descriptor 3.
func (s *starter) myself(args ...string) *exec.Cmd {
	c := exec.Command("/proc/self/fd/3")
	c.Args = append([]string{"closedpawd"}, args...)
	c.Env = []string{}
	c.ExtraFiles = []*os.File{s.exe}
	return c
}

// proc is a role's process.
type proc struct {
	name role.Name
	id   string // an agent's own, or the sandbox that a review works for
	cmd  *exec.Cmd
	dead chan struct{} // closed once it was reaped
}

// end kills it and waits.
func (p *proc) end() {
	_ = p.cmd.Process.Kill()
	<-p.dead
}

// role starts one. The descriptors become its Links and Extra, in order; they stay the caller's.
func (s *starter) role(name role.Name, id string, as setup, handed ...*os.File) (*proc, error) {
	arg, err := json.Marshal(as)
	if err != nil {
		return nil, err
	}
	c := s.myself("-role", string(name), string(arg))
	c.Stderr = os.Stderr
	c.ExtraFiles = append(c.ExtraFiles, handed...)
	ns := uintptr(unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS)
	if !role.Table[name].Net {
		ns |= unix.CLONE_NEWNET
	}
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: ns, Pdeathsig: syscall.SIGKILL, Setsid: true}
	if err := s.do(c.Start); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	p := &proc{name: name, id: id, cmd: c, dead: make(chan struct{})}
	go func() {
		_ = c.Wait() // how it ended is in ProcessState
		close(p.dead)
	}()
	return p, nil
}

// run executes a program to its end, from its first instruction on inside the leaf. An error carries the last words
// that it wrote to stderr.
func (s *starter) run(l leaf, limit time.Duration, argv ...string) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close() // what it left running inherited the other end and must not be able to fill anything
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	c.Stderr = w
	// Traced: it stops before its first instruction. Not CLONE_INTO_CGROUP, as RestrictNamespaces= forbids clone3.
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true, Ptrace: true}
	err = s.do(func() error {
		if err := c.Start(); err != nil {
			return err
		}
		pid := c.Process.Pid
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if err == nil {
			err = l.add(pid)
		}
		if err == nil {
			err = unix.PtraceDetach(pid)
		}
		if err != nil {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
		return err
	})
	w.Close()
	if err != nil {
		return fmt.Errorf("cannot start %s: %w", argv[0], err)
	}
	late := time.AfterFunc(limit, func() { _ = c.Process.Kill() })
	defer late.Stop()
	words := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(r, 2048))
		words <- string(b)
		_, _ = io.Copy(io.Discard, r)
	}()
	if err := c.Wait(); err != nil {
		said := ""
		select {
		case said = <-words:
		case <-time.After(time.Second): // a child of it holds the pipe
		}
		return fmt.Errorf("%s: %w: %q", argv[len(argv)-1], err, said)
	}
	return nil
}

// userns returns a user namespace in which just one user and one group are mapped. The process that it takes is
// stopped before its first instruction and killed.
func (s *starter) userns(fromUID, fromGID, toUID, toGID uint32) (f *os.File, err error) {
	c := s.myself()
	one := func(from, to uint32) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: int(from), HostID: int(to), Size: 1}}
	}
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER, Pdeathsig: syscall.SIGKILL, Setsid: true, Ptrace: true,
		UidMappings: one(fromUID, toUID), GidMappings: one(fromGID, toGID)}
	err = s.do(func() error {
		if err := c.Start(); err != nil {
			return err
		}
		var err error
		f, err = os.Open(fmt.Sprintf("/proc/%d/ns/user", c.Process.Pid))
		_ = c.Process.Kill()
		if e := c.Wait(); c.ProcessState == nil {
			err = errors.Join(err, e)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make a user namespace: %w", err)
	}
	return f, nil
}
