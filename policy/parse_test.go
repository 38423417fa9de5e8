package policy_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/closedpaw/closedpaw/policy"
)

const (
	goodManifest = `{"version":1,"serial":1,"not_before":"2026-01-01T00:00:00Z","expires":"2027-01-01T00:00:00Z","files":{"a.cedar":"` + zeros + `"}}`
	goodTools    = `{"version":1,"tools":[{"name":"t","description":"d","schema":{"type": "object"},"builtin":true,"effect":"sandbox","output":"world"}]}`
	goodProfile  = `{"version":1,"tier":"kata","memory_bytes":1073741824,"processes":256,"upper_bytes":1048576,"timeout_seconds":60,"max_output_bytes":4096}`
	zeros        = "0000000000000000000000000000000000000000000000000000000000000000"
)

// TestParse changes one thing in a good text.
func TestParse(t *testing.T) {
	parsers := map[string]func(string) error{
		goodManifest: func(s string) error { _, err := policy.ParseManifest([]byte(s)); return err },
		goodTools:    func(s string) error { _, err := policy.ParseTools([]byte(s)); return err },
		goodProfile:  func(s string) error { _, err := policy.ParseProfile([]byte(s)); return err },
	}
	for good, parse := range parsers {
		if err := parse(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
		for _, bad := range []string{"", "null", "[]", good + "x", good + good, good[:len(good)-1], "\ufeff" + good,
			strings.Replace(good, "{", `{"more":1,`, 1), strings.Replace(good, "{", `{"version":1,`, 1),
			strings.Replace(good, `"version"`, `"Version"`, 1), strings.Replace(good, `:1,`, `:2,`, 1), strings.Replace(good, `:1,`, `:"1",`, 1)} {
			if err := parse(bad); err == nil {
				t.Errorf("taken: %s", bad)
			}
		}
	}
	tests := []struct{ good, old, new, want string }{
		{goodManifest, `"serial":1`, `"serial":0`, "serial: must be"},
		{goodManifest, `"serial":1`, `"serial":9007199254740992`, "serial: must be"},
		{goodManifest, `"serial":1`, `"serial":-1`, "serial"},
		{goodManifest, `"serial":1,`, ``, "serial: must be"},
		{goodManifest, `"serial"`, `"sreial"`, "/sreial: there is no such name"},
		{goodManifest, `2026-01-01T00:00:00Z`, `2026-01-01`, "not_before"},
		{goodManifest, `"not_before":"2026-01-01T00:00:00Z",`, ``, "not_before"},
		{goodManifest, `2027`, `2025`, "expires: must be"},
		{goodManifest, `a.cedar`, `../a.cedar`, "no name of a bundle's file"},
		{goodManifest, `a.cedar`, `manifest.json`, "no name of a bundle's file"},
		{goodManifest, `a.cedar`, `A.cedar`, "no name of a bundle's file"},
		{goodManifest, zeros, `00`, "digest of a.cedar"},
		{goodManifest, zeros, strings.Repeat("A", 64), "digest of a.cedar"},
		{goodTools, `"t"`, `"T"`, "the name"},
		{goodTools, `"t"`, `"t-t"`, "the name"},
		{goodTools, `"d"`, `""`, "description"},
		{goodTools, `"d"`, `"` + strings.Repeat("d", 2001) + `"`, "description"},
		{goodTools, `true`, `false`, "builtin"},
		{goodTools, `"builtin":true,`, ``, "builtin"},
		{goodTools, `"sandbox"`, `"pay"`, "effect"},
		{goodTools, `"world"`, `"system"`, "output"},
		{goodTools, `{"type": "object"}`, `[]`, "schema"},
		{goodTools, `{"type": "object"}`, `{"type":"string"}`, "schema"},
		{goodTools, `{"type": "object"}`, `{"type":"object","properties":[]}`, "schema"},
		{goodTools, `,"schema":{"type": "object"}`, ``, "schema"},
		{goodTools, `}]}`, strings.Repeat(`},`+goodTools[len(`{"version":1,"tools":[`):len(goodTools)-3], 1) + `}]}`, "stands twice"},
		{goodProfile, `kata`, `runc`, "tier"},
		{goodProfile, `1073741824`, `1`, "memory_bytes: must be from"},
		{goodProfile, `1073741824`, `1e9`, "memory_bytes"},
		{goodProfile, `256`, `0`, "processes"},
		{goodProfile, `1048576`, `0`, "upper_bytes"},
		{goodProfile, `60`, `-60`, "timeout_seconds"},
		{goodProfile, `,"max_output_bytes":4096`, ``, "max_output_bytes"},
	}
	for _, test := range tests {
		err := parsers[test.good](strings.Replace(test.good, test.old, test.new, 1))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s instead of %s: got %v, want %q", test.new, test.old, err, test.want)
		}
	}
	tools, err := policy.ParseTools([]byte(goodTools))
	if err != nil {
		t.Fatal(err)
	}
	want := []policy.Tool{{Name: "t", Description: "d", Schema: json.RawMessage(`{"type":"object"}`), Builtin: true, Effect: "sandbox", Output: "world"}}
	if diff := cmp.Diff(want, tools); diff != "" {
		t.Error(diff)
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(goodManifest))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := policy.ParseManifest(b); err == nil && (m.Serial == 0 || m.NotBefore.IsZero() || !m.Expires.After(m.NotBefore)) {
			t.Errorf("got %+v", m)
		}
	})
}

func FuzzParseTools(f *testing.F) {
	f.Add([]byte(goodTools))
	f.Fuzz(func(t *testing.T, b []byte) {
		tools, _ := policy.ParseTools(b)
		for _, tool := range tools {
			if !json.Valid(tool.Schema) || tool.Name == "" || tool.Effect != policy.EffectSandbox {
				t.Errorf("got %+v", tool)
			}
		}
	})
}

func FuzzParseProfile(f *testing.F) {
	f.Add([]byte(goodProfile))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := policy.ParseProfile(b); err == nil && (!p.Accepts("kata") || p.MemoryBytes <= 0) {
			t.Errorf("got %+v", p)
		}
	})
}

// FuzzCheck feeds policies to Cedar's parser and validator through the bundle.
func FuzzCheck(f *testing.F) {
	f.Add([]byte(`@id("a") @approval("confirm") @reason("r") permit (principal is User, action in [Action::"ask"], resource) when { principal.uid < 5 && context has tier } unless { if context.world then true else !context.private };`))
	f.Fuzz(func(t *testing.T, b []byte) {
		files := smallFiles()
		files["p.cedar"] = b
		_ = policy.Check(files)
	})
}

// FuzzSignature: nothing but the one signature of a manifest is taken for it.
func FuzzSignature(f *testing.F) {
	signer, allowed := newSigner(f, 1)
	good := sign(f, smallFiles(), manifest(1), signer)
	f.Add(good[policy.SignatureFile])
	f.Fuzz(func(t *testing.T, b []byte) {
		files := smallFiles()
		files[policy.ManifestFile], files[policy.SignatureFile] = good[policy.ManifestFile], b
		_, err := policy.Load(folder(files), allowed, policy.LoadOptions{Now: now})
		same := strings.ReplaceAll(string(b), "\n", "") == strings.ReplaceAll(string(good[policy.SignatureFile]), "\n", "")
		if err == nil && !same {
			t.Errorf("taken: %q", b)
		}
	})
}
