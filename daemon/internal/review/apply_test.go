package review_test

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/apply"
	"github.com/closedpaw/closedpaw/daemon/internal/review"
)

// tree is all of a folder: type, mode and bytes by path.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		s := fmt.Sprintf("%o", st.Mode)
		switch d.Type() {
		case 0:
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			s += " " + string(b)
		case fs.ModeSymlink:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			s += " -> " + target
		}
		all[rel] = s
		return nil
	}))
	return all
}

// applyTo applies a set to the box's own lower folder, as the client does.
func (b *box) applyTo(set *api.Changes, open func(string) (*os.File, error)) api.ApplyReport {
	b.t.Helper()
	root, err := os.Open(b.lower)
	must(b.t, err)
	defer root.Close()
	return apply.Apply(root, set, open)
}

// TestRoundTrip does random things in a sandbox: after applying what review found, the folder is the sandbox's.
func TestRoundTrip(t *testing.T) {
	defer unix.Umask(unix.Umask(0)) // else what is new gets less than it has in the sandbox
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			b := newBox(t, func(d dir) { scribble(r, d, 40) })
			b.change(func(d dir) { scribble(r, d, 40) })
			want := tree(t, b.merged)
			set, c, err := b.collect(bounds)
			must(t, err)
			forget := func(tree map[string]string) { // a link is all that scribble can make wrong
				for _, c := range set.Refused {
					maps.DeleteFunc(tree, func(p, _ string) bool { return p == c.Path || strings.HasPrefix(p, c.Path+"/") })
				}
			}
			report := b.applyTo(set, func(p string) (*os.File, error) { return review.Open(context.Background(), c, p) })
			if len(report.Conflicts)+len(report.Failed) > 0 {
				t.Errorf("%+v\n%v", report, list(set))
			}
			if n := len(set.Added) + len(set.Modified) + len(set.Deleted) + len(set.Renamed); report.Applied != n {
				t.Errorf("applied %d of %d", report.Applied, n)
			}
			got := tree(t, b.lower)
			forget(want)
			forget(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%v\n-merged +applied\n%s", list(set), diff)
			}
		})
	}
}

// scribble makes, changes, moves and removes a few things with a few names. What does not go does not matter.
func scribble(r *rand.Rand, d dir, n int) {
	name := func() string {
		p := d.p(string(rune('a' + r.IntN(4))))
		for range r.IntN(3) {
			p += "/" + string(rune('a'+r.IntN(4)))
		}
		return p
	}
	for range n {
		p := name()
		switch r.IntN(9) {
		case 0, 1, 2:
			if st, err := os.Lstat(p); err == nil && st.Mode().Type() == fs.ModeSymlink {
				continue // not through links
			}
			os.WriteFile(p, []byte(fmt.Sprint("text ", r.IntN(5), "\n")), 0o644)
		case 3, 4:
			os.MkdirAll(p, 0o755)
		case 5:
			os.RemoveAll(p)
		case 6:
			os.Rename(p, name())
		case 7:
			os.Symlink([]string{"a", "../b", "a/b", "../../c", "./c/../a"}[r.IntN(5)], p)
		case 8:
			if st, err := os.Lstat(p); err == nil && st.Mode().Type() != fs.ModeSymlink {
				os.Chmod(p, []fs.FileMode{0o755, 0o777, 0o555}[r.IntN(3)])
			}
		}
	}
}
