package launcher_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/launcher"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// status reads fields of /proc/PID/status.
func status(t *testing.T, pid int, keys ...string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(line, ":")
		for _, want := range keys {
			if k == want {
				out[k] = strings.Join(strings.Fields(v), " ")
			}
		}
	}
	return out
}

func link(t *testing.T, pid int, what string) string {
	t.Helper()
	s, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, what))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRolesAreConfined(t *testing.T) {
	o := options(t)
	h := start(t, o, false)
	if _, err := role.Ask[role.Finished](t.Context(), h.control, &role.EndAgent{ID: "notthere"}); err != nil {
		t.Fatal(err)
	}
	p, err := h.control.Call(t.Context(), &role.StartAgent{ID: "session1"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	conn, err := role.NewConn(p.Files[0], role.Control, role.Agent)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	time.Sleep(300 * time.Millisecond) // the agent is in its stage 2 by then
	none := "0000000000000000"
	tests := []struct {
		name role.Name
		root []string
		net  bool
	}{
		{role.Control, []string{"etc", "state"}, false},
		{role.Audit, []string{"log"}, false},
		{role.Gateway, []string{"etc"}, true},
		{role.Agent, nil, false},
	}
	for _, tt := range tests {
		t.Run(string(tt.name), func(t *testing.T) {
			pids := h.roles(tt.name)
			if len(pids) != 1 {
				t.Fatalf("processes of the role: %v", pids)
			}
			pid, id := pids[0], fmt.Sprint(o.IDs[tt.name].UID)
			all := strings.Join([]string{id, id, id, id}, " ")
			want := map[string]string{"Uid": all, "Gid": all, "Groups": "", "CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none, "NoNewPrivs": "1"}
			if d := cmp.Diff(want, status(t, pid, "Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")); d != "" {
				t.Error(d)
			}
			var root []string
			entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root/", pid))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				root = append(root, e.Name())
			}
			if d := cmp.Diff(tt.root, root); d != "" {
				t.Error("root folder:", d)
			}
			if err := os.WriteFile(fmt.Sprintf("/proc/%d/root/planted", pid), nil, 0o600); err == nil {
				t.Error("the root folder is writable")
			}
			own := link(t, os.Getpid(), "ns/net")
			if got := link(t, pid, "ns/net") == own; got != tt.net {
				t.Errorf("shares the host's network: %v", got)
			}
			for _, ns := range []string{"mnt", "ipc", "uts"} {
				if link(t, pid, "ns/"+ns) == link(t, os.Getpid(), "ns/"+ns) {
					t.Errorf("shares the host's %s namespace", ns)
				}
			}
			var st unix.Stat_t // of a process that is not dumpable, root is the owner
			if err := unix.Stat(fmt.Sprintf("/proc/%d/environ", pid), &st); err != nil || st.Uid != 0 {
				t.Errorf("is dumpable: owner %d, %v", st.Uid, err)
			}
			env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			if err != nil || string(env) != "GOMAXPROCS=4\x00" {
				t.Errorf("environment %q, %v", env, err)
			}
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err != nil || string(line) != "closedpawd\x00-role\x00"+string(tt.name)+"\x00" {
				t.Errorf("command line %q, %v", line, err)
			}
			limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", pid))
			if err != nil {
				t.Fatal(err)
			}
			files := "256"
			if tt.name == role.Control {
				files = "4096"
			}
			for line := range strings.Lines(string(limits)) {
				f := strings.Fields(line)
				if strings.HasPrefix(line, "Max open files") && f[4] != files || strings.HasPrefix(line, "Max core file size") && f[5] != "0" {
					t.Error(line)
				}
			}
		})
	}
	if _, err := role.Ask[role.Finished](t.Context(), h.control, &role.EndAgent{ID: "session1"}); err != nil {
		t.Fatal(err)
	}
	if pids := h.roles(role.Agent); len(pids) > 0 {
		t.Errorf("the agent is still there: %v", pids)
	}
	if err := h.end(); err != nil {
		t.Error(err)
	}
	select {
	case <-h.stopped:
	default:
		t.Error("control was not told to stop")
	}
	h.nothingLeft()
}

func TestRoleRefusesAnUnconfinedProcess(t *testing.T) {
	if _, _, err := role.Enter(role.Agent); err == nil {
		t.Error("a role works as root on the host")
	}
}

func TestDeathOfARole(t *testing.T) {
	for _, name := range []role.Name{role.Control, role.Audit, role.Gateway} {
		t.Run(string(name), func(t *testing.T) {
			h := start(t, options(t), false)
			h.create(nil, modest)
			for _, pid := range h.roles(name) {
				unix.Kill(pid, unix.SIGKILL)
			}
			select {
			case err := <-h.done:
				h.done <- err
				if err == nil || !strings.Contains(err.Error(), string(name)+" has ended") {
					t.Errorf("Run said %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("Run goes on")
			}
			h.nothingLeft()
		})
	}
}

func TestDeathOfAnAgentIsToldToControl(t *testing.T) {
	h := start(t, options(t), false)
	p, err := h.control.Call(t.Context(), &role.StartAgent{ID: "session1"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, pid := range h.roles(role.Agent) {
		unix.Kill(pid, unix.SIGKILL)
	}
	select {
	case d := <-h.died:
		if d.Role != role.Agent || d.ID != "session1" {
			t.Errorf("%+v", d)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("control was not told")
	}
}

func TestBadRequests(t *testing.T) {
	h := start(t, options(t), false)
	ok := role.CreateSandbox{ID: "abcdefgh", MemoryBytes: 256 << 20, Processes: 64, UpperBytes: 16 << 20}
	with := func(f func(*role.CreateSandbox)) *role.CreateSandbox { c := ok; f(&c); return &c }
	for name, m := range map[string]role.Message{
		"path as id":      with(func(c *role.CreateSandbox) { c.ID = "../../etc" }),
		"short id":        with(func(c *role.CreateSandbox) { c.ID = "a" }),
		"no memory":       with(func(c *role.CreateSandbox) { c.MemoryBytes = 0 }),
		"negative memory": with(func(c *role.CreateSandbox) { c.MemoryBytes = -1 }),
		"all memory":      with(func(c *role.CreateSandbox) { c.MemoryBytes = 1 << 60 }),
		"no processes":    with(func(c *role.CreateSandbox) { c.Processes = 0 }),
		"no upper":        with(func(c *role.CreateSandbox) { c.UpperBytes = 0 }),
		"agent's id":      &role.StartAgent{ID: "-role"},
		"unknown kill":    &role.KillSandbox{ID: "abcdefgh"},
		"unknown review":  &role.StartReview{Sandbox: "abcdefgh"},
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := h.control.Call(t.Context(), m); err == nil {
				p.Close()
				t.Error("was carried out")
			}
		})
	}
	c, err := role.Ask[role.CheckedHost](t.Context(), h.control, &role.CheckHost{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range c.Checks {
		if c.Needed && !c.OK {
			t.Errorf("%+v", c)
		}
	}
}

func TestRefusesWithoutRunsc(t *testing.T) {
	o := options(t)
	o.Runsc = filepath.Join(t.TempDir(), "runsc")
	if err := launcher.Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("Run said %v", err)
	}
}
