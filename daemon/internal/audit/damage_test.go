package audit_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/auditproof"
	"github.com/closedpaw/closedpaw/daemon/internal/audit"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// newLog is a folder with n records, left in an orderly way.
func newLog(tb testing.TB, n int) string {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		tb.Fatal(err)
	}
	r := start(tb, dir)
	r.fill(tb, n)
	r.stop(tb)
	return dir
}

func read(tb testing.TB, dir, name string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func write(tb testing.TB, dir, name string, b []byte) {
	tb.Helper()
	path := filepath.Join(dir, name)
	mode := os.FileMode(0o600)
	if st, err := os.Stat(path); err == nil {
		mode = st.Mode()
	}
	if err := os.WriteFile(path, b, mode); err != nil {
		tb.Fatal(err)
	}
}

func copyDir(tb testing.TB, from string) string {
	tb.Helper()
	to := filepath.Join(tb.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(to, "key"), 0o600); err != nil {
		tb.Fatal(err)
	}
	return to
}

// startError starts the role, which must refuse, also towards control.
func startError(tb testing.TB, dir string) error {
	tb.Helper()
	r := start(tb, dir)
	err := r.DaemonStarted(tb.Context(), "v1")
	if err == nil {
		r.stop(tb)
		return nil
	}
	served := <-r.done
	var f *role.Failed
	if !errors.As(err, &f) || f.Code != api.CodeUnavailable || served == nil || f.Text != served.Error() {
		tb.Fatalf("control was told %v, and Serve said %v", err, served)
	}
	return served
}

// TestEachByte changes each byte of each file.
func TestEachByte(t *testing.T) {
	dir := newLog(t, 6)
	for _, name := range []string{"records", "hashes", "checkpoint", "key.pub", "key"} {
		good := read(t, dir, name)
		for i := range good {
			for _, bit := range []byte{0x01, 0x20} { // 0x20: upper and lower case
				bad := slices.Clone(good)
				bad[i] ^= bit
				write(t, dir, name, bad)
				if name != "key" { // which a verifier does not need
					if n, err := auditproof.VerifyDir(dir); err == nil {
						t.Errorf("%s: byte %d changed by %#x: VerifyDir finds %d good records", name, i, bit, n)
					}
				}
				if name != "hashes" { // which a start makes anew, see TestStart
					if err := startError(t, dir); !errors.Is(err, audit.ErrRefused) || !strings.Contains(err.Error(), "restore the audit folder") {
						t.Errorf("%s: byte %d changed by %#x: start: %v", name, i, bit, err)
					}
				}
			}
		}
		write(t, dir, name, good)
	}
	if n, err := auditproof.VerifyDir(dir); n != 6 || err != nil {
		t.Error(n, err)
	}
}

// TestEachByteWhileOpen changes the records behind the back of a role that runs.
func TestEachByteWhileOpen(t *testing.T) {
	dir := newLog(t, 4)
	r := start(t, dir)
	was := r.verify(t, nil)
	good := read(t, dir, "records")
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1
		write(t, dir, "records", bad)
		var f *role.Failed
		if _, err := r.Prove(t.Context(), 2); !errors.As(err, &f) || !strings.Contains(f.Text, "changed or damaged") || f.Hint == "" {
			t.Errorf("byte %d: %v", i, err)
		}
		if _, err := r.Read(t.Context(), -1, 0, -1); !errors.As(err, &f) || !strings.Contains(f.Text, "changed or damaged") {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	write(t, dir, "records", good)
	r.verify(t, was)
	r.stop(t)
}

// TestReplaced: records must not go where no reader of the folder finds them.
func TestReplaced(t *testing.T) {
	dir := newLog(t, 3)
	r := start(t, dir)
	r.verify(t, nil)
	b := read(t, dir, "records")
	old := filepath.Join(dir, "records.old")
	for _, replacement := range [][]byte{nil, b} {
		if err := os.Rename(filepath.Join(dir, "records"), old); err != nil {
			t.Fatal(err)
		}
		if replacement != nil {
			write(t, dir, "records", replacement)
		}
		if err := r.DaemonStarted(t.Context(), "v"); err == nil {
			t.Error("a record was taken")
		}
		if _, err := r.Prove(t.Context(), 0); err == nil {
			t.Error("a proof was made")
		}
		if err := os.Rename(old, filepath.Join(dir, "records")); err != nil {
			t.Fatal(err)
		}
	}
	r.fill(t, 1)
	r.stop(t)
	if n, err := auditproof.VerifyDir(dir); n != 4 || err != nil {
		t.Error(n, err)
	}
}

// TestStart damages a log of six records, and says what VerifyDir and a start make of it.
func TestStart(t *testing.T) {
	line := func(seq int, rest string) string {
		return fmt.Sprintf(`{"seq":%d,"time":"2026-01-02T03:04:05Z","uid":1,"session":"","event":"e","tool":"","decision":"","reason":"","tier":""%s}`, seq, rest) + "\n"
	}
	appended := func(s string) func(testing.TB, string) {
		return func(tb testing.TB, dir string) { write(tb, dir, "records", append(read(tb, dir, "records"), s...)) }
	}
	lines := func(f func([][]byte) [][]byte) func(testing.TB, string) {
		return func(tb testing.TB, dir string) {
			write(tb, dir, "records", bytes.Join(f(bytes.SplitAfter(read(tb, dir, "records"), []byte("\n"))), nil))
		}
	}
	remove := func(names ...string) func(testing.TB, string) {
		return func(tb testing.TB, dir string) {
			for _, name := range names {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					tb.Fatal(err)
				}
			}
		}
	}
	set := func(name, text string) func(testing.TB, string) {
		return func(tb testing.TB, dir string) { write(tb, dir, name, []byte(text)) }
	}
	for _, c := range []struct {
		name     string
		damage   func(testing.TB, string)
		verify   string // what VerifyDir says; "": good
		unsigned bool   // and that error is ErrUnsigned
		start    string // what a start says; "": good, with so many records then, daemon.started included:
		records  int
		event    string // the record before that
	}{
		{"nothing", func(testing.TB, string) {}, "", false, "", 7, ""},
		{"torn line", appended(line(6, "")[:50]), "half a record", true, "", 8, "kept and signed 0 records behind the last checkpoint, dropped 50 bytes"},
		{"whole line", appended(line(6, "")), "1 more follow", true, "", 9, "kept and signed 1 records behind the last checkpoint, dropped 0 bytes"},
		{"whole and torn line", appended(line(6, "") + line(7, "")[:7]), "1 more follow", true, "", 9, "kept and signed 1 records behind the last checkpoint, dropped 7 bytes"},
		{"zeros", appended(strings.Repeat("\x00", 5000)), "half a record", true, "", 8, "dropped 5000 bytes"},
		{"zeros, then whole lines", appended(strings.Repeat("\x00", 100) + "\n" + line(7, "")), "is no record", false, "", 8, "dropped"},
		{"endless line", appended(strings.Repeat("x", 200<<10)), "is no record", false, "", 8, "dropped 204800 bytes"},
		{"line with a wrong number", appended(line(7, "")), "is no record", false, "a line that this closedpawd did not write", 0, ""},
		{"line of a newer closedpawd", appended(line(6, `,"new":1`)), "1 more follow", true, "a line that this closedpawd did not write", 0, ""},
		{"last record cut", lines(func(l [][]byte) [][]byte { return l[:5] }), "only 5 whole ones", false, "only 5 whole ones", 0, ""},
		{"last record torn", lines(func(l [][]byte) [][]byte { l[5] = l[5][:9]; return l }), "only 5 whole ones", false, "only 5 whole ones", 0, ""},
		{"record removed", lines(func(l [][]byte) [][]byte { return slices.Delete(l, 2, 3) }), "where record 2 should be", false, "where record 2 should be", 0, ""},
		{"records swapped", lines(func(l [][]byte) [][]byte { l[2], l[3] = l[3], l[2]; return l }), "where record 2 should be", false, "where record 2 should be", 0, ""},
		{"records swapped, numbers not", lines(func(l [][]byte) [][]byte {
			l[2], l[3] = bytes.Replace(l[3], []byte("3"), []byte("2"), 1), bytes.Replace(l[2], []byte("2"), []byte("3"), 1)
			return l
		}), "record 2 is not what was written", false, "record 2 is not what was written", 0, ""},
		{"records lost", set("records", ""), "only 0 whole ones", false, "only 0 whole ones", 0, ""},
		{"records removed", remove("records"), "cannot open the records", false, "only 0 whole ones", 0, ""},
		{"checkpoint removed", remove("checkpoint"), "checkpoint is missing", false, "checkpoint is missing", 0, ""},
		{"checkpoint empty", set("checkpoint", ""), "malformed note", false, "malformed note", 0, ""},
		{"checkpoint too long", set("checkpoint", strings.Repeat("x", 1<<20)), "more than any has", false, "more than any has", 0, ""},
		{"key removed", remove("key"), "", false, "signing key is missing", 0, ""},
		{"key and records removed", remove("key", "records"), "cannot open the records", false, "signing key and records are missing", 0, ""},
		{"key.pub removed", remove("key.pub"), "key.pub is missing", false, "not the public half", 0, ""},
		{"key readable", func(tb testing.TB, dir string) { os.Chmod(filepath.Join(dir, "key"), 0o640) }, "", false, "mode 0640", 0, ""},
		{"hashes removed", remove("hashes"), "", false, "", 7, ""},
		{"hashes empty", set("hashes", ""), "hashes is damaged", false, "", 7, ""},
		{"hashes wrong", set("hashes", strings.Repeat("\x00", 10*32)), "hashes is damaged", false, "", 7, ""},
		{"hashes too long", func(tb testing.TB, dir string) { write(tb, dir, "hashes", append(read(tb, dir, "hashes"), "rest"...)) }, "", false, "", 7, ""},
		{"first start cut short before the key", remove("key", "records", "hashes", "checkpoint"), "checkpoint is missing", false, "", 1, ""},
		{"first start cut short", func(tb testing.TB, dir string) {
			other := newLog(tb, 0)
			remove("key", "records", "hashes")(tb, dir)
			write(tb, dir, "checkpoint", read(tb, other, "checkpoint"))
			write(tb, dir, "key.pub", read(tb, other, "key.pub"))
		}, "cannot open the records", false, "", 1, ""},
		{"another log's checkpoint", func(tb testing.TB, dir string) { write(tb, dir, "checkpoint", read(tb, newLog(tb, 6), "checkpoint")) }, "not signed with the log's key", false, "not signed with the log's key", 0, ""},
		{"another log's records", func(tb testing.TB, dir string) { write(tb, dir, "records", read(tb, newLog(tb, 6), "records")) }, "record 0 is not what was written", false, "record 0 is not what was written", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := newLog(t, 6)
			c.damage(t, dir)
			_, err := auditproof.VerifyDir(dir)
			if c.verify == "" && err != nil || c.verify != "" && (err == nil || !strings.Contains(err.Error(), c.verify)) || errors.Is(err, auditproof.ErrUnsigned) != c.unsigned {
				t.Errorf("VerifyDir: %v", err)
			}
			err = startError(t, dir)
			if c.start != "" {
				if err == nil || !errors.Is(err, audit.ErrRefused) || !strings.Contains(err.Error(), c.start) {
					t.Errorf("start: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if n, err := auditproof.VerifyDir(dir); n != int64(c.records) || err != nil {
				t.Errorf("after a start: %d records, %v", n, err)
			}
			r := start(t, dir)
			all := r.all(t, 0, -1)
			if c.event != "" {
				if e := all[len(all)-2]; e.Event != audit.EventRecovered || !strings.Contains(e.Detail, c.event) {
					t.Errorf("recovered: %v", e)
				}
			}
			r.stop(t)
		})
	}
}

// TestDeepChange: what lies further back than a start looks is found by all who read it.
func TestDeepChange(t *testing.T) {
	dir := newLog(t, 3000)
	b := read(t, dir, "records")
	i := bytes.Index(b, []byte("reason 100"))
	b[i] = 'R'
	write(t, dir, "records", b)
	if _, err := auditproof.VerifyDir(dir); err == nil || !strings.Contains(err.Error(), "record 100 is not what was written") {
		t.Error(err)
	}
	r := start(t, dir)
	if _, err := r.Prove(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "record 100 is not what was written") {
		t.Error(err)
	}
	if _, err := r.Read(t.Context(), 50, 100, -1); err == nil || !strings.Contains(err.Error(), "record 100 is not what was written") {
		t.Error(err)
	}
	if _, err := r.Read(t.Context(), 2900, 100, -1); err != nil {
		t.Error(err)
	}
	r.stop(t)
}

func TestTwoAtOnce(t *testing.T) {
	t.Parallel() // the second one waits for the first to end
	dir := newLog(t, 1)
	r := start(t, dir)
	r.fill(t, 1)
	second := start(t, dir)
	if err := second.DaemonStarted(t.Context(), "v"); err == nil || !strings.Contains(err.Error(), "another closedpawd") {
		t.Error(err)
	}
	third := start(t, dir)
	r.stop(t)
	third.fill(t, 1)
	third.stop(t)
}

func TestNoFolder(t *testing.T) {
	if err := audit.Serve(endedConn(t), filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "cannot open the audit folder") {
		t.Error(err)
	}
}

func endedConn(t *testing.T) *role.Conn {
	a, b, err := role.Pair()
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	c, err := role.NewConn(a, role.Audit, role.Control)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestRolledBack puts back an older copy, lets it grow differently, and replaces the log: only memory finds that.
func TestRolledBack(t *testing.T) {
	dir := newLog(t, 5)
	old := copyDir(t, dir)
	r := start(t, dir)
	was := r.fill(t, 5)
	r.stop(t)

	check := func(what, dir, want string) {
		t.Helper()
		r := start(t, dir)
		p, err := r.Prove(t.Context(), was.Size)
		if err != nil {
			t.Fatal(err)
		}
		r.stop(t)
		if _, err := auditproof.VerifyDir(dir); err != nil {
			t.Errorf("%s: by itself: %v", what, err)
		}
		_, err = auditproof.Verify(*p, was)
		_, err2 := auditproof.VerifyDirAgainst(dir, was)
		for _, err := range []error{err, err2} {
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s: %v, want %q", what, err, want)
			}
		}
	}
	check("as it was", dir, "")
	check("older copy", old, "no longer contains the first 10 records that it had on "+was.Time.Format("2006-01-02"))
	r = start(t, old)
	r.fill(t, 5)
	r.stop(t)
	check("other history of the same size", old, "has another hash")
	r = start(t, old)
	r.fill(t, 3)
	r.stop(t)
	check("other history", old, "has another hash")
	check("other log", newLog(t, 12), "replaced by another one")
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"seq":0,"time":"2026-01-02T03:04:05Z","uid":1,"session":"s","event":"e","tool":"t","decision":"","reason":"r","tier":"","detail":"d"}`))
	f.Add([]byte(`{"seq":9223372036854775807,"uid":-1}`))
	f.Add([]byte(`{"seq":1,"seq":2}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := audit.ParseRecord(line)
		if err != nil {
			return
		}
		again, err := audit.EncodeRecord(r)
		if err != nil {
			return // a time that JSON does not take
		}
		if len(again) >= auditproof.MaxLine || bytes.ContainsRune(again, '\n') {
			t.Fatalf("encoded as %d bytes: %q", len(again), again)
		}
		r2, err := audit.ParseRecord(again)
		if err != nil {
			t.Fatalf("%q became %q: %v", line, again, err)
		}
		if r2.Seq != r.Seq || !r2.Time.Equal(r.Time) || r2.UID != r.UID {
			t.Fatalf("%+v became %+v", r, r2)
		}
	})
}
