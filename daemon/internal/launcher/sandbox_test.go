package launcher_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/sandbox"
)

func TestSandboxSeesItsFolderAndChangesACopy(t *testing.T) {
	h := start(t, options(t), false)
	for _, uid := range []int{0, 12345} {
		t.Run(fmt.Sprint("owner ", uid), func(t *testing.T) {
			dir := folder(t, uid)
			b := h.create(&sandbox.Folder{Dir: open(t, dir, unix.O_RDONLY|unix.O_DIRECTORY), Owner: uint32(uid)}, modest)
			out, code := sh(t, b, `pwd; id -u; cat open private; stat -c %u private; echo new > made; echo more >> private; rm open; ls`)
			want := "/workspace\n1000\ntext of open\ntext of private\n1000\nmade\nprivate\n"
			if out != want || code != 0 {
				t.Errorf("got %q, code %d; want %q", out, code, want)
			}
			if out, code := sh(t, b, `python3 -c 'print(6*7)'; awk 'BEGIN{print 1}'; exit 3`); out != "42\n1\n" || code != 3 {
				t.Errorf("got %q, code %d", out, code)
			}
			if err := b.Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			reviewed(t, b)
			if err := b.Remove(t.Context()); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 2 {
				t.Errorf("the folder has %v, %v", entries, err)
			}
			if text, err := os.ReadFile(filepath.Join(dir, "private")); err != nil || string(text) != "text of private\n" {
				t.Errorf("the folder's file is now %q, %v", text, err)
			}
		})
	}
	if err := h.end(); err != nil {
		t.Error(err)
	}
	h.nothingLeft()
}

// reviewed starts a review of a killed sandbox and asserts what it can see and cannot do.
func reviewed(t *testing.T, b sandbox.Sandbox) {
	t.Helper()
	c, err := b.Review(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go c.Run(func(p role.Packet) error {
		got <- p.Msg.(*role.Diff).Text
		return nil
	})
	if err := c.Send(0, &role.Scan{}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	select {
	case text := <-got:
		for _, want := range []string{
			`lower/private: "text of private\n" <nil>`, `lower/open: "text of open\n" <nil>`, `upper/private: "text of private\nmore\n" <nil>`,
			`upper/made: "new\n" <nil>`, `merged/private: "text of private\nmore\n" <nil>`, "lower write: read-only file system",
			"upper write: read-only file system", "merged write: read-only file system",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("the review lacks %q in\n%s", want, text)
			}
		}
		if strings.Contains(text, "merged/open") {
			t.Errorf("the merged view has a deleted file:\n%s", text)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no review")
	}
}

func TestSandboxIsClosed(t *testing.T) {
	h := start(t, options(t), false)
	b := h.create(nil, modest)
	for name, script := range map[string]string{
		"shadow":        `cat /etc/shadow`,
		"home":          `ls /home/* /root/*`,
		"run":           `ls /run/*`,
		"root is ro":    `touch /x`,
		"usr is ro":     `touch /usr/x`,
		"no network":    `python3 -c 'import socket; socket.create_connection(("127.0.0.1", 22), 2)'`,
		"no interfaces": `grep -v -e lo: -e Inter -e face /proc/net/dev`,
		"no su":         `su -c true`,
		"host name":     `test "$(hostname)" != sandbox`,
		"not root":      `test "$(id -u)" = 0`,
		"too big":       `head -c 40000000 /dev/zero > big`,
		"privileges":    `grep CapBnd /proc/self/status | grep -v 0000000000000000`,
	} {
		t.Run(name, func(t *testing.T) {
			if out, code := sh(t, b, script); code == 0 {
				t.Errorf("worked: %q", out)
			}
		})
	}
	if out, code := sh(t, b, `rm -f big; echo ok > f && cat f && touch /tmp/x && ulimit -n`); out != "ok\n1024\n" || code != 0 {
		t.Errorf("got %q, code %d", out, code)
	}
}

func TestFolderChecks(t *testing.T) {
	h := start(t, options(t), false)
	dir := folder(t, 12345)
	name := filepath.Join(dir, "open")
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		file  *os.File
		owner uint32
		want  string
	}{
		{"only a name", open(t, dir, unix.O_PATH|unix.O_DIRECTORY), 12345, "not opened for reading"},
		{"a file", open(t, name, unix.O_RDONLY), 12345, "not a folder"},
		{"a writable file", open(t, name, unix.O_RDWR), 12345, "not opened for reading"},
		{"a pipe", open(t, pipe, unix.O_RDONLY|unix.O_NONBLOCK), 0, "not a folder"},
		{"another's", open(t, dir, unix.O_RDONLY|unix.O_DIRECTORY), 12346, "belongs to user 12345"},
		{"another's, for root", open(t, dir, unix.O_RDONLY|unix.O_DIRECTORY), 0, "belongs to user 12345"},
		{"proc", open(t, "/proc", unix.O_RDONLY|unix.O_DIRECTORY), 0, "file system proc "},
		{"sysfs", open(t, "/sys", unix.O_RDONLY|unix.O_DIRECTORY), 0, "file system sysfs "},
		{"devtmpfs", open(t, "/dev", unix.O_RDONLY|unix.O_DIRECTORY), 0, "file system devtmpfs "},
		{"a detached mount", detached(t), 0, "not in a mount of the host"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := h.box.Create(context.Background(), &sandbox.Folder{Dir: tt.file, Owner: tt.owner}, modest)
			if err == nil {
				b.Remove(context.Background())
				t.Fatal("was accepted")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %q, want %q", err, tt.want)
			}
		})
	}
	left, err := os.ReadDir(filepath.Join(h.opts.Paths.Run, "sandbox"))
	if err != nil || len(left) > 0 {
		t.Errorf("refused folders left %v, %v", left, err)
	}
}

// detached is the root of a tmpfs that is mounted nowhere.
func detached(t *testing.T) *os.File {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	f := open(t, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestSandboxThatDies(t *testing.T) {
	o := options(t)
	h := start(t, o, false)
	b := h.create(nil, modest)
	for _, pid := range children("--root="+filepath.Join(o.Paths.Run, "runsc"), " boot ") {
		unix.Kill(pid, unix.SIGKILL)
	}
	select {
	case d := <-h.died:
		if d.Sandbox == "" {
			t.Errorf("%+v", d)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("control was not told")
	}
	<-b.Gone()
	if err := b.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if err := h.end(); err != nil {
		t.Error(err)
	}
	h.nothingLeft()
}

func TestMemoryIsBounded(t *testing.T) {
	h := start(t, options(t), false)
	b := h.create(nil, sandbox.Limits{MemoryBytes: 128 << 20, Processes: 64, UpperBytes: 16 << 20})
	if out, code := sh(t, b, `python3 -c 'x = bytearray(60 << 20); print(len(x))'`); code != 0 {
		t.Errorf("60 MiB of 128 are too much: %q, code %d", out, code)
	}
	if out, code := sh(t, b, `python3 -c '
x = []
for i in range(80): x.append(bytearray(b"x") * (10 << 20))
print("all of it")'`); code == 0 {
		t.Errorf("took 800 MiB of 128: %q", out)
	}
	if err := b.Remove(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestProcessesAreBounded(t *testing.T) {
	h := start(t, options(t), false)
	b := h.create(nil, sandbox.Limits{MemoryBytes: 256 << 20, Processes: 20, UpperBytes: 16 << 20})
	out, _ := sh(t, b, `python3 -c '
import os, time
n = 0
try:
    while n < 200:
        if os.fork() == 0: time.sleep(1); os._exit(0)
        n += 1
except OSError: pass
print(n)'`)
	if n := strings.TrimSpace(out); n == "200" || n == "" || len(n) > 2 {
		t.Errorf("forked %q times", n)
	}
}

func TestReviewNeedsAKilledSandbox(t *testing.T) {
	h := start(t, options(t), false)
	b := h.create(nil, modest)
	if _, err := b.Review(t.Context()); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("got %v", err)
	}
}

func TestLeftoversAreRemoved(t *testing.T) {
	o := options(t)
	h := start(t, o, true)
	dir := folder(t, 0)
	for range 2 {
		b := h.create(&sandbox.Folder{Dir: open(t, dir, unix.O_RDONLY|unix.O_DIRECTORY)}, modest)
		if out, code := sh(t, b, "cat private"); out != "text of private\n" || code != 0 {
			t.Errorf("over the namespaces: got %q, %d", out, code)
		}
	}
	roles, ids := h.roles(""), h.ids
	if len(roles) != 3 {
		t.Errorf("roles %v", roles)
	}
	h.cmd.Process.Kill()
	h.cmd.Wait()
	h.door.Close()
	deadline := time.Now().Add(5 * time.Second)
	for _, pid := range roles {
		for runs(pid) && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond)
		}
		if runs(pid) {
			t.Errorf("role %d outlives its launcher", pid)
		}
	}
	if len(children("--root="+filepath.Join(o.Paths.Run, "runsc"))) == 0 {
		t.Error("there is nothing left to clean; this test tests nothing")
	}
	h = start(t, o, true)
	h.ids = append(h.ids, ids...)
	if h.begin.Leftovers != 2 {
		t.Errorf("%d leftovers, want 2", h.begin.Leftovers)
	}
	b := h.create(nil, modest)
	if out, code := sh(t, b, "echo works"); out != "works\n" || code != 0 {
		t.Errorf("got %q, %d", out, code)
	}
	h.stop()
	if err := h.cmd.Wait(); err != nil {
		t.Error(err)
	}
	h.nothingLeft()
	if e, err := os.ReadDir(dir); err != nil || len(e) != 2 {
		t.Errorf("the folder has %v, %v", e, err)
	}
}

// A folder's owner may not be in its group: what that group alone may read must stay closed to the sandbox, and to the
// review, whose diff the owner sees.
func TestFolderGroupOpensNothing(t *testing.T) {
	h := start(t, options(t), false)
	const owner, group = 12345, 23456
	dir := folder(t, owner)
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("text of secret\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	for p, uid := range map[string]int{secret: group, dir: owner, filepath.Join(dir, "open"): owner, filepath.Join(dir, "private"): owner} {
		if err := os.Lchown(p, uid, group); err != nil {
			t.Fatal(err)
		}
	}
	b := h.create(&sandbox.Folder{Dir: open(t, dir, unix.O_RDONLY|unix.O_DIRECTORY), Owner: owner}, modest)
	if out, _ := sh(t, b, `cat secret 2>/dev/null; rm open; echo more >> private; echo new > made; cat private`); out != "text of private\nmore\n" {
		t.Errorf("got %q", out)
	}
	if err := os.Rename(secret, filepath.Join(dir, "open")); err != nil { // as the folder's owner may
		t.Fatal(err)
	}
	if err := b.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, err := b.Review(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got := make(chan string, 1)
	go c.Run(func(p role.Packet) error {
		got <- p.Msg.(*role.Diff).Text
		return nil
	})
	if err := c.Send(0, &role.Scan{}); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-got:
		if strings.Contains(text, "text of secret") {
			t.Errorf("the review can read what the owner cannot:\n%s", text)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("no review")
	}
	if err := b.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.end(); err != nil {
		t.Error(err)
	}
}

// runs says that a process is there and is no zombie, which PID 1 of a container may leave lying about.
func runs(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	at := strings.LastIndexByte(string(b), ')')
	return err == nil && at > 0 && !strings.HasPrefix(string(b[at:]), ") Z")
}
