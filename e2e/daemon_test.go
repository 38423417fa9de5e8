package e2e_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/closedpaw/closedpaw/client"
)

// daemon is a running closedpawd -dev.
type daemon struct {
	t       testing.TB
	base    string // holds all of it: bin, dev, log
	dir     string // the folder of -dev
	socket  string
	options options

	pid     int
	ended   chan struct{} // closed when the launcher has ended
	state   *os.ProcessState
	cgroups []string // that were there before
}

// options of startDaemon.
type options struct {
	ollama string   // URL; empty: where none is
	args   []string // further ones
}

// startDaemon runs a daemon until the test ends, and then fails the test if anything of it is left behind.
//
// Programs are copied for it, so that whatever runs them can be told from the processes of every other daemon.
func startDaemon(t testing.TB, o options) *daemon {
	t.Helper()
	needRoot(t)
	base := tempDir(t)
	d := &daemon{t: t, base: base, dir: filepath.Join(base, "dev"), options: o}
	d.socket = filepath.Join(d.dir, "run", "closedpaw.sock")
	if err := os.Mkdir(filepath.Join(base, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"closedpawd", "closedpawctl", "runsc"} {
		copyFile(t, filepath.Join(builds, name), filepath.Join(base, "bin", name))
	}
	if d.options.ollama == "" {
		d.options.ollama = "http://127.0.0.1:9" // discard: refuses
	}
	d.cgroups = cgroups()
	t.Cleanup(func() {
		if d.running() {
			d.stop()
		}
		for _, what := range d.leftovers() {
			t.Errorf("left behind: %s", what)
		}
		if t.Failed() {
			t.Logf("the daemon said:\n%s", d.log())
		}
	})
	d.start()
	return d
}

// program is the path of closedpawd, closedpawctl or runsc.
func (d *daemon) program(name string) string { return filepath.Join(d.base, "bin", name) }

// start runs the daemon (again) in the same folder and waits until it answers.
func (d *daemon) start() {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.base, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	args := append([]string{"-dev", d.dir, "-ollama", d.options.ollama}, d.options.args...)
	cmd := exec.Command(d.program("closedpawd"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.pid, d.ended = cmd.Process.Pid, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait()
		d.state = cmd.ProcessState
		close(ended)
	}(d.ended)
	d.waitReady()
}

func (d *daemon) waitReady() {
	d.t.Helper()
	c := client.New(d.socket)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		_, err := c.Status(ctx)
		if err == nil {
			return
		}
		select {
		case <-d.ended:
			d.t.Fatalf("the daemon ended (%s):\n%s", d.state, d.log())
		case <-ctx.Done():
			d.t.Fatalf("the daemon does not answer: %v\n%s", err, d.log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *daemon) running() bool {
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// stop ends it as an administrator would, and fails the test if that takes long or ends badly.
func (d *daemon) stop() {
	d.t.Helper()
	_ = syscall.Kill(d.pid, syscall.SIGTERM)
	select {
	case <-d.ended:
		if !d.state.Success() {
			d.t.Errorf("the daemon ended with %s", d.state)
		}
	case <-time.After(20 * time.Second):
		d.t.Errorf("the daemon did not stop within 20 s")
		d.kill()
	}
}

// kill ends the launcher without warning.
func (d *daemon) kill() {
	d.t.Helper()
	_ = syscall.Kill(d.pid, syscall.SIGKILL)
	<-d.ended
}

func (d *daemon) restart() {
	d.t.Helper()
	d.stop()
	d.start()
}

func (d *daemon) log() string {
	b, _ := os.ReadFile(filepath.Join(d.base, "log"))
	return string(b[max(0, len(b)-20_000):])
}

// env is what a client of this daemon needs. HOME is where it may write.
func (d *daemon) env(home string) []string {
	return []string{"PATH=" + filepath.Join(d.base, "bin") + ":" + os.Getenv("PATH"), "CLOSEDPAW_SOCKET=" + d.socket, "HOME=" + home, "LANG=C.UTF-8", "TERM=xterm"}
}

// ctl returns closedpawctl with these arguments, as uid, without a terminal.
func (d *daemon) ctl(uid int, args ...string) *exec.Cmd {
	d.t.Helper()
	c := person(uid, d.program("closedpawctl"), args...)
	c.Env = d.env(d.home(uid))
	c.Dir = "/"
	return c
}

// home is a folder of uid's that goes with the daemon.
func (d *daemon) home(uid int) string {
	d.t.Helper()
	dir := filepath.Join(d.base, "home", strconv.Itoa(uid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Chown(dir, uid, uid); err != nil {
		d.t.Fatal(err)
	}
	return dir
}

// role returns the pids of a role's processes: control, audit, gateway, agent, review.
func (d *daemon) role(name string) []int {
	return slices.DeleteFunc(d.processes(), func(pid int) bool {
		args := cmdline(pid)
		return !slices.Contains(args, "-role") || !slices.Contains(args, name)
	})
}

// sandboxes returns the pids of gVisor's processes.
func (d *daemon) sandboxes() []int {
	return slices.DeleteFunc(d.processes(), func(pid int) bool {
		args := cmdline(pid)
		return len(args) == 0 || !strings.HasPrefix(args[0], "runsc-")
	})
}

// processes returns the pids of all that runs the programs of this daemon, the clients not counted.
func (d *daemon) processes() []int {
	var want []os.FileInfo
	for _, name := range []string{"closedpawd", "runsc"} {
		st, err := os.Stat(d.program(name))
		if err != nil {
			d.t.Fatal(err)
		}
		want = append(want, st)
	}
	var pids []int
	all, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range all {
		st, err := os.Stat(exe) // follows the link to the very file, in whatever root the process is
		if err != nil || !slices.ContainsFunc(want, func(w os.FileInfo) bool { return os.SameFile(w, st) }) {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(exe, "/")[2])
		pids = append(pids, pid)
	}
	return pids
}

func cmdline(pid int) []string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
}

// leftovers returns what is there of a daemon that has ended: processes, mounts, cgroups, its socket, sandboxes' folders.
// What ends by itself may take a moment.
func (d *daemon) leftovers() []string {
	var left []string
	for range 50 {
		if left = d.leftNow(); len(left) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	return left
}

func (d *daemon) leftNow() []string {
	var left []string
	for _, pid := range d.processes() {
		left = append(left, fmt.Sprintf("process %d: %s", pid, strings.Join(cmdline(pid), " ")))
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		d.t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, d.base) {
			left = append(left, "mount: "+strings.TrimSpace(line))
		}
	}
	for _, c := range cgroups() {
		if !slices.Contains(d.cgroups, c) {
			left = append(left, "cgroup: "+c)
		}
	}
	err = filepath.WalkDir(filepath.Join(d.dir, "run"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != "lock" { // it is the holding that counts
			left = append(left, "file: "+path)
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	if ids, _ := os.ReadDir(filepath.Join(d.dir, "run", "sandbox")); len(ids) > 0 {
		left = append(left, fmt.Sprintf("folders of %d sandboxes", len(ids)))
	}
	return left
}

// cgroups returns those whose name says that they are ClosedPaw's, in all hierarchies.
func cgroups() []string {
	var found []string
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.Contains(e.Name(), "closedpaw") {
			found = append(found, path)
		}
		return nil
	})
	return found
}
