package policy_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"github.com/closedpaw/closedpaw/policy"
)

// failer is what helpers need of a testing.T, a testing.B or a rapid.T.
type failer interface {
	Helper()
	Fatal(...any)
}

var now = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func newSigner(t failer, seed byte) (ssh.Signer, []byte) {
	t.Helper()
	key := ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), 32)))
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s, fmt.Appendf(nil, "admin namespaces=\"closedpaw-policy\" %s", ssh.MarshalAuthorizedKey(s.PublicKey()))
}

func manifest(serial uint64) policy.Manifest {
	return policy.Manifest{Serial: serial, NotBefore: now.Add(-time.Hour), Expires: now.Add(time.Hour)}
}

func defaultFiles(t failer) map[string][]byte {
	t.Helper()
	files, err := policy.Default()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func sign(t failer, files map[string][]byte, m policy.Manifest, s ssh.Signer) map[string][]byte {
	t.Helper()
	out, err := policy.Sign(files, m, s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func folder(files map[string][]byte) fstest.MapFS {
	dir := fstest.MapFS{}
	for name, b := range files {
		dir[name] = &fstest.MapFile{Data: b, Mode: 0o644}
	}
	return dir
}

// smallFiles is the least that makes a bundle.
func smallFiles() map[string][]byte {
	return map[string][]byte{
		"p.cedar":      []byte(`@id("all") permit (principal, action, resource);`),
		"tools.json":   []byte(`{"version":1,"tools":[]}`),
		"profile.json": []byte(`{"version":1,"tier":"gvisor","memory_bytes":1073741824,"processes":256,"upper_bytes":1048576,"timeout_seconds":60,"max_output_bytes":4096}`),
	}
}

func TestLoad(t *testing.T) {
	signer, allowed := newSigner(t, 1)
	other, _ := newSigner(t, 2)
	line := strings.TrimPrefix(string(allowed), `admin namespaces="closedpaw-policy" `)
	tests := []struct {
		name    string
		change  func(map[string][]byte)
		fs      func(fstest.MapFS)
		signer  ssh.Signer
		signers string
		options policy.LoadOptions
		want    error
		text    string // in the error
	}{
		{name: "good"},
		{name: "same serial", options: policy.LoadOptions{MinSerial: 7}},
		{name: "rolled back", options: policy.LoadOptions{MinSerial: 8}, want: policy.ErrRolledBack, text: "serial 7 is older than 8"},
		{name: "expired", options: policy.LoadOptions{Now: now.Add(time.Hour)}, want: policy.ErrExpired, text: "expired at"},
		{name: "not yet valid", options: policy.LoadOptions{Now: now.Add(-2 * time.Hour)}, want: policy.ErrExpired, text: "valid from"},
		{name: "no manifest", change: func(m map[string][]byte) { delete(m, "manifest.json") }, want: policy.ErrUnsigned, text: "manifest.json: it is missing"},
		{name: "no signature", change: func(m map[string][]byte) { delete(m, "manifest.json.sig") }, want: policy.ErrUnsigned, text: "closedpawd -sign"},
		{name: "file changed", change: func(m map[string][]byte) { m["who.cedar"] = append(m["who.cedar"], ' ') }, want: policy.ErrAltered, text: "who.cedar: it was changed"},
		{name: "file missing", change: func(m map[string][]byte) { delete(m, "who.cedar") }, want: policy.ErrAltered, text: "who.cedar: it is missing"},
		{name: "file added", change: func(m map[string][]byte) { m["x.cedar"] = nil }, want: policy.ErrAltered, text: "x.cedar: it was added"},
		{name: "foreign file", change: func(m map[string][]byte) { m["README"] = nil }, want: policy.ErrAltered, text: "does not belong"},
		{name: "folder in it", fs: func(d fstest.MapFS) { d["x.cedar"] = &fstest.MapFile{Mode: fs.ModeDir} }, want: policy.ErrAltered, text: "not a regular file"},
		{name: "link in it", fs: func(d fstest.MapFS) {
			d["who.cedar"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("effects.cedar")}
		}, want: policy.ErrAltered, text: "not a regular file"},
		{name: "too big", change: func(m map[string][]byte) { m["who.cedar"] = make([]byte, 1<<20) }, want: policy.ErrInvalid, text: "bigger"},
		{name: "too many", fs: func(d fstest.MapFS) {
			for i := range 100 {
				d[fmt.Sprintf("f%d.cedar", i)] = &fstest.MapFile{}
			}
		}, want: policy.ErrInvalid, text: "more than"},
		{name: "unknown signer", signer: other, want: policy.ErrSigner, text: "is not in allowed_signers"},
		{name: "no signer", signers: "# nobody\n", want: policy.ErrSigner},
		{name: "bad signers", signers: "gibberish\n", want: policy.ErrSigner, text: "allowed_signers: line 1"},
		{name: "signer for all", signers: "admin " + line},
		{name: "signer by pattern", signers: `admin namespaces="file,closedpaw-*" ` + line},
		{name: "signer for other things", signers: `admin namespaces="file,git" ` + line, want: policy.ErrSigner, text: "not allowed to sign for"},
		{name: "signer not for this", signers: `admin namespaces="*,!closedpaw-policy" ` + line, want: policy.ErrSigner},
		{name: "signer in time", signers: `admin valid-after="20260701Z",valid-before="202607011200Z" ` + line},
		{name: "signer revoked", signers: `admin valid-before="20260701115959Z" ` + line, want: policy.ErrSigner, text: "was valid until"},
		{name: "signer too early", signers: `admin valid-after="20260702Z" ` + line, want: policy.ErrSigner, text: "not valid before"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, o, text := signer, test.options, string(allowed)
			if test.signer != nil {
				s = test.signer
			}
			if o.Now.IsZero() {
				o.Now = now
			}
			if test.signers != "" {
				text = test.signers
			}
			files := sign(t, defaultFiles(t), manifest(7), s)
			if test.change != nil {
				test.change(files)
			}
			dir := folder(files)
			if test.fs != nil {
				test.fs(dir)
			}
			b, err := policy.Load(dir, []byte(text), o)
			if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if test.want != nil {
				var e *policy.Error
				if !errors.As(err, &e) || e.File == "" || e.Reason == "" || e.Fix == "" || !strings.Contains(err.Error(), test.text) {
					t.Errorf("the error does not say enough: %v", err)
				}
				if b != nil {
					t.Error("a bundle came with an error")
				}
				return
			}
			if b.Serial() != 7 || len(b.Digest()) != 64 || !strings.HasPrefix(b.Signer(), "admin SHA256:") || !b.Expires().Equal(manifest(7).Expires) {
				t.Errorf("got serial %d, digest %q, signer %q, expires %s", b.Serial(), b.Digest(), b.Signer(), b.Expires())
			}
		})
	}
}

// TestFlip changes each byte of a signed bundle, in several ways: none of them may be taken.
func TestFlip(t *testing.T) {
	signer, allowed := newSigner(t, 1)
	good := sign(t, smallFiles(), manifest(7), signer)
	if _, err := policy.Load(folder(good), allowed, policy.LoadOptions{Now: now}); err != nil {
		t.Fatal(err)
	}
	for name, b := range good {
		for i := range b {
			for _, mask := range []byte{0x01, 0x02, 0x07, 0x20, 0x80} {
				bad := maps.Clone(good)
				c := append([]byte(nil), b...)
				c[i] ^= mask
				bad[name] = c
				_, err := policy.Load(folder(bad), allowed, policy.LoadOptions{Now: now})
				var e *policy.Error
				if !errors.As(err, &e) {
					t.Fatalf("%s with byte %d flipped by %#x: got %v", name, i, mask, err)
				}
			}
		}
		for _, c := range [][]byte{b[:len(b)-1], append(append([]byte(nil), b...), '\n'), append([]byte("\n"), b...)} {
			bad := maps.Clone(good)
			bad[name] = c
			if _, err := policy.Load(folder(bad), allowed, policy.LoadOptions{Now: now}); err == nil {
				t.Fatalf("%s was taken with a byte less or more", name)
			}
		}
	}
}

func TestCheck(t *testing.T) {
	const ok = `@id("a") permit (principal, action, resource);`
	tests := []struct {
		name, file, text string
		want             string // in the error; empty: good
	}{
		{"good", "p.cedar", ok, ""},
		{"empty", "p.cedar", "// nothing\n", "everything would be denied"},
		{"syntax", "p.cedar", "permit (principal, action", "p.cedar"},
		{"no id", "p.cedar", "permit (principal, action, resource);", "needs an @id"},
		{"bad id", "p.cedar", `@id("A b") permit (principal, action, resource);`, "needs an @id"},
		{"same id", "p.cedar", ok + "\n" + ok, `line 2 has the same @id "a" as the one in p.cedar, line 1`},
		{"mistyped approval", "p.cedar", `@id("a") @approve("confirm") permit (principal, action, resource);`, "@approve is unknown"},
		{"unknown level", "p.cedar", `@id("a") @approval("maybe") permit (principal, action, resource);`, `@approval("maybe") is unknown`},
		{"empty level", "p.cedar", `@id("a") @approval permit (principal, action, resource);`, `@approval("") is unknown`},
		{"approval on forbid", "p.cedar", `@id("a") @approval("confirm") forbid (principal, action, resource);`, "not on a forbid"},
		{"two approvals", "p.cedar", `@id("a") @approval("confirm") @approval("authenticate") permit (principal, action, resource);`, "duplicate annotation"},
		{"long reason", "p.cedar", `@id("a") @reason("` + strings.Repeat("x", 201) + `") permit (principal, action, resource);`, "@reason must"},
		{"hidden reason", "p.cedar", `@id("a") @reason("x\u{202e}y") permit (principal, action, resource);`, "@reason must"},
		{"unknown action", "p.cedar", `@id("a") permit (principal, action == Action::"fly", resource);`, "unrecognized action"},
		{"unknown type", "p.cedar", `@id("a") permit (principal is Robot, action, resource);`, "unrecognized entity type"},
		{"unknown attribute", "p.cedar", `@id("a") permit (principal, action, resource) when { principal.rich };`, "rich"},
		{"attribute of another type", "p.cedar", `@id("a") permit (principal, action, resource) when { resource.owner == principal.uid };`, "owner"},
		{"unknown context", "p.cedar", `@id("a") permit (principal, action, resource) when { context.wrld };`, "wrld"},
		{"not Boolean", "p.cedar", `@id("a") permit (principal, action, resource) when { principal.uid };`, "line 1"},
		{"compares types", "p.cedar", `@id("a") permit (principal, action, resource) when { principal.uid == "0" };`, "line 1"},
		{"not applicable", "p.cedar", `@id("a") permit (principal, action == Action::"status", resource is Session);`, "line 1"},
		{"hidden character", "p.cedar", "// \u202e\n" + ok, "line 1: the hidden character U+202E"},
		{"carriage return", "p.cedar", "//\r" + ok, "hidden character"},
		{"not UTF-8", "p.cedar", "//\xff\n" + ok, "not UTF-8"},
		{"deep", "p.cedar", `@id("a") permit (principal, action, resource) when { ` + strings.Repeat("(", 1<<18), "nest deeper"},
		{"no tools", "tools.json", "-", "tools.json: it is missing"},
		{"no profile", "profile.json", "-", "profile.json: it is missing"},
		{"bad tools", "tools.json", "{}", "tools.json: version: must be 1"},
		{"bad profile", "profile.json", "{}", "profile.json: version: must be 1"},
	}
	signer, _ := newSigner(t, 1)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			files := smallFiles()
			files[test.file] = []byte(test.text)
			if test.text == "-" {
				delete(files, test.file)
			}
			err := policy.Check(files)
			if test.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, policy.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if _, err := policy.Sign(files, manifest(1), signer); err == nil {
				t.Error("it was signed")
			}
		})
	}
}

func TestSignRefuses(t *testing.T) {
	signer, _ := newSigner(t, 1)
	for name, m := range map[string]policy.Manifest{
		"no serial":     manifest(0),
		"serial":        manifest(policy.MaxSerial + 1),
		"no time":       {Serial: 1, Expires: now},
		"expires early": {Serial: 1, NotBefore: now, Expires: now},
	} {
		if _, err := policy.Sign(smallFiles(), m, signer); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	files := smallFiles()
	files["NOTES"] = nil
	if _, err := policy.Sign(files, manifest(1), signer); err == nil {
		t.Error("a foreign file was signed")
	}
}

// TestSignTwice: signing does not depend on a manifest that is there, and says the same each time.
func TestSignTwice(t *testing.T) {
	signer, _ := newSigner(t, 1)
	once := sign(t, smallFiles(), manifest(3), signer)
	if diff := cmp.Diff(once, sign(t, once, manifest(3), signer)); diff != "" {
		t.Error(diff)
	}
}

func TestDefaultBundle(t *testing.T) {
	b := defaultBundle(t)
	var names []string
	for _, tool := range b.Tools() {
		names = append(names, tool.Name)
	}
	if diff := cmp.Diff([]string{"shell", "read_file", "write_file"}, names); diff != "" {
		t.Error(diff)
	}
	want := policy.Profile{Version: 1, Tier: "gvisor", MemoryBytes: 1 << 30, Processes: 256, UpperBytes: 512 << 20, TimeoutSeconds: 3600, MaxOutputBytes: 32768}
	if diff := cmp.Diff(want, b.Profile()); diff != "" {
		t.Error(diff)
	}
	for tier, ok := range map[string]bool{"gvisor": true, "kata": true, "runc": false, "": false} {
		if b.Profile().Accepts(tier) != ok {
			t.Errorf("tier %q: got %v", tier, !ok)
		}
	}
	if (policy.Profile{}).Accepts("kata") {
		t.Error("the zero profile accepts a sandbox")
	}
}

func defaultBundle(t failer) *policy.Bundle {
	t.Helper()
	return load(t, defaultFiles(t))
}

func load(t failer, files map[string][]byte) *policy.Bundle {
	t.Helper()
	signer, allowed := newSigner(t, 1)
	b, err := policy.Load(folder(sign(t, files, manifest(1), signer)), allowed, policy.LoadOptions{Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
