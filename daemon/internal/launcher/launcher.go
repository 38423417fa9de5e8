// Package launcher is the only code of ClosedPaw that runs as root: it starts the roles of package role and the
// sandboxes, mounts the folders that sandboxes see, and removes all of it again.
//
// It decides nothing and parses nothing that a user, a model or the world wrote. It takes a handful of messages, from
// control alone, and checks each again: an id is of a fixed form, a number is within bounds, a folder is a directory
// of the named owner on a local file system. What it starts runs with less than it was started with. A taken-over
// control could have it start sandboxes and lend them folders whose descriptors control was given, and no more.
//
// When Run returns, for whatever reason, no process, mount, cgroup or folder of it is left; after a SIGKILL the next
// Run removes what was.
package launcher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// Paths are the folders on the host. All are root's but State and Log, which are control's and audit's.
type Paths struct {
	Etc   string
	State string
	Log   string
	Run   string // the launcher's own; emptied at start but for sockets. Without ':', ',' and '\'.
}

// ID is the user and the group of a role.
type ID struct{ UID, GID uint32 }

// Options are what Run needs. All but HostNS and the last three are required.
type Options struct {
	Paths     Paths
	IDs       map[role.Name]ID // of every role but review, which is the sandbox's own user
	Listeners []*os.File       // handed to control, in this order; closed by Run
	HostNS    *os.File         // mount namespace of the clients; nil: Run's own
	Runsc     string           // path of gVisor's runtime
	Self      string           // path of the executable to start as roles
	Version   string
	Dev       bool
	Ollama    string        // overrides the configuration; may be empty
	IdleExit  time.Duration // 0: never
	Greeting  string        // said on stderr once all is ready; may be empty
}

const (
	readyTime = 30 * time.Second // for control to serve
	stopTime  = 5 * time.Second  // for control to end
)

type launcher struct {
	Options
	starter   *starter
	cgroups   cgroups
	leftovers int

	control *role.Conn
	roles   []*proc // control, audit and gateway
	fatal   chan error
	ready   chan struct{}
	idle    chan struct{}
	over    bool           // Run is ending; guarded by mu
	heard   chan struct{}  // closed when no request can come any more; nil before the first could
	busy    sync.WaitGroup // requests being carried out

	mu        sync.Mutex
	sandboxes map[string]*sandbox
	agents    map[string]*proc
	reviews   map[*proc]bool
}

// Run starts everything and returns when all of it has ended: nil after ctx was cancelled or nobody needed the daemon
// for IdleExit, else an error.
func Run(ctx context.Context, o Options) (err error) {
	unix.Umask(0o022)
	l := &launcher{Options: o, fatal: make(chan error, 8), ready: make(chan struct{}), idle: make(chan struct{}, 1),
		sandboxes: map[string]*sandbox{}, agents: map[string]*proc{}, reviews: map[*proc]bool{}}
	if err := unix.Access(o.Runsc, unix.X_OK); err != nil {
		return fmt.Errorf("cannot find gVisor at %s: %w; build it with `make build` or install the package again", o.Runsc, err)
	}
	if l.starter, err = newStarter(o.Self); err != nil {
		return err
	}
	defer l.starter.close()
	if l.cgroups, err = findCgroups(); err != nil {
		return fmt.Errorf("cannot find the cgroups: %w", err)
	}
	if l.leftovers, err = l.clean(); err != nil {
		return fmt.Errorf("cannot remove what an earlier closedpawd left in %s: %w", o.Paths.Run, err)
	}
	defer func() {
		if e := l.end(); e != nil {
			err = errors.Join(err, fmt.Errorf("cannot clean up: %w", e))
		}
	}()
	if err := os.MkdirAll(filepath.Join(o.Paths.Run, "sandbox"), 0o711); err != nil {
		return fmt.Errorf("cannot make the folder of sandboxes: %w", err)
	}
	if err := os.MkdirAll(l.runscRoot(), 0o700); err != nil {
		return fmt.Errorf("cannot make the folder of sandboxes: %w", err)
	}
	if err := rootfs(filepath.Join(o.Paths.Run, "rootfs")); err != nil {
		return err
	}
	if err := l.startRoles(); err != nil {
		return err
	}
	return l.supervise(ctx)
}

// startRoles starts audit, gateway and control, connected as the table says, and tells control to begin.
func (l *launcher) startRoles() error {
	mine, control, err := role.Pair()
	if err != nil {
		return err
	}
	if l.control, err = role.NewConn(mine, role.Launcher, role.Control); err != nil {
		return err
	}
	theirs := map[role.Name]*os.File{role.Launcher: control} // control's ends
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	for _, name := range []role.Name{role.Audit, role.Gateway} {
		a, b, err := role.Pair()
		if err != nil {
			return err
		}
		theirs[name] = a
		p, err := l.starter.role(name, "", l.setup(name), b)
		b.Close()
		if err != nil {
			return err
		}
		l.guard(p)
	}
	var links []*os.File
	for _, other := range role.Table[role.Control].Links {
		links = append(links, theirs[other])
	}
	p, err := l.starter.role(role.Control, "", l.setup(role.Control), links...)
	if err != nil {
		return err
	}
	l.guard(p)
	err = l.control.Send(0, &role.Begin{PID: os.Getpid(), Version: l.Version, Dev: l.Dev, Ollama: l.Ollama,
		IdleExit: l.IdleExit.Milliseconds(), Leftovers: l.leftovers}, l.Listeners...)
	closeAll(l.Listeners) // with control they end
	return err
}

// setup says as whom a role runs and where its binds come from. A file that this host does not have is left out.
func (l *launcher) setup(name role.Name) setup {
	id := l.IDs[name]
	s := setup{UID: id.UID, GID: id.GID, Sources: map[string]string{"etc": l.Paths.Etc, "state": l.Paths.State, "log": l.Paths.Log}}
	for key, file := range map[string]string{"resolv": "/etc/resolv.conf", "hosts": "/etc/hosts", "nsswitch": "/etc/nsswitch.conf", "ca": "/etc/ssl/certs/ca-certificates.crt"} {
		if real, err := filepath.EvalSymlinks(file); err == nil {
			s.Sources[key] = real
		}
	}
	return s
}

// guard ends Run when a role ends without which nothing works.
func (l *launcher) guard(p *proc) {
	l.roles = append(l.roles, p)
	go func() {
		<-p.dead
		if p.cmd.ProcessState.Success() { // it ended because another did: let that one be named
			time.Sleep(200 * time.Millisecond)
		}
		l.fatal <- fmt.Errorf("%s has ended (%s), so everything ends; what it last said stands above", p.name, p.cmd.ProcessState)
	}()
}

// supervise serves control until the end.
func (l *launcher) supervise(ctx context.Context) error {
	l.heard = make(chan struct{})
	go func() {
		err := l.receive()
		close(l.heard)
		l.mu.Lock()
		over := l.over
		l.mu.Unlock()
		select {
		case <-l.roles[len(l.roles)-1].dead: // that says more than the end of the connection
		case <-time.After(time.Second):
			if !over {
				l.fatal <- fmt.Errorf("cannot go on without control: %w", err)
			}
		}
	}()
	select {
	case <-l.ready:
	case err := <-l.fatal:
		return fmt.Errorf("cannot start: %w", err)
	case <-ctx.Done():
		return l.stop()
	case <-time.After(readyTime):
		return errors.New("cannot start: control did not become ready in time")
	}
	notify(daemon.SdNotifyReady, "STATUS=ready")
	if l.Greeting != "" {
		fmt.Fprintln(os.Stderr, "closedpawd:", l.Greeting)
	}
	ping, every := (<-chan time.Time)(nil), time.Duration(0)
	if every, _ = daemon.SdWatchdogEnabled(false); every > 0 {
		t := time.NewTicker(every / 3)
		defer t.Stop()
		ping = t.C
	}
	for {
		select {
		case <-ping: // receive has not ended, nor control: else fatal has something
			notify(daemon.SdNotifyWatchdog)
		case err := <-l.fatal:
			return err
		case <-ctx.Done():
			return l.stop()
		case <-l.idle:
			return l.stop()
		}
	}
}

// stop lets control end gracefully. Its requests are served meanwhile.
func (l *launcher) stop() error {
	notify(daemon.SdNotifyStopping)
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	control := l.roles[len(l.roles)-1]
	if err := l.control.Send(0, &role.Stop{}); err == nil {
		select {
		case <-control.dead:
		case <-time.After(stopTime):
		}
	}
	return nil
}

// end removes everything. Order: who could ask for more, what was asked for, then the folders.
func (l *launcher) end() error {
	l.mu.Lock()
	l.over = true
	l.mu.Unlock()
	if l.control != nil {
		l.control.Close()
	}
	for _, p := range l.roles {
		p.end()
	}
	if l.heard != nil {
		<-l.heard
	}
	l.busy.Wait()
	l.mu.Lock()
	var procs []*proc
	for _, p := range l.agents {
		procs = append(procs, p)
	}
	for p := range l.reviews {
		procs = append(procs, p)
	}
	var boxes []*sandbox
	for _, s := range l.sandboxes {
		boxes = append(boxes, s)
	}
	l.mu.Unlock()
	for _, p := range procs {
		p.end()
	}
	errs := make(chan error, len(boxes))
	for _, s := range boxes {
		go func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			errs <- l.discard(s)
		}()
	}
	var err error
	for range boxes {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return err
	}
	return l.removeFolders()
}

func (l *launcher) removeFolders() (err error) {
	for _, d := range []string{"sandbox", "runsc", "rootfs"} {
		err = errors.Join(err, removeTree(filepath.Join(l.Paths.Run, d)))
	}
	return err
}

// clean removes what an earlier life left behind, and counts the sandboxes among it. Roles die with their launcher.
func (l *launcher) clean() (n int, err error) {
	dirs, err := os.ReadDir(filepath.Join(l.Paths.Run, "sandbox"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(l.Paths.Run, "sandbox", d.Name(), "cgroups"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		old := leaf(strings.Fields(string(b)))
		if err := errors.Join(old.kill(), old.remove()); err != nil {
			return 0, err
		}
		n++
	}
	if err := killAll(func() []int { return procsOf("--root="+l.runscRoot(), "") }); err != nil {
		return 0, err
	}
	return n, l.removeFolders()
}

func notify(lines ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		fmt.Fprintf(os.Stderr, "closedpawd: cannot notify systemd: %v\n", err)
	}
}
