package daemon_test

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"context"
	"net"

	"golang.org/x/sys/unix"
)

var built = struct {
	sync.Once
	dir string
	err error
}{}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// program builds closedpawd and runsc as `make build` does, and returns closedpawd.
func program(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED, NOT TESTED: closedpawd needs root; run the tests as root or with sudo")
	}
	built.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "closedpawd"); built.err != nil {
			return
		}
		os.Chmod(built.dir, 0o755)
		for _, argv := range [][]string{
			{"go", "build", "-buildvcs=false", "-tags", "netgo osusergo", "-o", filepath.Join(built.dir, "closedpawd"), "./closedpawd"},
			{"go", "build", "-buildvcs=false", "-o", filepath.Join(built.dir, "runsc"), "./runsc"},
		} {
			c := exec.Command(argv[0], argv[1:]...)
			c.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := c.CombinedOutput(); err != nil {
				built.err = errors.New(string(out) + err.Error())
				return
			}
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "closedpawd")
}

// run runs closedpawd to its end and returns what it said on stderr.
func run(t *testing.T, as *syscall.Credential, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, program(t), args...)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	c.Run()
	return stderr.String(), c.ProcessState.ExitCode()
}

// running is a daemon in the foreground.
type running struct {
	*exec.Cmd
	dir    string
	stderr *bytes.Buffer
}

func up(t *testing.T, dir string) running {
	t.Helper()
	r := running{exec.Command(program(t), "-dev", dir), dir, &bytes.Buffer{}}
	r.Cmd.Stderr = r.stderr
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Process.Kill(); r.Wait() })
	deadline := time.Now().Add(20 * time.Second)
	for {
		if err := r.answers(); err == nil {
			return r
		} else if time.Now().After(deadline) {
			t.Fatalf("the daemon does not answer: %v: %s", err, r.stderr)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (r running) answers() error {
	d := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(r.dir, "run/closedpaw.sock"))
	}
	c := http.Client{Transport: &http.Transport{DialContext: d, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	res, err := c.Get("http://closedpaw/v1/status")
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// clean fails the test if a daemon that ended left something in its run folder.
func clean(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(dir, "run"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		if e.Name() != "lock" {
			t.Errorf("%s is left in %s/run", e.Name(), dir)
		}
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(b), dir) {
		t.Errorf("mounts are left: %s, %v", b, err)
	}
}

func TestDev(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	r := up(t, dir)
	if out, code := run(t, nil, "-dev", dir); code != 1 || !strings.Contains(out, "another closedpawd does") {
		t.Errorf("a second daemon: %d, %q", code, out)
	}
	if st, err := os.Stat(filepath.Join(dir, "run/closedpaw.sock")); err != nil || st.Mode().Perm() != 0o666 {
		t.Errorf("the socket: %v, %v", st, err)
	}
	for _, sig := range []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
		r.Process.Signal(sig)
		if err := r.Wait(); err != nil {
			t.Errorf("after %v: %v: %s", sig, err, r.stderr)
		}
		clean(t, dir)
		r = up(t, dir)
	}
	r.Process.Kill()
	r.Wait()
	r = up(t, dir) // on what a killed one left
	r.Process.Signal(unix.SIGTERM)
	r.Wait()
	clean(t, dir)
}

func TestDevTakesAPrivateFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := up(t, dir)
	r.Process.Signal(unix.SIGTERM)
	if err := r.Wait(); err != nil || !strings.Contains(r.stderr.String(), "only root can reach the socket") {
		t.Errorf("%v: %s", err, r.stderr)
	}
}

func TestDevRefusesFolders(t *testing.T) {
	program(t)
	base := t.TempDir()
	must := func(errs ...error) {
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(base, name) }
	must(os.Mkdir(at("good"), 0o755), os.Symlink("good", at("link")), os.WriteFile(at("file"), nil, 0o600),
		os.Mkdir(at("other"), 0o755), os.Chown(at("other"), 12345, 12345), os.Mkdir(at("other/mine"), 0o755),
		os.Mkdir(at("open"), 0o755), os.Chmod(at("open"), 0o775), os.Mkdir(at("open/mine"), 0o755))
	for name, want := range map[string]string{
		"link": "symbolic link", "file": "not a folder", "other": "belongs to user 12345", "open": "others may write",
		"other/mine": "could replace it", "open/mine": "could replace it", "none/none": "cannot make",
		"good/" + strings.Repeat("long", 30): "shorter",
	} {
		if out, code := run(t, nil, "-dev", at(name)); code != 1 || !strings.Contains(out, want) {
			t.Errorf("%.20s: %d, %q; want %q", name, code, out, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	nobody := &syscall.Credential{Uid: 65534, Gid: 65534}
	dir := t.TempDir()
	for _, tt := range []struct {
		name string
		as   *syscall.Credential
		args []string
		want string
	}{
		{"not root", nobody, []string{"-dev", dir}, "sudo closedpawd -dev DIR"},
		{"no socket", nil, nil, "systemctl start closedpaw.socket"},
		{"too much", nil, []string{"start"}, "flags only"},
		{"unknown flag", nil, []string{"-nothing"}, "usage:"},
		{"ollama without dev", nil, []string{"-ollama", "http://127.0.0.1:1"}, "config.json"},
		{"a role by hand", nil, []string{"-role", "control"}, "only closedpawd itself starts roles"},
		{"a role by hand, not root", nobody, []string{"-role", "control"}, "only closedpawd itself starts roles"},
		{"stage 1 by hand", nil, []string{"-role", "control", "{}"}, "only closedpawd itself starts roles"},
		{"no role", nil, []string{"-role", "nothing", "{}"}, "none of this name"},
		{"helper by hand", nil, []string{"-store-hostns"}, "ExecStartPre"},
		{"not a namespace", nil, []string{"-hostns", "0", "-dev", dir}, "not a mount namespace"},
	} {
		if out, code := run(t, tt.as, tt.args...); code != 1 || !strings.Contains(out, tt.want) {
			t.Errorf("%s: %d, %q; want %q", tt.name, code, out, tt.want)
		}
	}
}

func TestRefusesAnAlteredPolicy(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dev")
	if out, code := run(t, nil, "-dev", dir, "-setup"); code != 0 {
		t.Fatalf("-setup: %d, %s", code, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "etc/policy/*.cedar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no policy: %v", err)
	}
	f, err := os.OpenFile(files[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("// altered\n")
	f.Close()
	out, code := run(t, nil, "-dev", dir)
	if code != 1 || !strings.Contains(out, filepath.Base(files[0])) || !strings.Contains(out, "control has ended") {
		t.Errorf("%d, %s", code, out)
	}
	clean(t, dir)
	if out, code := run(t, nil, "-dev", dir, "-sign"); code != 0 {
		t.Fatalf("-sign: %d, %s", code, out)
	}
	up(t, dir)
}
