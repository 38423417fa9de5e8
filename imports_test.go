// Package closedpaw_test holds what the tree as a whole must keep to: which package may import which, and where the
// dangerous things may stand.
package closedpaw_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/closedpaw/closedpaw/"

type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Deps       []string
}

func list(t *testing.T) map[string]pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Standard,Imports,Deps", "-deps", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string]pkg{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(p.ImportPath, module)] = p
	}
}

// below says whether p is dir or lies in it.
func below(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

// Every edge that must not be, with the reason. A pattern matches a package and what lies below it.
func TestForbiddenImports(t *testing.T) {
	all := list(t)
	const ours = "github.com/closedpaw/closedpaw"
	rules := []struct{ from, to, why string }{
		{"client", "daemon", "the unprivileged side must not contain the privileged one"},
		{"policy", "client", "policy is a pure library that anyone may use"},
		{"policy", "daemon", "policy is a pure library that anyone may use"},
		{"policy", "os", "policy reads nothing by itself"},
		{"policy", "os/exec", "policy starts nothing"},
		{"client/api", ours, "the wire form depends on the standard library alone"},
		{"client", "gvisor.dev/gvisor", "a client does not speak with sandboxes"},
		{"client", "github.com/cedar-policy/cedar-go", "a client does not decide"},
		{"daemon/internal/launcher", "net/http", "what runs as root parses nothing from outside"},
		{"daemon/internal/launcher", "gvisor.dev/gvisor", "what runs as root starts sandboxes and speaks with none"},
		{"daemon/internal/launcher", "github.com/cedar-policy/cedar-go", "what runs as root decides nothing"},
		{"daemon/internal/launcher", module + "policy", "what runs as root decides nothing"},
		{"daemon/internal/agent", module + "daemon/internal/guard", "an agent asks and decides nothing"},
		{"daemon/internal/agent", "net/http", "an agent has no network"},
		{"daemon/internal/agent", "gvisor.dev/gvisor", "an agent has no sandbox"},
		{"daemon/internal/review", "net/http", "review has no network"},
		{"daemon/internal/review", "gvisor.dev/gvisor", "review has no sandbox"},
		{"daemon/internal/audit", "net/http", "audit has no network"},
		{"daemon/internal/audit", module + "policy", "audit records decisions and takes none"},
		{"daemon/internal/gateway", module + "daemon/internal/guard", "the gateway carries out what control granted"},
		{"daemon/internal/peer", module + "daemon/internal/guard", "identity comes before decisions"},
		{"daemon/internal/peer", module + "daemon/internal/audit", "identity comes before records"},
		{"daemon/internal/guard", module + "daemon/internal/session", "a decision does not depend on who asks for it"},
		{"daemon/internal/guard", module + "daemon/internal/route", "a decision does not depend on who asks for it"},
		{"daemon/internal/session", module + "daemon/internal/route", "sessions do not know how clients reach them"},
		{"daemon/internal/session", "net/http", "sessions do not know how clients reach them"},
		{"daemon/internal/sandbox", module + "daemon/internal/guard", "an engine does not decide what it runs"},
	}
	for from, p := range all {
		for _, r := range rules {
			if !below(from, r.from) || p.Standard {
				continue
			}
			for _, to := range p.Deps {
				if below(to, r.to) && !(r.to == "os" && !direct(p, to)) {
					t.Errorf("%s must not import %s: %s", from, to, r.why)
				}
			}
		}
	}
	for _, only := range []struct{ dep, by, why string }{
		{"gvisor.dev/gvisor", "daemon/internal/sandbox/runsc", "one package speaks gVisor's internal protocol"},
		{"github.com/cedar-policy/cedar-go", "policy", "one package speaks Cedar"},
	} {
		for from, p := range all {
			if p.Standard || !strings.HasPrefix(p.ImportPath, module) || below(from, only.by) || below(from, "daemon/runsc") {
				continue
			}
			for _, to := range p.Imports {
				if below(to, only.dep) {
					t.Errorf("%s must not import %s: %s", from, to, only.why)
				}
			}
		}
	}
}

func direct(p pkg, to string) bool { return slices.Contains(p.Imports, to) }

// What a file may hold, by what it says; tests are free.
func TestDangerousThingsHaveTheirPlace(t *testing.T) {
	rules := []struct {
		what *regexp.Regexp
		may  func(path string) bool
		why  string
	}{
		{regexp.MustCompile(`"unsafe"`), func(p string) bool { return strings.HasSuffix(p, "_unsafe.go") }, "unsafe stands in *_unsafe.go only"},
		{regexp.MustCompile(`"os/exec"`), func(p string) bool {
			return below(p, "daemon/internal/launcher") || !below(p, "daemon") && !below(p, "client") && !below(p, "policy")
		}, "in the daemon the launcher alone starts programs"},
		{regexp.MustCompile(`SO_PEERCRED|SO_PEERPIDFD`), func(p string) bool { return below(p, "daemon/internal/peer") || strings.HasPrefix(p, "client/peer_") },
			"the kernel is asked for identities in one place on each side"},
		{regexp.MustCompile(`TESTONLY|"--net-raw|allow-flag-override|"do"`), func(string) bool { return false }, "these flags of runsc take its walls down"},
	}
	err := filepath.WalkDir(".", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (strings.HasPrefix(e.Name(), ".") && p != "." || e.Name() == "bin" || e.Name() == "tools") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		for _, r := range rules {
			if m := r.what.Find(b); m != nil && !r.may(filepath.ToSlash(p)) {
				t.Errorf("%s holds %s: %s", p, m, r.why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
