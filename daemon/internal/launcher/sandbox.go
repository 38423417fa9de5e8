package launcher

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

const (
	maxSandboxes = 64
	sockets      = 4 // control sockets that control gets of a sandbox: a waiting call keeps one
	startTime    = 20 * time.Second
)

var sandboxID = regexp.MustCompile(`^[a-z0-9]{8,32}$`)

// sandbox is one that control asked for. Below its folder, run/sandbox/ID:
//
//	lower    the person's folder, read-only and idmapped, or an empty one
//	upper    a tmpfs of bounded size, with u (the overlay's upper layer), w (its work folder) and l (the empty lower)
//	merged   the overlay of both, which the sandbox has as /workspace
//	cgroups  the folders of its leaf, so that a later life finds them
type sandbox struct {
	mu   sync.Mutex // one request at a time; held before launcher.mu, never after it
	id   string
	dir  string
	base uint32 // first of its users on the host
	leaf leaf

	pidfd  *os.File      // of gVisor's kernel; nil before it runs
	gone   chan struct{} // closed when that has ended
	killed bool          // by request
}

// user is the host's number of the sandbox's ordinary user.
func (s *sandbox) user() uint32 { return s.base + guest }

func (s *sandbox) at(name string) string { return filepath.Join(s.dir, name) }

// admit checks what was asked for and gives it a place, locked. It does nothing slow.
func (l *launcher) admit(m *role.CreateSandbox) (*sandbox, error) {
	bad := func(what string) error {
		return &role.Failed{Code: api.CodeBadRequest, Text: "cannot make a sandbox: " + what}
	}
	switch {
	case !sandboxID.MatchString(m.ID):
		return nil, bad("its id is not [a-z0-9]{8,32}")
	case m.MemoryBytes < 16<<20 || m.MemoryBytes > 1<<40:
		return nil, bad("memory must be between 16 MiB and 1 TiB")
	case m.Processes < 1 || m.Processes > 32768:
		return nil, bad("processes must be between 1 and 32768")
	case m.UpperBytes < 1<<20 || m.UpperBytes > 1<<40:
		return nil, bad("changes must be between 1 MiB and 1 TiB")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sandboxes[m.ID] != nil {
		return nil, &role.Failed{Code: api.CodeConflict, Text: "a sandbox of this id is there already"}
	}
	if len(l.sandboxes) >= maxSandboxes {
		return nil, &role.Failed{Code: api.CodeTooMany, Text: fmt.Sprintf("%d sandboxes run already", maxSandboxes), Hint: "wait until one has ended"}
	}
	base, err := l.pickBase()
	if err != nil {
		return nil, err
	}
	s := &sandbox{id: m.ID, dir: filepath.Join(l.Paths.Run, "sandbox", m.ID), base: base, leaf: l.cgroups.name(m.ID), gone: make(chan struct{})}
	l.sandboxes[m.ID] = s
	s.mu.Lock()
	return s, nil
}

// pickBase chooses users that nobody has: at random, as another closedpawd may be running with -dev.
func (l *launcher) pickBase() (uint32, error) {
	no := taken()
	for _, s := range l.sandboxes {
		no = append(no, [2]uint64{uint64(s.base), uint64(s.base) + idRange})
	}
	const all = (lastBase-firstBase)/idRange + 1
	start := rand.N(all) //nolint:gosec // no secret: just not the one that another daemon takes
	for i := range all {
		if base := uint32(firstBase + (start+i)%all*idRange); free(base, no) {
			return base, nil
		}
	}
	return 0, errors.New("no users are left for a sandbox; see /etc/subuid")
}

// create makes and starts an admitted sandbox and unlocks it. Where it fails nothing is left.
func (l *launcher) create(s *sandbox, m *role.CreateSandbox, files []*os.File) (conns []*os.File, err error) {
	defer s.mu.Unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, l.discard(s))
		}
	}()
	for _, d := range []string{"lower", "upper", "merged"} {
		if err := os.MkdirAll(s.at(d), 0o711); err != nil {
			return nil, fmt.Errorf("cannot make the sandbox's folder: %w", err)
		}
	}
	if err := os.WriteFile(s.at("cgroups"), []byte(strings.Join(s.leaf, "\n")), 0o600); err != nil {
		return nil, fmt.Errorf("cannot note the sandbox's cgroup: %w", err)
	}
	if err := l.cgroups.make(s.leaf, m.MemoryBytes, m.Processes); err != nil {
		return nil, err
	}
	if err := l.layers(s, m, files); err != nil {
		return nil, err
	}
	if err := bundle(s.dir, filepath.Join(l.Paths.Run, "rootfs"), s.at("merged"), s.base, m.MemoryBytes, m.Processes, !l.cgroups.memory); err != nil {
		return nil, fmt.Errorf("cannot describe the sandbox: %w", err)
	}
	if err := l.starter.run(s.leaf, startTime, l.runsc("create", "-bundle", s.dir, "-pid-file", s.at("pid"), s.id)...); err != nil {
		return nil, fmt.Errorf("cannot create the sandbox: %w", err)
	}
	if err := l.starter.run(nil, startTime, l.runsc("start", s.id)...); err != nil {
		return nil, fmt.Errorf("cannot start the sandbox: %w", err)
	}
	if err := l.watch(s); err != nil {
		return nil, err
	}
	for range sockets {
		c, err := connect(l.runscRoot(), "runsc-"+s.id+".sock")
		if err != nil {
			closeAll(conns)
			return nil, fmt.Errorf("cannot connect to the sandbox: %w", err)
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// layers mounts the copy-on-write view of the folder, or of nothing.
func (l *launcher) layers(s *sandbox, m *role.CreateSandbox, files []*os.File) error {
	to := int(s.user())
	// An inode takes about 1 KiB of the kernel's memory.
	inodes := max(1024, min(m.UpperBytes/4096, 1<<20))
	if err := mountFS(s.at("upper"), "tmpfs", "size", strconv.FormatInt(m.UpperBytes, 10), "nr_inodes", strconv.FormatInt(inodes, 10), "mode", "711"); err != nil {
		return err
	}
	mode := os.FileMode(0o700)
	if len(files) == 1 {
		c, err := clone(files[0], m.OwnerUID, l.HostNS)
		if err != nil {
			return err
		}
		defer c.tree.Close()
		// That a folder is somebody's does not make them a member of its group: files that its group alone may read stay
		// closed. So the group becomes one that neither the sandbox's user nor the review is in.
		ns, err := l.starter.userns(c.uid, c.gid, s.user(), s.user()+1)
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := idmap(c.tree, ns); err != nil {
			return err
		}
		if err := attach(int(c.tree.Fd()), s.at("lower")); err != nil {
			return err
		}
		st, err := os.Stat(s.at("lower")) // the overlay's root shows the upper's mode
		if err != nil {
			return fmt.Errorf("cannot look at the folder: %w", err)
		}
		mode = st.Mode().Perm()
	}
	for _, d := range []string{"upper/u", "upper/w", "upper/l"} {
		if err := errors.Join(os.Mkdir(s.at(d), mode), os.Chmod(s.at(d), mode), os.Chown(s.at(d), to, to)); err != nil {
			return fmt.Errorf("cannot make the layers: %w", err)
		}
	}
	if len(files) == 0 {
		t, err := cloneTree(unix.AT_FDCWD, s.at("upper/l"), unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
		if err != nil {
			return err
		}
		defer unix.Close(t)
		if err := attach(t, s.at("lower")); err != nil {
			return err
		}
	}
	return mountFS(s.at("merged"), "overlay", "source", "closedpaw", "lowerdir", s.at("lower"), "upperdir", s.at("upper/u"), "workdir", s.at("upper/w"),
		"redirect_dir", "nofollow", "metacopy", "off", "index", "off")
}

func (l *launcher) runscRoot() string { return filepath.Join(l.Paths.Run, "runsc") }

// runsc is a command line of it. Its cgroups are ours, so it must not make its own.
func (l *launcher) runsc(args ...string) []string {
	return append([]string{l.Runsc, "--root=" + l.runscRoot(), "--platform=systrap", "--network=none", "--directfs=false",
		"--overlay2=root:memory,size=64m", "--host-uds=none", "--file-access-mounts=shared", "--ignore-cgroups"}, args...)
}

// watch tells control when the sandbox ends by itself.
func (l *launcher) watch(s *sandbox) error {
	b, err := os.ReadFile(s.at("pid"))
	if err != nil {
		return fmt.Errorf("cannot find the sandbox's process: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("cannot find the sandbox's process: %w", err)
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK) // so that the runtime's poller waits, not a thread
	if err != nil {
		return fmt.Errorf("the sandbox ended at once: %w", err)
	}
	s.pidfd = os.NewFile(uintptr(fd), "sandbox")
	raw, err := s.pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("cannot watch the sandbox: %w", err)
	}
	go func() {
		err := raw.Read(func(fd uintptr) bool {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(p, 0)
			return err == nil && n > 0
		})
		if err != nil { // closed: it is being removed
			return
		}
		close(s.gone)
		s.mu.Lock()
		asked := s.killed
		if !asked { // its helpers may linger
			_ = l.kill(s)
		}
		s.mu.Unlock()
		if !asked {
			l.tell(&role.Died{Sandbox: s.id, Why: "the sandbox has ended by itself: its memory was used up, or something killed it"})
		}
	}()
	return nil
}

func connect(dir, name string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	// A socket's path may have 107 bytes; this is short wherever the folder is.
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name)}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// kill ends all processes of a locked sandbox and returns when they are gone.
func (l *launcher) kill(s *sandbox) error {
	s.killed = true
	if len(s.leaf) > 0 {
		if err := s.leaf.kill(); err != nil {
			return fmt.Errorf("cannot end the sandbox: %w", err)
		}
	} else if err := killAll(func() []int { return procsOf("--root="+l.runscRoot(), s.id) }); err != nil {
		return fmt.Errorf("cannot end the sandbox: %w", err)
	}
	if s.pidfd == nil {
		return nil
	}
	select {
	case <-s.gone:
		return nil
	case <-time.After(startTime):
		return errors.New("cannot end the sandbox: its kernel is still there")
	}
}

// discard ends a locked sandbox and removes all that it had.
func (l *launcher) discard(s *sandbox) error {
	l.mu.Lock()
	var reviews []*proc
	for p := range l.reviews {
		if p.id == s.id {
			reviews = append(reviews, p)
		}
	}
	l.mu.Unlock()
	for _, p := range reviews {
		p.end()
	}
	if err := l.kill(s); err != nil {
		return err // a mount that is in use must not be pulled away
	}
	if s.pidfd != nil {
		s.pidfd.Close()
	}
	err := errors.Join(s.leaf.remove(), l.forget(s.id), removeTree(s.dir))
	if err == nil {
		l.mu.Lock()
		delete(l.sandboxes, s.id)
		l.mu.Unlock()
	}
	return err
}

// forget removes runsc's own files of a sandbox, whose processes are gone.
func (l *launcher) forget(id string) error {
	var err error
	for _, f := range []string{"runsc-" + id + ".sock", id + "_sandbox:" + id + ".state", id + "_sandbox:" + id + ".lock"} {
		if e := os.Remove(filepath.Join(l.runscRoot(), f)); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("cannot remove runsc's state: %w", e))
		}
	}
	return err
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
