package e2e_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// patience bounds how long a test waits for anything.
const patience = 30 * time.Second

// terminal is a program that runs on a pseudo-terminal of its own.
type terminal struct {
	t   testing.TB
	cmd *exec.Cmd
	pty *os.File

	mu   sync.Mutex
	said bytes.Buffer
	read int // up to where expect has looked

	ended chan struct{}
}

// onTerminal starts cmd, made by person or daemon.ctl, with a controlling terminal as its stdin, stdout and stderr.
func onTerminal(t testing.TB, cmd *exec.Cmd) *terminal {
	t.Helper()
	attr := &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if cmd.SysProcAttr != nil {
		attr.Credential = cmd.SysProcAttr.Credential
	}
	f, err := pty.StartWithAttrs(cmd, &pty.Winsize{Rows: 50, Cols: 200}, attr)
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, cmd: cmd, pty: f, ended: make(chan struct{})}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		b := make([]byte, 4096)
		for {
			n, err := f.Read(b)
			term.mu.Lock()
			term.said.Write(b[:n])
			term.mu.Unlock()
			if err != nil { // EIO: nobody has the terminal open any more
				return
			}
		}
	}()
	go func() {
		_ = cmd.Wait()
		select {
		case <-drained:
		case <-time.After(time.Second): // a child of it still holds the terminal
		}
		close(term.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-term.ended
		f.Close()
		if t.Failed() {
			t.Logf("%v said:\n%s", cmd.Args, term.output())
		}
	})
	return term
}

// expect waits until what came since the last expect matches, and returns the match and its groups.
func (x *terminal) expect(pattern string) []string {
	x.t.Helper()
	re := regexp.MustCompile(pattern)
	end := time.Now().Add(patience)
	for {
		over := false
		select {
		case <-x.ended:
			over = true
		default:
		}
		x.mu.Lock()
		rest := x.said.Bytes()[x.read:]
		if at := re.FindSubmatchIndex(rest); at != nil {
			var groups []string
			for i := 0; i < len(at); i += 2 {
				groups = append(groups, string(rest[at[i]:at[i+1]]))
			}
			x.read += at[1]
			x.mu.Unlock()
			return groups
		}
		x.mu.Unlock()
		if over || time.Now().After(end) {
			x.t.Fatalf("%v (ended: %v) did not say %q, but:\n%s", x.cmd.Args, over, pattern, x.output())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// send types keys.
func (x *terminal) send(keys string) {
	x.t.Helper()
	if _, err := x.pty.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// wait returns the exit code.
func (x *terminal) wait() int {
	x.t.Helper()
	select {
	case <-x.ended:
	case <-time.After(patience):
		x.t.Fatalf("%v does not end; it said:\n%s", x.cmd.Args, x.output())
	}
	return x.cmd.ProcessState.ExitCode()
}

func (x *terminal) output() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.said.String()
}

// exitCode runs a command and returns its exit code and both outputs.
func exitCode(t testing.TB, cmd *exec.Cmd) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}
