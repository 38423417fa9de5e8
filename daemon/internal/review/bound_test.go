package review_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/review"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

func TestBounds(t *testing.T) {
	many := func(n int) func(dir) {
		return func(d dir) {
			for i := range n {
				if i%1000 == 0 {
					d.mkdir(fmt.Sprint(i / 1000))
				}
				d.write(fmt.Sprintf("%d/%d", i/1000, i), "x")
			}
		}
	}
	sparse := func(d dir) {
		d.write("huge", "")
		must(d.t, os.Truncate(d.p("huge"), 1<<40))
		d.write("small", "s")
	}
	for _, tt := range []struct {
		name         string
		fill, change func(dir)
		scan         role.Scan
		err          string
		want         int // changes
	}{
		{"many", nil, many(100_000), role.Scan{Entries: 200_000, Bytes: 1 << 20, DiffBytes: 1000}, "", 100_100},
		{"too many", nil, many(100_000), bounds, "more than 10000 files were changed", 0},
		{"too many deleted", many(11_000), func(d dir) {
			d.rm("0")
			d.rm("1")
			d.rm("2")
			d.rm("3")
			d.rm("4")
			d.rm("5")
			d.rm("6")
			d.rm("7")
			d.rm("8")
			d.rm("9")
			d.rm("10")
		},
			bounds, "more than 10000", 0},
		{"many unchanged", many(20_000), func(d dir) { d.write("5/5005", "y") }, bounds, "", 1},
		{"sparse", nil, sparse, bounds, "", 2},
		{"sparse before", sparse, func(d dir) { d.rm("huge") }, bounds, "", 1},
		{"bytes", nil, func(d dir) {
			for i := range 100 {
				d.write(fmt.Sprint(i), "")
				must(d.t, os.Truncate(d.p(fmt.Sprint(i)), 60<<20))
			}
		}, bounds, "has more than 67108864 bytes", 0},
		{"deep", nil, func(d dir) {
			d.mkdir(strings.Repeat("d/", 130))
			d.write(strings.Repeat("d/", 130)+"f", "")
		}, bounds, "", 129},
		{"deeper than a path", nil, func(d dir) {
			fd, err := unix.Open(d.path, unix.O_PATH, 0)
			must(d.t, err)
			name := strings.Repeat("n", 200)
			for range 60 {
				must(d.t, unix.Mkdirat(fd, name, 0o755))
				next, err := unix.Openat(fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0)
				must(d.t, err)
				unix.Close(fd)
				fd = next
			}
			unix.Close(fd)
		}, bounds, "", 20},
		{"links in links", nil, func(d dir) {
			for i := range 1000 {
				d.link(strings.Repeat(fmt.Sprintf("l%d/", i+1), 600), fmt.Sprintf("l%d", i))
			}
			d.link(".", "l1000")
		}, bounds, "", 1001},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBox(t, tt.fill).change(tt.change)
			begin := time.Now()
			set, _, err := b.collect(tt.scan)
			if d := time.Since(begin); d > 30*time.Second {
				t.Errorf("took %v", d)
			}
			if tt.err != "" {
				var f *role.Failed
				if !errors.As(err, &f) || f.Code != api.CodeTooMany || !strings.Contains(f.Text, tt.err) {
					t.Fatalf("got %v, want %q", err, tt.err)
				}
				return
			}
			must(t, err)
			if n := len(list(set)); n != tt.want {
				t.Errorf("%d changes, want %d", n, tt.want)
			}
			if len(set.Diff) > tt.scan.DiffBytes {
				t.Errorf("a diff of %d bytes", len(set.Diff))
			}
		})
	}
}

func TestDiff(t *testing.T) {
	lines := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "line %d\n", i)
		}
		return b.String()
	}
	set, _, err := newBox(t, func(d dir) {
		d.write("edit", lines(10))
		d.write("gone", "a\nb")
		d.write("move", "moved\n")
		d.write("bin", "\x00")
		d.write("latin", "\xe9t\xe9\n")
		d.write("mode", "m\n")
		d.write("large", lines(200_000))
		d.link("edit", "l")
	}).change(func(d dir) {
		d.write("edit", strings.Replace(lines(10), "line 4", "\x1b]52;c;eA==\x07", 1))
		d.rm("gone")
		d.mv("move", "moved")
		d.mode("moved", 0o755)
		d.write("bin", "\x00\x01")
		d.write("latin", "été\n")
		d.mode("mode", 0o600|0o044|0o111)
		d.write("large", lines(200_001))
		d.write("new", "é"+strings.Repeat("x", 131_071)+"é\n") // a character on the border of two reads
		d.write("empty", "")
		d.rm("l")
		d.link("new", "l")
	}).collect(bounds)
	must(t, err)
	got := strings.ReplaceAll(set.Diff, strings.Repeat("x", 131_071), "xxx")
	want := `--- a/bin
+++ b/bin
Binary file bin: 2 bytes, sha256 b413f47d13ee2fe6c845b2ee141af81de858df4ec549a58b7970bb96645bc8d2
--- a/edit
+++ b/edit
@@ -2,7 +2,7 @@
 line 1
 line 2
 line 3
-line 4
+` + "\x1b]52;c;eA==\x07" + `
 line 5
 line 6
 line 7
--- /dev/null
+++ b/empty
Empty file empty
--- a/gone
+++ /dev/null
@@ -1,2 +0,0 @@
-a
-b
\ No newline at end of file
link l to new
--- a/large
+++ b/large
Large file large: 2288902 bytes, sha256 SUM
--- a/latin
+++ b/latin
Binary file latin: 6 bytes, sha256 SUM
mode of mode: 0755, was 0644
rename from move
rename to moved
mode of moved: 0755, was 0644
--- /dev/null
+++ b/new
@@ -0,0 +1 @@
+éxxxé
`
	for _, c := range set.Modified {
		if c.Path == "large" || c.Path == "latin" {
			got = strings.Replace(got, c.SHA256, "SUM", 1)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if set.DiffCut {
		t.Error("cut")
	}
}

func TestDiffLimit(t *testing.T) {
	b := newBox(t, nil).change(func(d dir) {
		for i := range 10 {
			d.write(fmt.Sprint(i), strings.Repeat("<é\x01>\n", 100_000))
		}
	})
	for _, limit := range []int{0, 1, 50, 1000, 100_001, 256 << 10, 10 << 20} {
		s := bounds
		s.DiffBytes = limit
		set, _, err := b.collect(s)
		must(t, err)
		if n := len(set.Diff); n > min(limit, review.MaxDiff) || n < min(limit, review.MaxDiff)-1 || !set.DiffCut {
			t.Errorf("limit %d: %d bytes, cut %v", limit, n, set.DiffCut)
		}
		if strings.ContainsRune(set.Diff, '\ufffd') {
			t.Errorf("limit %d: a character was cut in two", limit)
		}
	}
}

func TestOpen(t *testing.T) {
	b := newBox(t, func(d dir) { d.write("old", "old"); d.write("mv", "mv"); d.mkdir("sub"); d.write("gone", "gone") }).change(func(d dir) {
		d.write("old", "new")
		d.mv("mv", "moved")
		d.write("sub/f", "f")
		d.rm("gone")
		d.link("old", "l")
		d.mkdir("d")
		d.node("fifo", unix.S_IFIFO|0o666, 0)
	})
	_, c, err := b.collect(bounds)
	must(t, err)
	ctx := context.Background()
	for path, want := range map[string]string{"old": "new", "moved": "mv", "sub/f": "f"} {
		f, err := review.Open(ctx, c, path)
		must(t, err)
		got, err := io.ReadAll(f)
		must(t, err)
		if !bytes.Equal(got, []byte(want)) {
			t.Errorf("%s: %q", path, got)
		}
		if _, err := f.Write([]byte("x")); err == nil {
			t.Errorf("%s can be written", path)
		}
		if g, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0); err == nil {
			g.Close()
			t.Errorf("%s can be opened again for writing", path)
		}
		f.Close()
	}
	for _, path := range []string{"gone", "mv", "l", "d", "fifo", "sub", ".", "", "/etc/passwd", "../lower/gone", "sub/../old", "nothing", "sub/\x00", "\xff"} {
		if f, err := review.Open(ctx, c, path); err == nil {
			f.Close()
			t.Errorf("%q was opened", path)
		}
	}
	if _, err := role.Ask[role.Scanned](ctx, c, &bounds); err == nil {
		t.Error("scanned twice")
	}
}
