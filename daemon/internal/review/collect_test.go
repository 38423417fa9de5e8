package review_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/review"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// hostile plays a taken-over role: it gets the sequence number of the scan and sends what it likes.
func hostile(t testing.TB, play func(c *role.Conn, seq uint64)) *role.Caller {
	t.Helper()
	a, b, err := role.Pair()
	if err != nil {
		t.Fatal(err)
	}
	mine, err := role.NewConn(a, role.Control, role.Review)
	if err != nil {
		t.Fatal(err)
	}
	its, err := role.NewConn(b, role.Review, role.Control)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer its.Close()
		if p, err := its.Recv(); err == nil {
			play(its, p.Seq)
		}
	}()
	t.Cleanup(func() { mine.Close(); <-done })
	return role.NewCaller(mine)
}

const (
	sumA = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
	sumB = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"
)

func TestHostileReview(t *testing.T) {
	file := func(p string) api.Change {
		return api.Change{Path: p, Type: "file", Mode: 0o644, Size: 1, SHA256: sumA}
	}
	with := func(f func(*api.Change)) api.Change {
		c := file("f")
		f(&c)
		return c
	}
	link := func(p, target string) api.Change { return api.Change{Path: p, Type: "link", Target: target} }
	type said []role.Change
	for name, say := range map[string]said{
		"kind":                 {{Kind: "changed", Change: file("f")}},
		"absolute":             {{Kind: "added", Change: file("/etc/passwd")}},
		"up":                   {{Kind: "added", Change: file("../f")}},
		"up inside":            {{Kind: "added", Change: file("a/../f")}},
		"the folder":           {{Kind: "added", Change: file(".")}},
		"empty path":           {{Kind: "added", Change: file("")}},
		"not clean":            {{Kind: "added", Change: file("a//f")}},
		"NUL":                  {{Kind: "added", Change: file("a\x00")}},
		"control character":    {{Kind: "added", Change: file("a\x1b[2J")}},
		"bidi":                 {{Kind: "added", Change: file("a\u202e")}},
		"long path":            {{Kind: "added", Change: file(strings.Repeat("a/", 2500) + "f")}},
		"type":                 {{Kind: "added", Change: with(func(c *api.Change) { c.Type = "device" })}},
		"set-id":               {{Kind: "added", Change: with(func(c *api.Change) { c.Mode = 0o4755 })}},
		"negative size":        {{Kind: "added", Change: with(func(c *api.Change) { c.Size = -1 })}},
		"too large":            {{Kind: "added", Change: with(func(c *api.Change) { c.Size = bounds.Bytes + 1 })}},
		"no hash":              {{Kind: "added", Change: with(func(c *api.Change) { c.SHA256 = "" })}},
		"short hash":           {{Kind: "added", Change: with(func(c *api.Change) { c.SHA256 = "aa" })}},
		"upper-case hash":      {{Kind: "added", Change: with(func(c *api.Change) { c.SHA256 = strings.ToUpper(sumA) })}},
		"added with a before":  {{Kind: "added", Change: with(func(c *api.Change) { c.Before = sumB })}},
		"modified without":     {{Kind: "modified", Change: file("f")}},
		"deleted without":      {{Kind: "deleted", Change: api.Change{Path: "f", Type: "file"}}},
		"renamed with an edit": {{Kind: "renamed", Change: with(func(c *api.Change) { c.From = "g"; c.Before = sumB })}},
		"renamed from outside": {{Kind: "renamed", Change: with(func(c *api.Change) { c.From = "../g"; c.Before = sumA })}},
		"from":                 {{Kind: "added", Change: with(func(c *api.Change) { c.From = "g" })}},
		"why":                  {{Kind: "added", Change: with(func(c *api.Change) { c.Why = "because" })}},
		"target of a file":     {{Kind: "added", Change: with(func(c *api.Change) { c.Target = "g" })}},
		"absolute link":        {{Kind: "added", Change: link("l", "/etc/passwd")}},
		"link out":             {{Kind: "added", Change: link("a/l", "../../f")}},
		"link to a newline":    {{Kind: "added", Change: link("l", "a\nb")}},
		"link to nothing":      {{Kind: "added", Change: link("l", "")}},
		"twice":                {{Kind: "added", Change: file("f")}, {Kind: "added", Change: file("f")}},
		"added and modified": {{Kind: "added", Change: file("f")},
			{Kind: "modified", Change: with(func(c *api.Change) { c.Before = sumB })}},
		"added and deleted": {{Kind: "added", Change: file("f")},
			{Kind: "deleted", Change: api.Change{Path: "f", Type: "file", Before: sumB}}},
		"refused without a reason": {{Kind: "refused", Change: api.Change{Path: "f"}}},
		"refused with a hash":      {{Kind: "refused", Change: api.Change{Path: "f", Why: "x", SHA256: sumA}}},
		"refused with a trick":     {{Kind: "refused", Change: api.Change{Path: "f", Why: "x\x1b[2J"}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := hostile(t, func(c *role.Conn, seq uint64) {
				for i := range say {
					c.Send(0, &say[i])
				}
				c.Send(seq, &role.Scanned{})
			})
			set, err := review.Collect(context.Background(), c, bounds)
			if err == nil {
				t.Fatalf("it was taken: %v", list(set))
			}
			<-c.Gone()
		})
	}
}

func TestHostileOrder(t *testing.T) {
	good := &role.Change{Kind: "added", Change: api.Change{Path: "f", Type: "file", Size: 1, SHA256: sumA}}
	small := role.Scan{Entries: 3, Bytes: 10, DiffBytes: 100}
	for name, play := range map[string]func(c *role.Conn, seq uint64){
		"hangs up":            func(c *role.Conn, seq uint64) {},
		"change as an answer": func(c *role.Conn, seq uint64) { c.Send(seq, good) },
		"wrong answer":        func(c *role.Conn, seq uint64) { c.Send(seq, &role.Diff{}) },
		"numbered change":     func(c *role.Conn, seq uint64) { c.Send(seq+1, good); c.Send(seq, &role.Scanned{}) },
		"unasked end":         func(c *role.Conn, seq uint64) { c.Send(0, &role.Scanned{}); c.Send(seq, &role.Scanned{}) },
		"too many": func(c *role.Conn, seq uint64) {
			for i := range 4 {
				g := *good
				g.Change.Path = string(rune('a' + i))
				c.Send(0, &g)
			}
			c.Send(seq, &role.Scanned{})
		},
		"long diff": func(c *role.Conn, seq uint64) {
			c.Send(0, &role.Diff{Text: strings.Repeat("x", 60)})
			c.Send(0, &role.Diff{Text: strings.Repeat("x", 60)})
			c.Send(seq, &role.Scanned{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := hostile(t, play)
			if set, err := review.Collect(context.Background(), c, small); err == nil {
				t.Fatalf("it was taken: %v", list(set))
			}
		})
	}
	t.Run("says nothing", func(t *testing.T) {
		wait := make(chan struct{})
		c := hostile(t, func(*role.Conn, uint64) { <-wait })
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, err := review.Collect(ctx, c, small)
		close(wait)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	t.Run("goes on afterwards", func(t *testing.T) {
		c := hostile(t, func(c *role.Conn, seq uint64) {
			c.Send(0, good)
			c.Send(seq, &role.Scanned{})
			for c.Send(0, good) == nil {
			}
		})
		set, err := review.Collect(context.Background(), c, bounds)
		if err == nil && api.Digest(set) != set.Digest {
			t.Error("the set changed after it was taken")
		}
		<-c.Gone()
		if err == nil && api.Digest(set) != set.Digest {
			t.Error("the set changed after it was taken")
		}
	})
}

// A descriptor that is no regular file open for reading never gets past control.
func TestHostileFile(t *testing.T) {
	path := t.TempDir() + "/f"
	must(t, os.WriteFile(path, []byte("x"), 0o644))
	must(t, unix.Mkfifo(path+"fifo", 0o644))
	for name, open := range map[string]func() (*os.File, error){
		"for writing": func() (*os.File, error) { return os.OpenFile(path, os.O_RDWR, 0) },
		"a FIFO":      func() (*os.File, error) { return os.OpenFile(path+"fifo", os.O_RDONLY|unix.O_NONBLOCK, 0) },
		"a device":    func() (*os.File, error) { return os.Open("/dev/zero") },
		"a folder":    func() (*os.File, error) { return os.Open("/") },
		"a path only": func() (*os.File, error) { return os.OpenFile(path, unix.O_PATH, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			f, err := open()
			must(t, err)
			t.Cleanup(func() { f.Close() }) // after the role has ended
			c := hostile(t, func(c *role.Conn, seq uint64) {
				c.Send(seq, &role.Scanned{})
				if p, err := c.Recv(); err == nil {
					c.Send(p.Seq, &role.File{}, f)
				}
				c.Recv()
			})
			_, err = review.Collect(context.Background(), c, bounds)
			must(t, err)
			if f, err := review.Open(context.Background(), c, "f"); err == nil {
				f.Close()
				t.Error("it was taken")
			}
			c.Close()
		})
	}
}

// FuzzCollect lets the role send any changes: what is taken keeps the promises that a client relies on.
func FuzzCollect(f *testing.F) {
	seed := []role.Change{
		{Kind: "added", Change: api.Change{Path: "a/b", Type: "file", Mode: 0o644, Size: 1, SHA256: sumA}},
		{Kind: "deleted", Change: api.Change{Path: "c", Type: "link", Target: "/x", Before: sumA}},
		{Kind: "renamed", Change: api.Change{Path: "d", From: "e", Type: "file", SHA256: sumA, Before: sumA}},
		{Kind: "refused", Change: api.Change{Path: "\"g\\xff\"", Why: "bad"}},
		{Kind: "modified", Change: api.Change{Path: "l", Type: "link", Target: "a/b", Before: sumB}},
	}
	b, err := json.Marshal(seed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, "--- a\n+++ b\n", true)
	f.Add([]byte(`[{"kind":"added","change":{"path":"../x","type":"dir"}}]`), "\x00", false)
	f.Fuzz(func(t *testing.T, b []byte, diff string, cut bool) {
		var changes []role.Change
		if json.Unmarshal(b, &changes) != nil {
			return
		}
		c := hostile(t, func(c *role.Conn, seq uint64) {
			for i := range changes {
				c.Send(0, &changes[i])
			}
			c.Send(0, &role.Diff{Text: diff})
			c.Send(seq, &role.Scanned{DiffCut: cut})
		})
		set, err := review.Collect(context.Background(), c, bounds)
		if err != nil {
			return
		}
		if err := set.Check(); err != nil {
			t.Fatal(err)
		}
		if set.Digest != api.Digest(set) || len(set.Diff) > bounds.DiffBytes {
			t.Fatal("digest or diff")
		}
		seen := map[string]bool{}
		for _, l := range [][]api.Change{set.Added, set.Modified, set.Renamed} {
			for _, c := range l {
				if !fs.ValidPath(c.Path) || c.Path == "." || seen[c.Path] || c.Mode > 0o777 || strings.HasPrefix(c.Target, "/") {
					t.Fatalf("%+v", c)
				}
				seen[c.Path] = true
			}
		}
	})
}

// What is no hash must not be gathered: it would fill control's memory before anything is checked.
func TestHostileReviewCannotFillMemory(t *testing.T) {
	for name, set := range map[string]func(c *api.Change, s string){
		"hash": func(c *api.Change, s string) { c.SHA256 = s }, "before": func(c *api.Change, s string) { c.Before = s }, "type": func(c *api.Change, s string) { c.Type = s },
	} {
		t.Run(name, func(t *testing.T) {
			var sent atomic.Int32
			c := hostile(t, func(c *role.Conn, seq uint64) {
				for ; sent.Load() < 500; sent.Add(1) {
					ch := api.Change{Path: "f", Type: "file", SHA256: sumA}
					set(&ch, strings.Repeat("a", 200<<10))
					if c.Send(0, &role.Change{Kind: "added", Change: ch}) != nil {
						return
					}
				}
				_ = c.Send(seq, &role.Scanned{})
			})
			if _, err := review.Collect(t.Context(), c, role.Scan{Entries: 1000, Bytes: 1 << 20}); err == nil {
				t.Error("it was taken")
			}
			c.Close()
			if sent.Load() > 100 {
				t.Errorf("%d messages were gathered", sent.Load())
			}
		})
	}
}
