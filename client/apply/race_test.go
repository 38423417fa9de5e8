//go:build linux

package apply_test

import (
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
)

// TestSwap puts a link to the outside in the place of the folder at the moment when the bytes are asked for.
func TestSwap(t *testing.T) {
	for _, kind := range []string{"added", "modified", "renamed"} {
		t.Run(kind, func(t *testing.T) {
			p := newPlace(t, map[string]string{"sub/deep/secret": "old", "sub/deep/from": "evil"})
			c := &api.Changes{}
			switch kind {
			case "added":
				c.Added = []api.Change{p.file("sub/deep/evil", "", "evil"), p.file("sub/deep/evil2", "", "evil")}
			case "modified":
				c.Modified = []api.Change{p.file("sub/deep/secret", "old", "evil"), p.file("sub/deep/from", "evil", "more")}
			case "renamed":
				r := p.file("sub/deep/evil", "evil", "evil")
				r.From = "sub/deep/from"
				c.Renamed = []api.Change{r}
				c.Deleted = []api.Change{was("sub/deep/secret", "secret")} // the bytes that are outside
			}
			swapped := false
			p.apply(c, func(name string) (*os.File, error) {
				if !swapped {
					swapped = true
					must(t, os.Rename(p.root+"/sub", p.root+"/moved"))
					must(t, os.Symlink("../outside", p.root+"/sub"))
				}
				return p.open(name)
			})
		})
	}
}

// TestRace exchanges a folder and a link to the outside all the time while changes of all kinds are applied.
func TestRace(t *testing.T) {
	p := newPlace(t, map[string]string{"sub/deep/f": "old", "lnk": ">../outside"})
	var swaps, stop atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for stop.Load() == 0 {
			if unix.Renameat2(unix.AT_FDCWD, p.root+"/sub", unix.AT_FDCWD, p.root+"/lnk", unix.RENAME_EXCHANGE) == nil {
				swaps.Add(1)
			}
		}
	}()
	secret := p.file("sub/deep/secret", "secret", "evil") // it is what is outside, so only the way there can stop it
	c := &api.Changes{
		Added:    []api.Change{p.file("sub/deep/new", "", "evil"), {Path: "sub/deep/dir", Type: "dir", Mode: 0o755}, {Path: "sub/deep/l", Type: "link", Target: "f"}},
		Modified: []api.Change{secret, p.file("sub/deep/f", "old", "evil"), {Path: "sub/deep", Type: "dir", Mode: 0o700}},
		Deleted:  []api.Change{was("sub/deep/other", "secret")},
	}
	d := &api.Changes{Deleted: []api.Change{was("sub/deep/secret", "secret"), was("sub/deep/new", "evil"), {Path: "sub/deep/dir", Type: "dir"},
		{Path: "sub/deep/l", Type: "link", Before: sum("f")}}, Modified: []api.Change{p.file("sub/deep/f", "evil", "evil")}}
	applied, left := 0, 0
	for begin := time.Now(); swaps.Load() < 100_000 || applied == 0 || left == 0; {
		for _, set := range []*api.Changes{c, d} {
			r := p.apply(set, nil)
			applied += r.Applied
			left += len(r.Conflicts) + len(r.Failed)
		}
		if time.Since(begin) > 4*time.Minute {
			t.Fatalf("only %d swaps", swaps.Load())
		}
	}
	stop.Store(1)
	<-done
	p.outsideUntouched()
	var st unix.Stat_t
	must(t, unix.Stat(p.outside+"/deep", &st))
	if st.Mode&0o777 != 0o755 {
		t.Errorf("the mode outside became %04o", st.Mode)
	}
	t.Logf("%d swaps, %d changes applied, %d left alone", swaps.Load(), applied, left)
}

// TestEditDuring makes one edit at a random moment: whenever it comes, it is there in the end, under its own name.
func TestEditDuring(t *testing.T) {
	p := newPlace(t, map[string]string{"keep": "k"})
	set := &api.Changes{Modified: []api.Change{p.file("f", "old", "new")}}
	del := &api.Changes{Deleted: []api.Change{was("f", "old")}}
	var conflicts, applied int
	for i := range 1500 {
		write(t, p.root, "f", "old")
		write(t, p.outside+"/..", "edit", "edit")
		done := make(chan error)
		go func() {
			for begin := time.Now(); time.Since(begin) < time.Duration(i%300)*time.Microsecond; {
			}
			done <- os.Rename(p.outside+"/../edit", p.root+"/f")
		}()
		r := p.apply([]*api.Changes{set, del}[i%2], nil)
		must(t, <-done)
		conflicts += len(r.Conflicts)
		applied += r.Applied
		b, err := os.ReadFile(p.root + "/f")
		if err != nil || string(b) != "edit" {
			// While a deleted file is looked at for the last time, an edit may take its name; then both are there.
			t.Fatalf("round %d: %q %v: the edit is lost; %+v %v", i, b, err, r, p.tree())
		}
		for name := range p.tree() {
			if strings.HasPrefix(name, ".closedpaw-") {
				t.Fatalf("round %d: %s is left behind: %+v", i, name, r)
			}
		}
		must(t, os.Remove(p.root+"/f"))
	}
	t.Logf("%d applied, %d conflicts", applied, conflicts)
}
