package auditproof_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/auditproof"
)

// Whole folders, written by the real audit role, are tested beside it.

// history is a log in memory with the checkpoint of each of its sizes.
type history struct {
	signer note.Signer
	key    string
	stored []tlog.Hash
	points []auditproof.Checkpoint
}

// newKey is always the same for a name, so that what a fuzzer found stays found.
func newKey(tb testing.TB, name string) (note.Signer, string) {
	tb.Helper()
	seed := sha256.Sum256([]byte(name))
	public, err := note.NewEd25519VerifierKey(auditproof.KeyName, ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey))
	if err != nil {
		tb.Fatal(err)
	}
	parts := strings.SplitN(public, "+", 3)
	s, err := note.NewSigner("PRIVATE+KEY+" + parts[0] + "+" + parts[1] + "+" + base64.StdEncoding.EncodeToString(append([]byte{1}, seed[:]...)))
	if err != nil {
		tb.Fatal(err)
	}
	return s, public
}

func newHistory(tb testing.TB, n int, text, key string) *history {
	h := &history{}
	h.signer, h.key = newKey(tb, key)
	var t auditproof.Tree
	h.points = append(h.points, t.Checkpoint())
	for i := range n {
		h.stored = append(h.stored, t.Add(tlog.RecordHash(fmt.Append(nil, text, i)))...)
		h.points = append(h.points, t.Checkpoint())
	}
	return h
}

func (h *history) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hs := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		hs[i] = h.stored[index]
	}
	return hs, nil
}

func (h *history) proof(tb testing.TB, size, old int64) api.Proof {
	tb.Helper()
	msg, err := h.points[size].Sign(h.signer)
	if err != nil {
		tb.Fatal(err)
	}
	p := api.Proof{Key: h.key, Checkpoint: string(msg), Rehashed: size}
	if old > 0 {
		tp, err := tlog.ProveTree(size, old, h)
		if err != nil {
			tb.Fatal(err)
		}
		for _, x := range tp {
			p.Consistency = append(p.Consistency, x.String())
		}
	}
	return p
}

func (h *history) remembered(size int64) *auditproof.Remembered {
	return &auditproof.Remembered{Key: h.key, Size: size, Hash: h.points[size].Hash}
}

func TestTreeIsTlog(t *testing.T) {
	h := newHistory(t, 130, "r", "1")
	for n, c := range h.points {
		want, err := tlog.TreeHash(int64(n), h)
		if err != nil || c.Hash != want || c.Size != int64(n) {
			t.Fatalf("%d: %v, want %v, %v", n, c, want, err)
		}
		loaded, err := auditproof.LoadTree(int64(n), h)
		if err != nil || loaded.Checkpoint() != c {
			t.Fatalf("%d: loaded %v, %v", n, loaded.Checkpoint(), err)
		}
		if n < 130 { // and it grows on
			loaded.Clone().Add(tlog.Hash{1})
			loaded.Add(tlog.RecordHash(fmt.Append(nil, "r", n)))
			if loaded.Checkpoint() != h.points[n+1] {
				t.Fatalf("%d: grows to %v", n, loaded.Checkpoint())
			}
		}
	}
	if int64(len(h.stored)) != tlog.StoredHashCount(130) {
		t.Errorf("%d hashes", len(h.stored))
	}
}

func TestVerify(t *testing.T) {
	h, other := newHistory(t, 40, "r", "1"), newHistory(t, 40, "x", "1") // the same key signs another history
	for n := int64(0); n <= 40; n++ {
		if _, err := auditproof.Verify(h.proof(t, n, 0), nil); err != nil {
			t.Fatal(n, err)
		}
		for old := int64(0); old <= n; old++ {
			r, err := auditproof.Verify(h.proof(t, n, old), h.remembered(old))
			if err != nil || r.Size != n || r.Hash != h.points[n].Hash || r.Key != h.key || r.Time.IsZero() {
				t.Fatal(n, old, r, err)
			}
			if old > 0 {
				if _, err := auditproof.Verify(other.proof(t, n, old), h.remembered(old)); err == nil || !strings.Contains(err.Error(), "rewritten") {
					t.Fatal(n, old, err)
				}
			}
		}
		for later := n + 1; later <= 40; later++ {
			if _, err := auditproof.Verify(h.proof(t, n, 0), h.remembered(later)); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("only %d now", n)) {
				t.Fatal(n, later, err)
			}
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	h, other := newHistory(t, 9, "r", "1"), newHistory(t, 9, "r", "2")
	for _, c := range []struct {
		name string
		f    func(*api.Proof)
		want string
	}{
		{"key of another log", func(p *api.Proof) { *p = other.proof(t, 9, 5) }, "replaced by another one"},
		{"no key", func(p *api.Proof) { p.Key = "" }, "replaced by another one"},
		{"checkpoint by another key", func(p *api.Proof) { p.Checkpoint = other.proof(t, 9, 5).Checkpoint }, "not signed with the log's key"},
		{"no checkpoint", func(p *api.Proof) { p.Checkpoint = "" }, "malformed note"},
		{"two signatures", func(p *api.Proof) {
			p.Checkpoint += strings.SplitAfter(p.Checkpoint, "\n\n")[1]
		}, "not written as the audit role writes it"},
		{"a stranger's signature too", func(p *api.Proof) {
			p.Checkpoint += strings.SplitAfter(other.proof(t, 9, 5).Checkpoint, "\n\n")[1]
		}, "not written as the audit role writes it"},
		{"other text, signed", func(p *api.Proof) {
			b, err := note.Sign(&note.Note{Text: h.points[9].Text() + "more\n"}, h.signer)
			if err != nil {
				t.Fatal(err)
			}
			p.Checkpoint = string(b)
		}, "not that of an audit checkpoint"},
		{"not read again", func(p *api.Proof) { p.Rehashed = 8 }, "hashed only 8"},
		{"proof missing", func(p *api.Proof) { p.Consistency = nil }, "has another hash"},
		{"proof for another size", func(p *api.Proof) { p.Consistency = h.proof(t, 9, 4).Consistency }, "has another hash"},
		{"proof too long", func(p *api.Proof) { p.Consistency = make([]string, 1000) }, "more than any log needs"},
		{"proof malformed", func(p *api.Proof) { p.Consistency[0] = "x" }, "malformed"},
	} {
		p := h.proof(t, 9, 5)
		c.f(&p)
		if r, err := auditproof.Verify(p, h.remembered(5)); err == nil || !strings.Contains(err.Error(), c.want) || r != nil {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestRemembered(t *testing.T) {
	h := newHistory(t, 3, "r", "1")
	path := filepath.Join(t.TempDir(), "state", "audit.json")
	if r, err := auditproof.LoadRemembered(path); r != nil || err != nil {
		t.Fatal(r, err)
	}
	for _, size := range []int64{1, 3} {
		want, err := auditproof.Verify(h.proof(t, size, 0), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := auditproof.SaveRemembered(path, want); err != nil {
			t.Fatal(err)
		}
		got, err := auditproof.LoadRemembered(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Error(st.Mode(), err)
	}
	if e, err := os.ReadDir(filepath.Dir(path)); err != nil || len(e) != 1 {
		t.Error(e, err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty":         "",
		"cut":           string(good[:len(good)/2]),
		"trailing":      string(good) + "{}",
		"unknown field": strings.Replace(string(good), `"size"`, `"sise"`, 1),
		"version":       strings.Replace(string(good), `"version":1`, `"version":2`, 1),
		"size":          strings.Replace(string(good), `"size":3`, `"size":-3`, 1),
		"key":           strings.Replace(string(good), "closedpaw-audit", "closedpaw-audix", 1),
		"too long":      string(good) + strings.Repeat(" ", 5000),
	} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := auditproof.LoadRemembered(path); err == nil || r != nil || !strings.Contains(err.Error(), "restore it from a backup") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	h := newHistory(f, 3, "r", "1")
	good := h.proof(f, 3, 0).Checkpoint
	f.Add([]byte(good))
	f.Add([]byte("closedpaw audit\n0\nx\n\n— closedpaw-audit AAAAAAAA\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := auditproof.Open(b, h.key); err == nil && string(b) != good {
			t.Fatalf("%q was taken", b)
		}
		if i := bytes.Index(b, []byte("\n\n")); i >= 0 {
			if c, err := auditproof.ParseText(string(b[:i+1])); err == nil && c.Text() != string(b[:i+1]) {
				t.Fatalf("%q became %q", b[:i+1], c.Text())
			}
		}
	})
}

func FuzzParseText(f *testing.F) {
	f.Add(new(auditproof.Tree).Checkpoint().Text())
	f.Add("closedpaw audit\n-1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n")
	f.Add("closedpaw audit\n01\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=\n")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := auditproof.ParseText(s); err == nil && (c.Text() != s || c.Size < 0) {
			t.Fatalf("%q became %q", s, c.Text())
		}
	})
}

func FuzzParseRemembered(f *testing.F) {
	_, key := newKey(f, "1")
	f.Add(fmt.Appendf(nil, `{"version":1,"key":%q,"size":0,"hash":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=","time":"2026-01-02T03:04:05Z"}`, key))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := auditproof.ParseRemembered(b); err == nil && (r.Size < 0 || r.Key == "") {
			t.Fatalf("%+v", r)
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("{\"seq\":0,\"x\":1}\n{\"seq\":1,\"x\":1}\n{\"seq\":2"), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, first int64) {
		if first < 0 {
			return
		}
		lines := auditproof.NewLines(bytes.NewReader(b), first)
		var again []byte
		for {
			line, err := lines.Next()
			if err != nil {
				break
			}
			if n, ok := auditproof.LineSeq(line); !ok || n != first {
				t.Fatalf("%q is taken for record %d", line, first)
			}
			first++
			again = append(append(again, line...), '\n')
		}
		if !bytes.HasPrefix(b, again) || lines.Size() < int64(len(again)) {
			t.Fatalf("%q was read from %q", again, b)
		}
	})
}
