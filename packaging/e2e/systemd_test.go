// Package e2e_test installs ClosedPaw into throw-away Debians that run a real systemd, and uses it there as a person
// would. It needs root and the programs that "make build" leaves; the root file systems are made once and cached.
package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const root = "../.."

// machine is a booted Debian.
type machine struct {
	t    *testing.T
	name string
}

func boot(t *testing.T, suite string) *machine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED, NOT PASSED: needs root, to boot a machine; run: make test")
	}
	for _, tool := range []string{"mmdebstrap", "systemd-nspawn", "zstd", "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIPPED, NOT PASSED: %v; install it: packaging/install-deps test", err)
		}
	}
	m := &machine{t: t, name: fmt.Sprintf("e2e-%s-%d", suite, os.Getpid())}
	rootfs := exec.Command("./machine", "rootfs", suite)
	if out, err := rootfs.CombinedOutput(); err != nil {
		if rootfs.ProcessState.ExitCode() == 3 {
			t.Skipf("SKIPPED, NOT PASSED: the mirror of this machine has no %s", suite)
		}
		t.Fatalf("cannot make a root file system: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if t.Failed() {
			_, journal := m.try("journalctl", "--no-pager", "-o", "short-monotonic", "-n", "200")
			t.Logf("journal:\n%s", journal)
		}
		if out, err := exec.Command("./machine", "stop", m.name).CombinedOutput(); err != nil {
			t.Errorf("cannot stop the machine: %v\n%s", err, out)
		}
	})
	if out, err := exec.Command("./machine", "start", m.name, suite).CombinedOutput(); err != nil {
		t.Fatalf("cannot boot: %v\n%s", err, out)
	}
	return m
}

// try runs a command in the machine and returns its exit code and all that it said.
func (m *machine) try(args ...string) (code int, output string) {
	m.t.Helper()
	cmd := exec.Command("./machine", append([]string{"exec", m.name}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		m.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// run is try for a command that must succeed.
func (m *machine) run(args ...string) string {
	m.t.Helper()
	code, out := m.try(args...)
	if code != 0 {
		m.t.Fatalf("%s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// put copies files and folders into a folder of the machine.
func (m *machine) put(dir string, files ...string) {
	m.t.Helper()
	if out, err := exec.Command("./machine", append([]string{"put", m.name, dir}, files...)...).CombinedOutput(); err != nil {
		m.t.Fatalf("cannot copy into the machine: %v\n%s", err, out)
	}
}

// state is what systemd says of a unit: active, inactive, failed …
func (m *machine) state(unit string) string {
	_, out := m.try("systemctl", "is-active", unit)
	return strings.TrimSpace(out)
}

// until waits for a state of a unit.
func (m *machine) until(unit, want string) {
	m.t.Helper()
	end := time.Now().Add(30 * time.Second)
	for m.state(unit) != want {
		if time.Now().After(end) {
			m.t.Fatalf("%s is %s after 30 s, not %s\n%s", unit, m.state(unit), want, m.run("systemctl", "status", "--no-pager", "--full", unit))
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// install does what "make install" does, in the machine.
func (m *machine) install() {
	m.t.Helper()
	dir := m.t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command("make", "--no-print-directory", "install", "DESTDIR="+dir)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("make install: %v\n%s", err, out)
	}
	m.put("/", filepath.Join(dir, "usr"))
	m.put("/tmp", root+"/packaging/postinstall", root+"/packaging/uninstall")
	m.run("/tmp/postinstall")
}

// A trivial unit, so that a failure elsewhere is not the machine's.
func TestMachine(t *testing.T) {
	m := boot(t, suites()[0])
	unit := filepath.Join(t.TempDir(), "trivial.service")
	if err := os.WriteFile(unit, []byte("[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo hello from the unit'\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m.put("/etc/systemd/system", unit)
	m.run("systemctl", "daemon-reload")
	m.run("systemctl", "start", "trivial.service")
	if out := m.run("journalctl", "--no-pager", "-o", "cat", "-u", "trivial.service"); !strings.Contains(out, "hello from the unit") {
		t.Errorf("the journal says %q", out)
	}
	if code, _ := m.try("sh", "-c", "exit 7"); code != 7 {
		t.Errorf("exit code %d, want 7", code)
	}
	if _, out := m.try("sh", "-c", `a=b; echo "$a $1" 100%`, "sh", "$HOME"); out != "b $HOME 100%\n" {
		t.Errorf("arguments come through as %q", out)
	}
}

// suites are the releases to test on.
func suites() []string {
	if s := strings.Fields(os.Getenv("CLOSEDPAW_SUITES")); len(s) > 0 {
		return s
	}
	return []string{"bookworm", "trixie"}
}

func TestInstalled(t *testing.T) {
	for _, suite := range suites() {
		t.Run(suite, func(t *testing.T) { testInstalled(t, boot(t, suite)) })
	}
}

func testInstalled(t *testing.T, m *machine) {
	const user = "alice"
	as := func(args ...string) []string { return append([]string{"-u", user}, args...) }
	step := func(name string, f func(t *testing.T)) {
		t.Run(name, func(st *testing.T) {
			m.t = st // what fails is this step
			defer func() { m.t = t }()
			f(st)
		})
	}
	m.install()
	m.run("useradd", "--create-home", user)
	m.run("useradd", "--create-home", "bob")

	step("units are clean", func(t *testing.T) {
		code, out := m.try("systemd-analyze", "verify", "--man=no", "closedpaw.socket", "closedpaw.service")
		if code != 0 || strings.Contains(out, "closedpaw") {
			t.Errorf("systemd-analyze verify: exit code %d\n%s", code, out)
		}
		_, out = m.try("systemd-analyze", "security", "--no-pager", "closedpaw.service")
		lines := strings.Split(strings.TrimSpace(out), "\n")
		t.Log(lines[len(lines)-1])
	})
	step("nothing runs before it is used", func(t *testing.T) {
		if s := m.state("closedpaw.socket"); s != "active" {
			t.Errorf("the socket is %s", s)
		}
		if s := m.state("closedpaw.service"); s != "inactive" {
			t.Errorf("the service is %s", s)
		}
		if out := m.run("stat", "-c", "%a %U", "/run/closedpaw/closedpaw.sock", "/var/lib/closedpaw/control", "/var/lib/closedpaw/audit"); out != "666 root\n700 closedpaw\n700 closedpaw-audit\n" {
			t.Errorf("modes and owners:\n%s", out)
		}
	})
	step("a user runs a command", func(t *testing.T) {
		if out := m.run(as("closedpawctl", "run", "--", "echo", "hi")...); out != "hi\n" {
			t.Errorf("run says %q", out)
		}
		if s := m.state("closedpaw.service"); s != "active" {
			t.Errorf("the service is %s after its first use", s)
		}
	})
	step("a user asks", func(t *testing.T) {
		m.run(as("mkdir", "-p", "work")...)
		m.run(as("sh", "-c", "seq 1 10 >work/numbers")...)
		code, out := m.try(as("closedpawctl", "ask", "-m", "demo", "-w", "work", "run the command: wc -l <numbers >count; cat count")...)
		if code != 4 || !strings.Contains(out, "10") || !strings.Contains(out, "no terminal") {
			t.Errorf("ask: exit code %d\n%s", code, out)
		}
		if code, _ := m.try("test", "-e", "/home/alice/work/count"); code == 0 {
			t.Error("a change was applied that nobody approved")
		}
		m.run(as("closedpawctl", "run", "-w", "work", "--apply=yes", "--", "sh", "-c", "wc -l <numbers >count")...)
		if out := m.run("stat", "-c", "%U", "/home/alice/work/count"); out != "alice\n" {
			t.Errorf("what was applied belongs to %q", out)
		}
		m.run(as("closedpawctl", "audit", "verify")...)
		m.run(as("closedpawctl", "doctor")...)
		if code, out := m.try("-u", "bob", "closedpawctl", "run", "-w", "/home/alice/work", "--", "ls"); code != 125 {
			t.Errorf("bob gave alice's folder away: exit code %d\n%s", code, out)
		}
	})
	step("the journal shows it", func(t *testing.T) {
		if out := m.run("journalctl", "--no-pager", "-o", "cat", "-u", "closedpaw.service"); !strings.Contains(out, "Started") || strings.Contains(out, "panic") {
			t.Errorf("journal:\n%s", out)
		}
	})
	step("it stops when idle and starts again", func(t *testing.T) {
		drop := filepath.Join(t.TempDir(), "closedpaw.service.d")
		if err := os.Mkdir(drop, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(drop, "idle.conf"), []byte("[Service]\nExecStart=\nExecStart=/usr/lib/closedpaw/closedpawd -idle-exit 2s\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		m.put("/etc/systemd/system", drop)
		m.run("systemctl", "daemon-reload")
		m.run("systemctl", "restart", "closedpaw.service")
		m.until("closedpaw.service", "inactive")
		if code, out := m.try("sh", "-c", "pgrep -a closedpawd; pgrep -a runsc"); code == 0 {
			t.Errorf("processes of a stopped service: %s", out)
		}
		if out := m.run(as("closedpawctl", "run", "--", "echo", "again")...); out != "again\n" {
			t.Errorf("run says %q", out)
		}
		m.until("closedpaw.service", "inactive")
	})
	step("a stop leaves nothing", func(t *testing.T) {
		m.run(as("closedpawctl", "run", "--", "true")...)
		m.run("systemctl", "stop", "closedpaw.service", "closedpaw.socket")
		if out := m.run("sh", "-c", "grep /run/closedpaw/ /proc/self/mountinfo; find /run/closedpaw -mindepth 1 ! -name lock ! -type s ! -type d; ls -A /run/closedpaw/sandbox 2>/dev/null; ps -eo args | grep -E '^([r]unsc|[^ ]*[c]losedpawd)'; true"); out != "" {
			t.Errorf("left behind:\n%s", out)
		}
		m.run("systemctl", "start", "closedpaw.socket")
	})
	step("uninstall", func(t *testing.T) {
		m.run("/tmp/uninstall")
		if out := m.run("sh", "-c", "find /usr -iname '*closedpaw*'; systemctl list-unit-files --no-legend 'closedpaw*'; true"); strings.TrimSpace(out) != "" {
			t.Errorf("left behind:\n%s", out)
		}
		m.run("test", "-d", "/var/lib/closedpaw/audit")
	})
}
