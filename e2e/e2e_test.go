// Package e2e_test runs the built programs as a person would: closedpawd started by root with -dev, closedpawctl by
// ordinary users (uids that need no passwd entry), with and without a terminal.
//
// "make test" builds first; by hand: make build && go test ./e2e. All of it needs root.
package e2e_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// builds is where "make build" leaves the programs.
const builds = "../bin"

func TestMain(m *testing.M) {
	// The programs that scripts may run besides ours.
	testscript.Main(m, map[string]func(){
		"as":    as,
		"code":  code,
		"until": until,
	})
}

// needRoot skips loudly: without root there is no daemon.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT PASSED: needs root, for the daemon; run: make test")
	}
	if _, err := os.Stat(filepath.Join(builds, "closedpawd")); err != nil {
		t.Fatalf("cannot find what is to be tested (run: make build): %v", err)
	}
}

// newUID gives each test people of its own, so that no test meets another one's sessions or uses up its bounds.
func newUID() int { return firstUID + int(uids.Add(1)) }

var uids atomic.Int32

// firstUID is an ordinary person's (UID_MIN to UID_MAX of login.defs), but hardly one of this machine.
const firstUID = 12345

// person returns a command that runs as uid, in a session without a terminal.
func person(uid int, name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: credential(uid)}
	return c
}

func credential(uid int) *syscall.Credential {
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), Groups: []uint32{}}
}

// as is the program "as UID CMD…": it becomes that user, leaves the terminal, if it has not one of its own, and runs CMD.
func as() {
	fail := func(err error) {
		fmt.Fprintf(os.Stderr, "as: %v\n", err)
		os.Exit(99)
	}
	uid, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fail(err)
	}
	path, err := exec.LookPath(os.Args[2])
	if err != nil {
		fail(err)
	}
	if sid, _, _ := syscall.Syscall(syscall.SYS_GETSID, 0, 0, 0); int(sid) != os.Getpid() {
		if _, err := syscall.Setsid(); err != nil {
			fail(err)
		}
	}
	for _, err := range []error{syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)} {
		if err != nil {
			fail(err)
		}
	}
	fail(syscall.Exec(path, os.Args[2:], os.Environ()))
}

// code is the program "code N CMD…": it runs CMD, passes signals on, and fails unless CMD ends with exit code N.
func code() {
	want := os.Args[1]
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "code: %v\n", err)
		os.Exit(99)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	_ = cmd.Wait()
	if got := strconv.Itoa(cmd.ProcessState.ExitCode()); got != want {
		fmt.Fprintf(os.Stderr, "code: %s, want exit code %s\n", cmd.ProcessState, want)
		os.Exit(1)
	}
}

// until is the program "until SECONDS CMD…": it runs CMD again and again until it succeeds.
func until() {
	seconds, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Fprintf(os.Stderr, "until: %v\n", err)
		os.Exit(99)
	}
	end := time.Now().Add(time.Duration(seconds) * time.Second)
	for {
		out, err := exec.Command(os.Args[2], os.Args[3:]...).CombinedOutput()
		if err == nil {
			os.Stdout.Write(out)
			return
		}
		if time.Now().After(end) {
			fmt.Fprintf(os.Stderr, "until: %s still fails after %d s: %v\n%s", strings.Join(os.Args[2:], " "), seconds, err, out)
			os.Exit(1)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// newFolder makes a folder of uid's, with these files (name → content), below a path that everyone may walk.
func newFolder(t testing.TB, uid int, files map[string]string) string {
	t.Helper()
	dir := tempDir(t)
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	giveTo(t, dir, uid)
	return dir
}

// tempDir is a folder that goes with the test. t.TempDir's parents are closed to other users.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "closedpaw-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("cannot remove the test's folder: %v", err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func giveTo(t testing.TB, dir string, uid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
