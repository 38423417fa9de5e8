package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/closedpaw/closedpaw/client/api"
)

const edit = "edit the file notes.txt: replace three by drei"

// asking starts an ask on a terminal that ends in the question whether to apply a change of notes.txt.
func asking(t *testing.T, d *daemon, uid int) (folder string, term *terminal) {
	t.Helper()
	folder = newFolder(t, uid, map[string]string{"notes.txt": "one\ntwo\nthree\n"})
	return folder, onTerminal(t, d.ctl(uid, "ask", "-m", "demo", "-w", folder, edit))
}

func notes(t *testing.T, folder string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(folder, "notes.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func pending(t *testing.T, d *daemon, uid int) []api.Approval {
	t.Helper()
	code, out, errs := exitCode(t, d.ctl(uid, "pending", "--json"))
	if code != 0 {
		t.Fatalf("pending: %d %s", code, errs)
	}
	var list []api.Approval
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestApprovalOnTerminal(t *testing.T) {
	d := startDaemon(t, options{})
	for _, c := range []struct {
		name, keys string
		applied    bool
		code       int
	}{
		{"yes", "yes\r", true, 0},
		{"y", "y\r", true, 0},
		{"no", "n\r", false, 4},
		{"enter", "\r", false, 4},
		{"something else", "sure\r", false, 4},
		{"end of input", "\x04", false, 4},
		{"interrupt", "\x03", false, 130},
	} {
		t.Run(c.name, func(t *testing.T) {
			folder, term := asking(t, d, newUID())
			term.expect(`-three[\s\S]*\+drei[\s\S]*apply these changes\? \[y/N\] `)
			if notes(t, folder) != "one\ntwo\nthree\n" {
				t.Error("the file was changed before the answer")
			}
			term.send(c.keys)
			if code := term.wait(); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			want := "one\ntwo\nthree\n"
			if c.applied {
				want = "one\ntwo\ndrei\n"
			}
			if got := notes(t, folder); got != want {
				t.Errorf("the file holds %q, want %q", got, want)
			}
		})
	}
}

// What was typed before the question was there answers something else.
func TestTypedAheadIsThrownAway(t *testing.T) {
	d := startDaemon(t, options{})
	uid := newUID()
	folder := newFolder(t, uid, map[string]string{"notes.txt": "three\n"})
	term := onTerminal(t, d.ctl(uid, "run", "-w", folder, "--", "sh", "-c", "echo begun; sleep 2; echo drei >notes.txt"))
	term.expect("begun")
	term.send("y\ry\r")
	term.expect(`apply these changes\? \[y/N\] `)
	if len(pending(t, d, uid)) != 1 {
		t.Error("the question is not open")
	}
	term.send("n\r")
	term.wait()
	if got := notes(t, folder); got != "three\n" {
		t.Errorf("the file holds %q", got)
	}
}

func TestApprovalFromAnotherTerminal(t *testing.T) {
	d := startDaemon(t, options{})
	for _, c := range []struct {
		verb, want string
		code       int
	}{{"approve", "drei\n", 0}, {"deny", "three\n", 4}} {
		t.Run(c.verb, func(t *testing.T) {
			uid := newUID()
			folder, term := asking(t, d, uid)
			term.expect(`apply these changes\? `)
			open := pending(t, d, uid)
			if len(open) != 1 || open[0].Tool != "apply" || open[0].Summary == "" || open[0].Level != api.LevelConfirm || !open[0].Expires.After(open[0].Created) {
				t.Fatalf("pending: %+v", open)
			}
			code, _, shown := exitCode(t, d.ctl(uid, c.verb, open[0].ID))
			if code != 0 {
				t.Fatalf("%s: %d %s", c.verb, code, shown)
			}
			if !strings.Contains(shown, "+drei") {
				t.Errorf("%s does not show what it is about: %s", c.verb, shown)
			}
			if code := term.wait(); code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			if got := notes(t, folder); !strings.HasSuffix(got, c.want) {
				t.Errorf("the file holds %q", got)
			}
			if again, _, _ := exitCode(t, d.ctl(uid, c.verb, open[0].ID)); again != 1 {
				t.Errorf("a closed question is answered again: exit code %d", again)
			}
		})
	}
}

// Another uid can neither see nor answer; root can see, not answer.
func TestQuestionsAreTheirOwners(t *testing.T) {
	d := startDaemon(t, options{})
	uid, other := newUID(), newUID()
	folder, term := asking(t, d, uid)
	term.expect(`apply these changes\? `)
	open := pending(t, d, uid)
	if len(open) != 1 {
		t.Fatalf("pending: %+v", open)
	}
	if list := pending(t, d, other); len(list) != 0 {
		t.Errorf("another user sees %+v", list)
	}
	for _, verb := range []string{"approve", "deny"} {
		if code, _, errs := exitCode(t, d.ctl(other, verb, open[0].ID)); code != 1 {
			t.Errorf("another user's %s: exit code %d: %s", verb, code, errs)
		}
		if code, _, errs := exitCode(t, d.ctl(0, verb, open[0].ID)); code == 0 {
			t.Errorf("root's %s was taken: %s", verb, errs)
		}
	}
	if len(pending(t, d, uid)) != 1 {
		t.Error("the question is not open any more")
	}
	term.send("n\r")
	term.wait()
	if got := notes(t, folder); got != "one\ntwo\nthree\n" {
		t.Errorf("the file holds %q", got)
	}
}
