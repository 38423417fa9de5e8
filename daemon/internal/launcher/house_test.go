package launcher_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/launcher"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/sandbox"
	"github.com/closedpaw/closedpaw/daemon/internal/sandbox/runsc"
)

var tools = struct {
	sync.Once
	roles, runsc string
	err          error
}{}

func TestMain(m *testing.M) {
	code := m.Run()
	if tools.roles != "" {
		os.RemoveAll(filepath.Dir(tools.roles))
	}
	os.Exit(code)
}

// build makes the static executable that stands for closedpawd, and finds or makes runsc.
func build(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: the launcher needs root; run the tests as root or with sudo")
	}
	tools.Do(func() {
		dir, err := os.MkdirTemp("", "launcher")
		if err != nil {
			tools.err = err
			return
		}
		tools.roles, tools.runsc = filepath.Join(dir, "closedpawd"), os.Getenv("CLOSEDPAW_TEST_RUNSC")
		make := [][]string{{"go", "build", "-o", tools.roles, "./testdata/roles"}}
		if tools.runsc == "" {
			tools.runsc = filepath.Join(dir, "runsc")
			make = append(make, []string{"go", "build", "-o", tools.runsc, "../../runsc"})
		}
		for _, argv := range make {
			c := exec.Command(argv[0], argv[1:]...)
			c.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := c.CombinedOutput(); err != nil {
				tools.err = fmt.Errorf("%v: %w: %s", argv, err, out)
				return
			}
		}
	})
	if tools.err != nil {
		t.Fatal(tools.err)
	}
}

// house is a launcher with the test in control's place.
type house struct {
	t       *testing.T
	opts    launcher.Options
	begin   role.Begin
	control *role.Caller
	box     *runsc.Runtime
	door    net.Conn // its end ends control
	died    chan role.Died
	stopped chan struct{} // closed when control was told to stop
	stop    func()
	done    chan error // of Run; nil where the launcher is another process
	cmd     *exec.Cmd  // of that
	ids     []string   // of sandboxes
}

// roles lists the processes of a role that this launcher has, of all roles if name is empty.
func (h *house) roles(name role.Name) (pids []int) {
	parent := os.Getpid()
	if h.cmd != nil {
		parent = h.cmd.Process.Pid
	}
	for _, pid := range children("closedpawd -role " + string(name)) {
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if strings.Contains(string(b), fmt.Sprintf("\nPPid:\t%d\n", parent)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func options(t *testing.T) launcher.Options {
	t.Helper()
	build(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // of the test's own
		t.Fatal(err)
	}
	o := launcher.Options{
		Paths: launcher.Paths{Etc: filepath.Join(dir, "etc"), State: filepath.Join(dir, "state"), Log: filepath.Join(dir, "log"), Run: filepath.Join(dir, "run")},
		IDs:   map[role.Name]launcher.ID{role.Control: {60601, 60601}, role.Audit: {60602, 60602}, role.Gateway: {60603, 60603}, role.Agent: {60604, 60604}},
		Runsc: tools.runsc, Self: tools.roles, Version: "test", Dev: true,
	}
	for _, d := range []string{o.Paths.Etc, o.Paths.State, o.Paths.Log, o.Paths.Run} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// start runs a launcher in this process, or in one of its own with a mount namespace of its own.
func start(t *testing.T, o launcher.Options, apart bool) *house {
	t.Helper()
	h := &house{t: t, opts: o, died: make(chan role.Died, 16), stopped: make(chan struct{})}
	sock := filepath.Join(o.Paths.Run, fmt.Sprintf("%d.sock", time.Now().UnixNano()))
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: sock, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if apart {
		arg, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		h.cmd = exec.Command(o.Self, "-launch", string(arg))
		h.cmd.Stderr, h.cmd.ExtraFiles = os.Stderr, []*os.File{f, open(t, "/proc/self/ns/mnt", unix.O_RDONLY)}
		h.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		if err := h.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		h.stop = func() { h.cmd.Process.Signal(unix.SIGTERM) }
		t.Cleanup(func() { h.cmd.Process.Kill(); h.cmd.Wait() })
	} else {
		ctx, cancel := context.WithCancel(context.Background())
		o.Listeners = []*os.File{f}
		h.stop, h.done = cancel, make(chan error, 1)
		go func() { h.done <- launcher.Run(ctx, o) }()
		t.Cleanup(func() { h.end() })
	}
	h.connect(sock)
	return h
}

func (h *house) connect(sock string) {
	h.t.Helper()
	c, err := net.Dial("unixpacket", sock)
	if err != nil {
		h.t.Fatal(err)
	}
	h.door = c
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	b, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, on, _, _, err := c.(*net.UnixConn).ReadMsgUnix(b, oob)
	if err != nil || n == 0 {
		h.t.Fatalf("the launcher's control did not answer: %v", err)
	}
	if err := json.Unmarshal(b[:n], &h.begin); err != nil {
		h.t.Fatal(err)
	}
	scm, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil {
		h.t.Fatal(err)
	}
	fds, err := unix.ParseUnixRights(&scm[0])
	if err != nil {
		h.t.Fatal(err)
	}
	rc, err := role.NewConn(os.NewFile(uintptr(fds[0]), "launcher"), role.Control, role.Launcher)
	if err != nil {
		h.t.Fatal(err)
	}
	h.control = role.NewCaller(rc)
	h.box = runsc.New(h.control)
	go h.control.Run(func(p role.Packet) error {
		switch m := p.Msg.(type) {
		case *role.Died:
			h.box.Died(m.Sandbox)
			h.died <- *m
		case *role.Stop:
			close(h.stopped)
			h.door.Close()
		}
		return nil
	})
}

// end stops a launcher of this process and returns what Run said.
func (h *house) end() error {
	h.stop()
	select {
	case err := <-h.done:
		h.done <- err
		return err
	case <-time.After(30 * time.Second):
		h.t.Error("Run does not return")
		return nil
	}
}

func (h *house) create(f *sandbox.Folder, l sandbox.Limits) sandbox.Sandbox {
	h.t.Helper()
	b, err := h.box.Create(context.Background(), f, l)
	if err != nil {
		h.t.Fatal(err)
	}
	dirs, err := os.ReadDir(filepath.Join(h.opts.Paths.Run, "sandbox"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, d := range dirs {
		h.ids = append(h.ids, d.Name())
	}
	return b
}

var modest = sandbox.Limits{MemoryBytes: 256 << 20, Processes: 64, UpperBytes: 16 << 20}

// sh runs a script in a sandbox and returns what it printed and its exit code.
func sh(t *testing.T, b sandbox.Sandbox, script string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := b.Start(ctx, sandbox.Command{Argv: []string{"/bin/sh", "-c", script}}, null, w, w)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	io.Copy(&out, r)
	st, err := p.Wait(ctx)
	if err != nil {
		return out.String(), -1
	}
	return out.String(), st.Code
}

func folder(t *testing.T, uid int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"open": 0o644, "private": 0o600} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("text of "+name+"\n"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, name), uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	t.Cleanup(func() { f.Close() })
	return f
}

// children lists the processes whose command line holds all these words.
func children(words ...string) (pids []int) {
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		b, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		line := strings.ReplaceAll(string(b), "\x00", " ")
		ok := err == nil && pid != os.Getpid()
		for _, w := range words {
			ok = ok && strings.Contains(line, w)
		}
		if ok {
			pids = append(pids, pid)
		}
	}
	return pids
}

// nothingLeft fails the test if something of the launcher is still there.
func (h *house) nothingLeft() {
	t, o := h.t, h.opts
	t.Helper()
	for _, d := range []string{"sandbox", "runsc", "rootfs"} {
		if _, err := os.Lstat(filepath.Join(o.Paths.Run, d)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", d, err)
		}
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, o.Paths.Run) {
			t.Errorf("mount is left: %s", line)
		}
	}
	if p := children("--root=" + filepath.Join(o.Paths.Run, "runsc")); len(p) > 0 {
		t.Errorf("sandbox processes are left: %v", p)
	}
	for _, id := range h.ids {
		err := filepath.WalkDir("/sys/fs/cgroup", func(p string, d os.DirEntry, err error) error {
			if err == nil && d.Name() == "closedpaw-"+id {
				t.Errorf("cgroup is left: %s", p)
			}
			return nil // others' come and go
		})
		if err != nil {
			t.Error(err)
		}
	}
	if pids := h.roles(""); len(pids) > 0 {
		t.Errorf("roles are left: %v", pids)
	}
}
