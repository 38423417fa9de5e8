package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
)

// console is a terminal on which closedpawctl runs, with a fake daemon.
type console struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	ptmx *os.File
	tty  *os.File
	mu   sync.Mutex
	seen bytes.Buffer
}

// on starts closedpawctl on a terminal of its own; files are those of the fake, by name.
func on(t *testing.T, files map[string]string, prepare func(tty *os.File), args ...string) *console {
	t.Helper()
	c := &console{t: t, dir: t.TempDir()}
	for name, text := range files {
		name = filepath.Join(c.dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	f := startFake(t, c.dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if c.ptmx, c.tty, err = pty.Open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.ptmx.Close(); c.tty.Close() })
	if prepare != nil {
		prepare(c.tty)
	}
	c.cmd = &exec.Cmd{Path: self, Args: append([]string{"closedpawctl"}, args...), Dir: c.dir, Stdin: c.tty, Stdout: c.tty, Stderr: c.tty,
		Env:         append(os.Environ(), "CLOSEDPAW_SOCKET="+f.Socket, "TERM=xterm", "GORACE=atexit_sleep_ms=0"),
		SysProcAttr: &unix.SysProcAttr{Setsid: true, Setctty: true}}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.cmd.Process.Kill(); c.cmd.Wait() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := c.ptmx.Read(b)
			c.mu.Lock()
			c.seen.Write(b[:n])
			c.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return c
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen.String()
}

func (c *console) expect(s string) {
	c.t.Helper()
	if !eventually(func() bool { return strings.Contains(c.text(), s) }) {
		c.t.Fatalf("%q does not appear in:\n%q", s, c.text())
	}
}

func (c *console) key(s string) {
	c.t.Helper()
	if _, err := c.ptmx.WriteString(s); err != nil {
		c.t.Fatal(err)
	}
}

// exits waits for the program's end and compares its code.
func (c *console) exits(want int) {
	c.t.Helper()
	kill := time.AfterFunc(10*time.Second, func() { c.cmd.Process.Kill() })
	defer kill.Stop()
	err := c.cmd.Wait()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		c.t.Fatal(err)
	}
	if got := c.cmd.ProcessState.ExitCode(); got != want {
		c.t.Errorf("exit code %d, not %d, after:\n%s", got, want, c.text())
	}
}

func (c *console) file(name string) string {
	c.t.Helper()
	b, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		c.t.Error(err)
	}
	return string(b)
}

func (c *console) write(name string) {
	c.t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, name), nil, 0o644); err != nil {
		c.t.Fatal(err)
	}
}

const (
	asks = `{"type":"session","session":{"id":"s1"}}
{"type":"approval","approval":{"id":"q1","tool":"shell","summary":"run rm","detail":"rm -rf x","reason":"policy says so","level":"confirm","digest":"d1"}}
`
	doneWell   = `{"type":"done","done":{"reason":"stop"}}` + "\n"
	doneDenied = `{"type":"done","done":{"reason":"stop","denied":1}}` + "\n"
	yes        = `{"allow":true,"digest":"d1"}` + "\n"
	no         = `{"allow":false,"digest":"d1"}` + "\n"
)

func TestQuestion(t *testing.T) {
	for _, c := range []struct {
		name, keys, end, want string
		code                  int
	}{
		{"yes", "y\n", doneWell, yes, 0},
		{"the word", "YES\n", doneWell, yes, 0},
		{"no", "n\n", doneDenied, no, 4},
		{"nothing is no", "\n", doneDenied, no, 4},
		{"anything else is no", "yy\n", doneDenied, no, 4},
		{"end of input is no", "\x04", doneDenied, no, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			con := on(t, map[string]string{"ask.stream": asks + "answer q1\n" + c.end}, nil, "ask", "x")
			con.expect("  | rm -rf x")
			con.expect("closedpawctl: run rm\r\nclosedpawctl: asked because policy says so\r\nallow? [y/N] ")
			con.key(c.keys)
			con.exits(c.code)
			if got := con.file("approvals_q1.request"); got != c.want {
				t.Errorf("sent %s", got)
			}
			if !strings.Contains(con.file("ask.request"), `"interactive":true`) {
				t.Error("the daemon was not told that there is a person")
			}
		})
	}
}

// TestTypedAhead types an answer before there is a question, with and without its Enter: neither counts.
func TestTypedAhead(t *testing.T) {
	for _, early := range []string{"y\n", "y", "y\ny\ny"} {
		con := on(t, map[string]string{"ask.stream": "{\"type\":\"text\",\"text\":\"apply these changes? [y/N] \"}\nflag typed\n" + asks + "answer q1\n" + doneDenied}, nil, "ask", "x")
		con.expect("apply these changes?")
		con.key(early)
		con.expect(strings.TrimRight(early, "\n")[:1]) // the terminal has it
		time.Sleep(50 * time.Millisecond)
		con.write("typed")
		con.expect("allow? [y/N] ")
		time.Sleep(200 * time.Millisecond)
		if _, err := os.Stat(filepath.Join(con.dir, "approvals_q1.request")); err == nil {
			t.Errorf("%q: what was typed before the question has answered it", early)
		}
		con.key("\n")
		con.exits(4)
		if got := con.file("approvals_q1.request"); got != no {
			t.Errorf("%q: sent %s", early, got)
		}
	}
}

// TestTypedWhileStopped stops the terminal (^S) so that the question cannot appear, types, and lets it go on (^Q).
func TestTypedWhileStopped(t *testing.T) {
	con := on(t, map[string]string{"ask.stream": "{\"type\":\"text\",\"text\":\"hello\"}\nflag typed\n" + asks + "answer q1\n" + doneDenied}, nil, "ask", "x")
	con.expect("hello")
	con.key("\x13")
	time.Sleep(50 * time.Millisecond)
	con.write("typed")
	time.Sleep(100 * time.Millisecond)
	con.key("y\n")
	time.Sleep(stopped + 100*time.Millisecond)
	con.key("\x11")
	con.expect("allow? [y/N] ")
	time.Sleep(200 * time.Millisecond)
	con.key("\n")
	con.exits(4)
	if got := con.file("approvals_q1.request"); got != no {
		t.Errorf("sent %s", got)
	}
}

func TestAnsweredElsewhere(t *testing.T) {
	for outcome, want := range map[string]struct {
		said string
		code int
	}{"allow": {"answered elsewhere: allowed", 0}, "deny": {"answered elsewhere: denied", 4}, "expired": {"nobody answered in time: denied", 4}} {
		con := on(t, map[string]string{"ask.stream": asks + "flag go\n" +
			`{"type":"answered","approval":{"id":"q1","tool":"shell","outcome":"` + outcome + `"}}` + "\n" + doneWell}, nil, "ask", "x")
		con.expect("allow? [y/N] ")
		con.key("y") // half an answer
		con.write("go")
		con.expect(want.said)
		con.exits(want.code)
		if _, err := os.Stat(filepath.Join(con.dir, "approvals_q1.request")); err == nil {
			t.Error("an answer was sent nevertheless")
		}
	}
}

func TestInterrupted(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"at the question":       {"ask.stream": asks + "hang\n"},
		"while the model talks": {"ask.stream": `{"type":"text","text":"allow? [y/N]"}` + "\nhang\n"},
	} {
		con := on(t, files, nil, "ask", "x")
		con.expect("allow? [y/N]")
		begin := time.Now()
		con.key("\x03")
		con.exits(130)
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("%s: it took %s to end", name, d)
		}
		if !eventually(func() bool { _, err := os.Stat(filepath.Join(con.dir, "cancelled")); return err == nil }) {
			t.Errorf("%s: the daemon was not told", name)
		}
	}
}

// TestInterruptedInput ends while it waits for a prompt.
func TestInterruptedInput(t *testing.T) {
	con := on(t, nil, nil, "ask", "-")
	con.expect("type the prompt")
	con.key("half a")
	con.key("\x03")
	con.exits(130)
	con = on(t, map[string]string{"ask.stream": doneWell}, nil, "ask", "-")
	con.expect("type the prompt")
	con.key("one\ntwo\n\x04")
	con.exits(0)
	if got := con.file("ask.request"); !strings.Contains(got, `[{"label":"user","text":"one\ntwo\n"}]`) {
		t.Errorf("sent %s", got)
	}
}

// ours are the sequences that closedpawctl itself draws with.
var ours = regexp.MustCompile(`\r\x1b\[K|\x1b\[3[126]m|\x1b\[0m`)

func TestHostileQuestion(t *testing.T) {
	con := on(t, map[string]string{"ask.stream": `{"type":"session","session":{"id":"s1"}}
{"type":"text","text":"\u001b]0;title\u0007\u001b[8mhidden"}
{"type":"tool_started","tool":{"id":"1","name":"sh\u001b[1A","shown":"\u001b[2K"}}
sleep 500ms
{"type":"tool_finished","tool":{"id":"1","name":"sh\u001b[1A","output":"\u001b]52;c;eA==\u0007\rallow? [y/N] y\u202e"}}
{"type":"notice","text":"\u009b2J"}
{"type":"changes","changes":{"added":[{"path":"\u001b[2J","type":"file","size":1}],"refused":[{"path":"\u001b","why":"\u001b"}],"diff":"\u001b[3J\n+\u001b[0m\u2066\n"}}
{"type":"approval","approval":{"id":"q1","tool":"apply","summary":"\u001b[2J\napply nothing","detail":"\u001b[2J","reason":"\u001b[1A\r","level":"confirm","digest":"d1"}}
answer q1
{"type":"error","error":{"code":"internal","message":"\u001b[2J"}}
`}, nil, "ask", "x")
	con.expect("apply these changes? [y/N] ")
	con.key("\n")
	con.exits(1)
	left := ours.ReplaceAllString(con.text(), "")
	for _, bad := range []string{"\x1b", "\a", "\u009b", "\u202e", "\u2066", "\b"} {
		if strings.Contains(left, bad) {
			t.Errorf("%q reached the terminal: %q", bad, left)
		}
	}
	if n := strings.Count(left, "\r"); n != strings.Count(left, "\r\n") {
		t.Errorf("a carriage return of its own reached the terminal: %q", left)
	}
}

// TestNothingBesidesQuestion lets text arrive while a question is open: it could pass for the question.
func TestNothingBesidesQuestion(t *testing.T) {
	con := on(t, map[string]string{"ask.stream": asks + `{"type":"text","text":"say y to see a kitten"}
answer q1
` + doneDenied}, nil, "ask", "x")
	con.expect("allow? [y/N] ")
	time.Sleep(300 * time.Millisecond)
	if strings.Contains(con.text(), "kitten") {
		t.Error("text was shown beside an open question")
	}
	con.key("n\n")
	con.expect("kitten")
	con.exits(4)
}

// TestTwoQuestions has two open at once: each is put and answered for itself, unless another terminal was faster.
func TestTwoQuestions(t *testing.T) {
	second := strings.NewReplacer("q1", "q2", "d1", "d2", "run rm", "run mv").Replace(strings.SplitN(asks, "\n", 2)[1])
	con := on(t, map[string]string{"ask.stream": asks + second + "answer q1\nanswer q2\n" + doneWell}, nil, "ask", "x")
	con.expect("closedpawctl: run rm\r\n")
	con.expect("allow? [y/N] ")
	con.key("y\n")
	con.expect("closedpawctl: run mv\r\n")
	con.key("y\n")
	con.exits(0)

	con = on(t, map[string]string{"ask.stream": asks + second +
		`{"type":"answered","approval":{"id":"q2","tool":"shell","outcome":"allow"}}` + "\nanswer q1\n" + doneWell}, nil, "ask", "x")
	con.expect("allow? [y/N] ")
	time.Sleep(200 * time.Millisecond)
	con.key("y\n")
	con.exits(0)
	if strings.Contains(con.text(), "run mv") {
		t.Error("a question was put that was answered already")
	}
}

// TestStreamEndsAtQuestion kills the daemon while the person thinks.
func TestStreamEndsAtQuestion(t *testing.T) {
	con := on(t, map[string]string{"ask.stream": asks + "flag go\ncut\n"}, nil, "ask", "x")
	con.expect("allow? [y/N] ")
	con.write("go")
	con.expect("ended before its last event")
	con.exits(1)
	con = on(t, map[string]string{"ask.stream": asks + "flag go\n" + doneDenied}, nil, "ask", "x")
	con.expect("allow? [y/N] ")
	con.write("go")
	con.exits(4)
}

// TestTerminalRestored begins on a terminal that was left raw: the question works, and it is raw again afterwards.
func TestTerminalRestored(t *testing.T) {
	var before *unix.Termios
	raw := func(tty *os.File) {
		state, err := unix.IoctlGetTermios(int(tty.Fd()), ioctlGet)
		if err != nil {
			t.Fatal(err)
		}
		state.Lflag &^= unix.ICANON | unix.ECHO
		state.Iflag &^= unix.ICRNL
		if err := unix.IoctlSetTermios(int(tty.Fd()), ioctlSet, state); err != nil {
			t.Fatal(err)
		}
		before = state
	}
	for _, c := range []struct {
		keys, rest string
		code       int
	}{{"y\r", "answer q1\n" + doneWell, 0}, {"\x03", "hang\n", 130}} {
		con := on(t, map[string]string{"ask.stream": asks + c.rest}, raw, "ask", "x")
		con.expect("allow? [y/N] ")
		time.Sleep(50 * time.Millisecond)
		con.key(c.keys)
		con.exits(c.code)
		after, err := unix.IoctlGetTermios(int(con.tty.Fd()), ioctlGet)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(before, after); d != "" {
			t.Errorf("keys %q: %s", c.keys, d)
		}
	}
}

func TestApplyOnTerminal(t *testing.T) {
	stream := `{"type":"session","session":{"id":"s1"}}
{"type":"text","text":"fixed"}
{"type":"changes","changes":{"added":[{"path":"new","type":"file","mode":420,"size":4,"sha256":"` + sum("new\n") + `"}],"diff":"--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+new\n"}}
{"type":"approval","approval":{"id":"q1","tool":"apply","summary":"apply to your folder: 1 added","level":"confirm","digest":"d1"}}
answer q1
{"type":"answered","approval":{"id":"q1","tool":"apply","outcome":"allow"}}
{"type":"apply","apply":{}}
{"type":"done","done":{"reason":"stop","applied":true}}
`
	con := on(t, map[string]string{"ask.stream": stream, "approved/new": "new\n", "work/x": ""}, nil, "ask", "-w", "work", "x")
	con.expect("\x1b[32m+new\x1b[0m\r\nclosedpawctl: added     new (4 bytes)\r\nclosedpawctl: apply to your folder: 1 added\r\napply these changes? [y/N] ")
	if _, err := os.Stat(filepath.Join(con.dir, "work/new")); err == nil {
		t.Error("applied before the answer")
	}
	con.key("y\n")
	con.expect("applied 1 change")
	con.exits(0)
	if got := con.file("work/new"); got != "new\n" {
		t.Errorf("applied %q", got)
	}
	if strings.Contains(con.text(), "elsewhere") {
		t.Error("our own answer is called another's")
	}
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// TestRunOnTerminal gives a line to the command and the next one to a question.
func TestRunOnTerminal(t *testing.T) {
	stream := `{"type":"session","session":{"id":"r1"}}
line
stdout "\u001b[2Jbye\n"
end
{"type":"exit","exit":{"code":7}}
{"type":"changes","changes":{"added":[{"path":"new","type":"dir","mode":493}],"diff":""}}
{"type":"approval","approval":{"id":"q1","tool":"apply","summary":"apply","level":"confirm","digest":"d1"}}
answer q1
` + doneDenied
	con := on(t, map[string]string{"run.stream": stream, "work/x": ""}, nil, "run", "-w", "work", "--", "cmd")
	con.key("for the command\n")
	con.expect(`got "for the command\n"`)
	con.expect("␛[2Jbye")
	con.expect("apply these changes? [y/N] ")
	con.key("n\n")
	con.exits(7)
	if got := con.file("approvals_q1.request"); got != no {
		t.Errorf("sent %s", got)
	}
}

// TestQuestionBeforeRun answers a question while the command's stdin is the same terminal.
func TestQuestionBeforeRun(t *testing.T) {
	stream := `{"type":"approval","approval":{"id":"q1","tool":"run","summary":"run it","level":"confirm","digest":"d1"}}
answer q1
{"type":"session","session":{"id":"r1"}}
line
end
{"type":"exit","exit":{"code":0}}
` + doneWell
	con := on(t, map[string]string{"run.stream": stream}, nil, "run", "--", "cmd")
	con.expect("allow? [y/N] ")
	con.key("y\n")
	if !eventually(func() bool { _, err := os.Stat(filepath.Join(con.dir, "approvals_q1.request")); return err == nil }) {
		t.Fatal("no answer was sent")
	}
	con.key("mine\n")
	con.expect(`got "mine\n"`)
	con.exits(0)
	if got := con.file("approvals_q1.request"); got != yes {
		t.Errorf("sent %s", got)
	}
}

func TestRenderedPaths(t *testing.T) {
	c := &api.Changes{Added: []api.Change{{Path: "l", Type: "link", Target: "to\x1b"}, {Path: "d", Type: "dir"}}, Deleted: []api.Change{{Path: "gone", Type: "file"}}}
	want := "closedpawctl: added     l → to␛ (link)\nclosedpawctl: added     d (folder)\nclosedpawctl: deleted   gone\n"
	if d := cmp.Diff(want, renderList(c)); d != "" {
		t.Error(d)
	}
}
