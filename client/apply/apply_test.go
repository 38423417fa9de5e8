//go:build linux

package apply_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/apply"
)

// TestMain also is a client of an ordinary user: it applies the set in its environment to its working directory.
func TestMain(m *testing.M) {
	if in := os.Getenv("CLOSEDPAW_TEST_APPLY"); in != "" {
		var c api.Changes
		root, err := os.Open(".")
		if err = errors.Join(err, json.Unmarshal([]byte(in), &c)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		json.NewEncoder(os.Stdout).Encode(apply.Apply(root, &c, func(p string) (*os.File, error) { return os.Open("../new/" + p) }))
		os.Exit(0)
	}
	unix.Umask(0o022)
	os.Exit(m.Run())
}

// place is a folder, the new bytes, and what must never be written.
type place struct {
	t                  *testing.T
	root, new, outside string
}

// newPlace fills the folder: names that end in / are folders, values that begin with > links.
func newPlace(t *testing.T, files map[string]string) *place {
	t.Helper()
	base := t.TempDir()
	p := &place{t, base + "/root", base + "/new", base + "/outside"}
	for _, d := range []string{p.root, p.new, p.outside} {
		must(t, os.Mkdir(d, 0o755))
	}
	write(t, p.outside, "secret", "secret")
	write(t, p.outside, "deep/secret", "secret")
	for _, name := range slices.Sorted(keys(files)) {
		write(t, p.root, name, files[name])
	}
	return p
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func write(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	switch {
	case strings.HasSuffix(name, "/"):
		must(t, os.MkdirAll(path, 0o755))
	case strings.HasPrefix(text, ">"):
		must(t, os.Symlink(text[1:], path))
	default:
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// file is a change to new bytes, which are put where apply gets them; old is "" where there was none.
func (p *place) file(name, old, text string) api.Change {
	write(p.t, p.new, name, text)
	c := api.Change{Path: name, Type: "file", Mode: 0o644, Size: int64(len(text)), SHA256: sum(text)}
	if old != "" {
		c.Before = sum(old)
	}
	return c
}

func was(name, old string) api.Change { return api.Change{Path: name, Type: "file", Before: sum(old)} }

func (p *place) open(name string) (*os.File, error) { return os.Open(filepath.Join(p.new, name)) }

func (p *place) apply(c *api.Changes, open func(string) (*os.File, error)) api.ApplyReport {
	p.t.Helper()
	root, err := os.Open(p.root)
	must(p.t, err)
	defer root.Close()
	if c.Digest == "" {
		c.Digest = api.Digest(c)
	}
	if open == nil {
		open = p.open
	}
	order := apply.Files(c)
	r := apply.Apply(root, c, func(name string) (*os.File, error) {
		i := slices.Index(order, name)
		if i < 0 {
			p.t.Errorf("%s was asked for out of order", name)
		}
		order = order[i+1:]
		return open(name)
	})
	p.outsideUntouched()
	return r
}

func (p *place) outsideUntouched() {
	p.t.Helper()
	want := map[string]string{"deep/": "", "deep/secret": "secret", "secret": "secret"}
	if diff := cmp.Diff(want, tree(p.t, p.outside)); diff != "" {
		p.t.Fatalf("something was done outside of the folder: -want +got\n%s", diff)
	}
}

func (p *place) tree() map[string]string { p.t.Helper(); return tree(p.t, p.root) }

// tree is a folder as newPlace takes it.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		switch d.Type() {
		case fs.ModeDir:
			all[rel+"/"] = ""
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			all[rel] = ">" + target
			return err
		default:
			b, err := os.ReadFile(path)
			all[rel] = string(b)
			return err
		}
		return nil
	}))
	return all
}

func TestApply(t *testing.T) {
	dir := func(name string) api.Change { return api.Change{Path: name, Type: "dir", Mode: 0o755} }
	link := func(name, old, target string) api.Change {
		c := api.Change{Path: name, Type: "link", Target: target}
		if old != "" {
			c.Before = sum(old)
		}
		return c
	}
	type files = map[string]string
	for _, tt := range []struct {
		name      string
		before    files
		set       func(*place) *api.Changes
		after     files
		applied   int
		conflicts []string
		failed    string // part of the only one
	}{
		{"all kinds", files{"a": "a", "d/x": "x", "l": ">a", "m": "m", "r": "r"}, func(p *place) *api.Changes {
			return &api.Changes{
				Added:    []api.Change{dir("n"), dir("n/o"), p.file("n/o/f", "", "f"), link("n/l", "", "../a")},
				Modified: []api.Change{p.file("a", "a", "A"), link("l", "a", "m")},
				Deleted:  []api.Change{dir("d"), was("d/x", "x")},
				Renamed:  []api.Change{func() api.Change { c := p.file("n/r", "r", "r"); c.From = "r"; return c }()},
			}
		}, files{"a": "A", "l": ">m", "m": "m", "n/": "", "n/l": ">../a", "n/o/": "", "n/o/f": "f", "n/r": "r"}, 9, nil, ""},
		{"folder to file and back", files{"d/x/y": "y", "f": "f", "s": "s", "l": ">f"}, func(p *place) *api.Changes {
			return &api.Changes{
				Added: []api.Change{p.file("d", "", "D"), dir("f"), p.file("f/g", "", "g"), link("s", "", "d"), p.file("l", "", "L")},
				Deleted: []api.Change{dir("d"), dir("d/x"), was("d/x/y", "y"), was("f", "f"), was("s", "s"),
					{Path: "l", Type: "link", Before: sum("f")}},
			}
		}, files{"d": "D", "f/": "", "f/g": "g", "s": ">d", "l": "L"}, 11, nil, ""},
		{"edited meanwhile", files{"a": "edit", "b": "edit", "r": "edit", "l": ">edit", "k": ">edit"}, func(p *place) *api.Changes {
			return &api.Changes{
				Modified: []api.Change{p.file("a", "a", "A"), link("l", "a", "b")},
				Deleted:  []api.Change{was("b", "b"), {Path: "k", Type: "link", Before: sum("x")}},
				Renamed:  []api.Change{func() api.Change { c := p.file("s", "r", "r"); c.From = "r"; return c }()},
			}
		}, files{"a": "edit", "b": "edit", "r": "edit", "l": ">edit", "k": ">edit"}, 0, []string{"a", "l", "r", "k", "b"}, ""},
		{"made meanwhile", files{"a": "mine", "n": "mine", "d/mine": "", "r": "r", "s": "mine", "l": ">mine", "e/": ""}, func(p *place) *api.Changes {
			return &api.Changes{
				Added:   []api.Change{p.file("a", "", "A"), dir("n"), p.file("n/x", "", "x"), link("l", "", "a"), dir("e"), p.file("e/x", "", "x")},
				Deleted: []api.Change{dir("d")},
				Renamed: []api.Change{func() api.Change { c := p.file("s", "r", "r"); c.From = "r"; return c }()},
			}
		}, files{"a": "mine", "n": "mine", "d/": "", "d/mine": "", "r": "r", "s": "mine", "l": ">mine", "e/": "", "e/x": "x"}, 2,
			[]string{"n", "a", "n/x", "l", "s", "d"}, ""},
		{"gone meanwhile", nil, func(p *place) *api.Changes {
			return &api.Changes{Modified: []api.Change{p.file("a", "a", "A"), link("l", "a", "b")},
				Added: []api.Change{p.file("no/b", "", "b")}, Deleted: []api.Change{was("b", "b"), dir("d"), was("d/x", "x")}}
		}, files{}, 3, []string{"no/b", "a", "l"}, ""},
		{"type changed meanwhile", files{"a/": "", "b": ">/etc/passwd", "d": ">../outside", "e": ">../outside"}, func(p *place) *api.Changes {
			return &api.Changes{Modified: []api.Change{p.file("a", "a", "A"), p.file("b", "b", "B"), p.file("d/deep/secret", "secret", "evil")},
				Added: []api.Change{p.file("e/deep/evil", "", "evil")}, Deleted: []api.Change{dir("d"), was("e/deep/secret", "secret")}}
		}, files{"a/": "", "b": ">/etc/passwd", "d": ">../outside", "e": ">../outside"}, 0,
			[]string{"e/deep/evil", "a", "b", "d/deep/secret", "e/deep/secret", "d"}, ""},
		{"folder edited below a new file", files{"d/x": "edit"}, func(p *place) *api.Changes {
			return &api.Changes{Added: []api.Change{p.file("d", "", "D")}, Deleted: []api.Change{dir("d"), was("d/x", "x")}}
		}, files{"d/": "", "d/x": "edit"}, 0, []string{"d/x", "d"}, ""},
		{"wrong bytes", files{"a": "a"}, func(p *place) *api.Changes {
			c := p.file("a", "a", "A")
			write(p.t, p.new, "a", "B")
			return &api.Changes{Modified: []api.Change{c}}
		}, files{"a": "a"}, 0, nil, "a: cannot use its new bytes: they are not those that were shown"},
		{"wrong bytes for a folder's place", files{"d/x": "x"}, func(p *place) *api.Changes {
			c := p.file("d", "", "A")
			write(p.t, p.new, "d", "B")
			return &api.Changes{Added: []api.Change{c}, Deleted: []api.Change{dir("d"), was("d/x", "x")}}
		}, files{"d/": "", "d/x": "x"}, 0, nil, "d: cannot use its new bytes"},
		{"more bytes", nil, func(p *place) *api.Changes {
			c := p.file("a", "", "A")
			write(p.t, p.new, "a", "AA")
			return &api.Changes{Added: []api.Change{c}}
		}, files{}, 0, nil, "a: cannot use its new bytes"},
		{"no bytes", nil, func(p *place) *api.Changes {
			c := p.file("a", "", "A")
			must(p.t, os.Remove(p.new+"/a"))
			return &api.Changes{Added: []api.Change{c}}
		}, files{}, 0, nil, "a: cannot get its new bytes"},
		{"a FIFO for bytes", nil, func(p *place) *api.Changes {
			c := p.file("a", "", "A")
			must(p.t, os.Remove(p.new+"/a"))
			must(p.t, os.Symlink("/dev/zero", p.new+"/a"))
			return &api.Changes{Added: []api.Change{c}}
		}, files{}, 0, nil, "a: cannot get its new bytes: the daemon sent no regular file"},
		{"a link through the person's own", files{"home": ">../outside"}, func(p *place) *api.Changes {
			return &api.Changes{Added: []api.Change{link("l", "", "home/secret")}}
		}, files{"home": ">../outside"}, 0, nil, "l: cannot make the link: it leaves the folder"},
		{"another digest", files{"a": "a"}, func(p *place) *api.Changes {
			return &api.Changes{Modified: []api.Change{p.file("a", "a", "A")}, Digest: sum("other")}
		}, files{"a": "a"}, 0, nil, ".: nothing was applied"},
		{"a path outside", files{"a": "a"}, func(p *place) *api.Changes {
			c := p.file("a", "a", "A")
			c.Path = "../outside/secret"
			return &api.Changes{Modified: []api.Change{p.file("a", "a", "A"), c}}
		}, files{"a": "a"}, 0, nil, ".: nothing was applied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlace(t, tt.before)
			r := p.apply(tt.set(p), nil)
			if diff := cmp.Diff(tt.after, p.tree()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if r.Applied != tt.applied {
				t.Errorf("applied %d, want %d", r.Applied, tt.applied)
			}
			if diff := cmp.Diff(append([]string{}, tt.conflicts...), r.Conflicts); diff != "" {
				t.Errorf("conflicts -want +got\n%s", diff)
			}
			if tt.failed == "" && len(r.Failed) > 0 || tt.failed != "" && (len(r.Failed) != 1 || !strings.Contains(r.Failed[0], tt.failed)) {
				t.Errorf("failed: %q", r.Failed)
			}
		})
	}
}

func TestModes(t *testing.T) {
	p := newPlace(t, map[string]string{"only": "o", "mod": "m", "d/x": "x", "g/": ""})
	must(t, unix.Chmod(p.root+"/g", 0o2775))
	must(t, os.Chmod(p.root+"/d", 0o555))
	mode := func(c api.Change, m uint32) api.Change { c.Mode = m; return c }
	before, err := os.Stat(p.root + "/only")
	must(t, err)
	r := p.apply(&api.Changes{
		Added: []api.Change{mode(p.file("new", "", "n"), 0o777), {Path: "nd", Type: "dir", Mode: 0o577},
			mode(p.file("nd/in", "", "i"), 0o600), mode(p.file("d/y", "", "y"), 0o640)},
		Modified: []api.Change{mode(p.file("only", "o", "o"), 0o755), mode(p.file("mod", "m", "M"), 0o666),
			{Path: "d", Type: "dir", Mode: 0o511}, {Path: "g", Type: "dir", Mode: 0o700}},
	}, nil)
	if len(r.Conflicts)+len(r.Failed) > 0 || r.Applied != 8 {
		t.Errorf("%+v", r)
	}
	for name, want := range map[string]uint32{"new": 0o755, "nd": 0o555, "nd/in": 0o600, "only": 0o755, "mod": 0o666, "d": 0o511, "d/y": 0o640, "g": 0o2700} {
		var st unix.Stat_t
		must(t, unix.Lstat(p.root+"/"+name, &st))
		if got := st.Mode & 0o7777; got != want {
			t.Errorf("%s: %04o, want %04o", name, got, want)
		}
	}
	if after, _ := os.Stat(p.root + "/only"); !os.SameFile(before, after) {
		t.Error("a file whose mode alone changed was replaced")
	}
}

// An ordinary user can apply, and can do nothing that this user may not.
func TestUnprivileged(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: this test takes another uid and needs root; the others show the same as you")
	}
	const uid = 60632
	p := newPlace(t, map[string]string{"a": "a", "locked/x": "x"})
	for d := p.root; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	must(t, os.Chown(p.root, uid, uid))
	must(t, os.Chown(p.root+"/a", uid, uid))
	c := &api.Changes{Modified: []api.Change{p.file("a", "a", "A"), p.file("locked/x", "x", "X")}, Added: []api.Change{p.file("n", "", "N")}}
	c.Digest = api.Digest(c)
	in, err := json.Marshal(c)
	must(t, err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir, cmd.Env, cmd.Stderr = p.root, []string{"CLOSEDPAW_TEST_APPLY=" + string(in), "GORACE=atexit_sleep_ms=0"}, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.Output()
	must(t, err)
	var r api.ApplyReport
	must(t, json.Unmarshal(out, &r))
	if r.Applied != 2 || len(r.Failed) != 1 || !strings.HasPrefix(r.Failed[0], "locked/x: ") {
		t.Errorf("%+v", r)
	}
	if diff := cmp.Diff(map[string]string{"a": "A", "n": "N", "locked/": "", "locked/x": "x"}, p.tree()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestFiles(t *testing.T) {
	c := &api.Changes{Added: []api.Change{{Path: "b", Type: "file"}, {Path: "a", Type: "dir"}}, Deleted: []api.Change{{Path: "x", Type: "file"}},
		Modified: []api.Change{{Path: "l", Type: "link"}, {Path: "c", Type: "file"}}, Renamed: []api.Change{{Path: "d", Type: "file"}}}
	if diff := cmp.Diff([]string{"b", "c", "d"}, apply.Files(c)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
