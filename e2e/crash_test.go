package e2e_test

import (
	"bytes"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sleeping starts a client whose command sleeps in a sandbox, and returns it once the sandbox runs.
func sleeping(t *testing.T, d *daemon, uid int, args ...string) (cmd *exec.Cmd, stderr *bytes.Buffer) {
	t.Helper()
	cmd, stderr = d.ctl(uid, args...), new(bytes.Buffer)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	for end := time.Now().Add(patience); len(d.sandboxes()) == 0; {
		if time.Now().After(end) {
			t.Fatalf("no sandbox: %s", stderr)
		}
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(300 * time.Millisecond) // the command has begun
	return cmd, stderr
}

// ends waits for a client, which must say something and end with this code.
func ends(t *testing.T, cmd *exec.Cmd, stderr *bytes.Buffer, code int) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%v does not end", cmd.Args)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("%v: exit code %d, want %d: %s", cmd.Args, got, code, stderr)
	}
	if !strings.Contains(stderr.String(), "closedpawctl: ") {
		t.Errorf("%v does not say what happened: %q", cmd.Args, stderr)
	}
}

// well checks that the daemon does its job and its log is whole.
func well(t *testing.T, d *daemon) {
	t.Helper()
	uid := newUID()
	if code, out, errs := exitCode(t, d.ctl(uid, "run", "--", "echo", "well")); code != 0 || out != "well\n" {
		t.Errorf("run: %d %q %s", code, out, errs)
	}
	if code, _, errs := exitCode(t, d.ctl(uid, "audit", "verify")); code != 0 {
		t.Errorf("audit verify: %d %s", code, errs)
	}
}

// kill -9 of the launcher: all that it started ends too, and the next start cleans up.
func TestDaemonKilled(t *testing.T) {
	d := startDaemon(t, options{})
	run, runErr := sleeping(t, d, newUID(), "run", "--", "sleep", "1000")
	ask, askErr := sleeping(t, d, newUID(), "ask", "-m", "demo", "run the command: sleep 1000")
	d.kill()
	ends(t, run, runErr, 125)
	ends(t, ask, askErr, 1)
	d.start()
	well(t, d)
	// startDaemon's cleanup checks that nothing is left.
}

// kill -9 of a role: the client is told; the daemon goes on, or ends and can be started again.
func TestRoleKilled(t *testing.T) {
	for _, role := range []string{"control", "audit", "gateway", "agent"} {
		t.Run(role, func(t *testing.T) {
			d := startDaemon(t, options{})
			ask, stderr := sleeping(t, d, newUID(), "ask", "-m", "demo", "run the command: sleep 1000")
			pids := d.role(role)
			if len(pids) == 0 {
				t.Fatalf("there is no role %s", role)
			}
			for _, pid := range pids { // of agents a spare one may wait besides
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			if role != "gateway" { // nobody needs it while the tool runs
				ends(t, ask, stderr, 1)
			}
			select {
			case <-d.ended:
				d.start()
			case <-time.After(2 * time.Second):
			}
			well(t, d)
		})
	}
}

// kill -9 of the review while its person looks at the diff: what they then allow cannot be fetched any more, and nothing
// is applied.
func TestReviewKilled(t *testing.T) {
	d := startDaemon(t, options{})
	folder, term := asking(t, d, newUID())
	term.expect(`apply these changes\? `)
	pids := d.role("review")
	if len(pids) != 1 {
		t.Fatalf("%d reviews run", len(pids))
	}
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	term.send("y\r")
	if code := term.wait(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if got := notes(t, folder); got != "one\ntwo\nthree\n" {
		t.Errorf("the file holds %q", got)
	}
	well(t, d)
}

// kill -9 of a sandbox ends what runs in it, and nothing else.
func TestSandboxKilled(t *testing.T) {
	d := startDaemon(t, options{})
	run, stderr := sleeping(t, d, newUID(), "run", "--", "sleep", "1000")
	for _, pid := range d.sandboxes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	ends(t, run, stderr, 125)
	well(t, d)
}

// Who stops a turn and goes on at once is not told that the session is busy.
func TestGoOnAfterInterrupt(t *testing.T) {
	d := startDaemon(t, options{})
	uid := newUID()
	ask, stderr := sleeping(t, d, uid, "ask", "-m", "demo", "run the command: sleep 1000")
	if err := ask.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	ends(t, ask, stderr, 130)
	if code, out, errs := exitCode(t, d.ctl(uid, "ask", "-c", "-m", "demo", "run the command: echo on")); code != 0 || !strings.Contains(out, "on") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
}

// A restart leaves nothing of what ran, and keeps what was said.
func TestRestart(t *testing.T) {
	d := startDaemon(t, options{})
	uid := newUID()
	if code, _, errs := exitCode(t, d.ctl(uid, "ask", "-m", "demo", "run the command: echo remembered")); code != 0 {
		t.Fatalf("ask: %d %s", code, errs)
	}
	run, stderr := sleeping(t, d, uid, "run", "--", "sleep", "1000")
	d.stop()
	ends(t, run, stderr, 125)
	for _, what := range d.leftovers() {
		t.Errorf("left behind by a stop: %s", what)
	}
	d.start()
	if _, out, _ := exitCode(t, d.ctl(uid, "session", "list")); !strings.Contains(out, "echo remembered") {
		t.Errorf("the session is gone: %s", out)
	}
	well(t, d)
	d.restart()
	well(t, d)
}
