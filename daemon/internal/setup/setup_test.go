package setup_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/closedpaw/closedpaw/daemon/internal/config"
	"github.com/closedpaw/closedpaw/daemon/internal/setup"
	"github.com/closedpaw/closedpaw/policy"
)

func ensure(t *testing.T, etc string) []string {
	t.Helper()
	created, err := setup.Ensure(etc)
	if err != nil {
		t.Fatal(err)
	}
	for i := range created {
		created[i], _ = filepath.Rel(filepath.Dir(etc), created[i])
	}
	return created
}

func load(etc string) (*policy.Bundle, error) {
	signers, err := os.ReadFile(filepath.Join(etc, setup.Signers))
	if err != nil {
		return nil, err
	}
	return policy.Load(os.DirFS(filepath.Join(etc, setup.Policy)), signers, policy.LoadOptions{Now: time.Now()})
}

// tree is what lies in a folder: mode and content by path.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		var b []byte
		if st.Mode().IsRegular() {
			b, err = os.ReadFile(path)
		}
		name, _ := filepath.Rel(root, path)
		all[name] = st.Mode().String() + "\n" + string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEnsure(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	etc := filepath.Join(t.TempDir(), "etc")
	created := ensure(t, etc)
	want := []string{"etc", "etc/config.json", "etc/keys", "etc/keys/policy_ed25519", "etc/keys/policy_ed25519.pub", "etc/allowed_signers", "etc/policy"}
	if diff := cmp.Diff(want, created); diff != "" {
		t.Error(diff)
	}
	b, err := load(etc)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Tools()) != 3 || b.Serial() == 0 || !strings.HasPrefix(b.Signer(), "policy SHA256:") {
		t.Errorf("got %d tools, serial %d, signer %q", len(b.Tools()), b.Serial(), b.Signer())
	}
	text, err := os.ReadFile(filepath.Join(etc, setup.Config))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := config.Parse(text); err != nil || c != config.Default() {
		t.Errorf("config: got %+v, %v", c, err)
	}
	before := tree(t, etc)
	for name, mode := range map[string]string{".": "drwxr-xr-x", "config.json": "-rw-r--r--", "keys": "drwx------", "keys/policy_ed25519": "-rw-------",
		"keys/policy_ed25519.pub": "-rw-------", "allowed_signers": "-rw-r--r--", "policy": "drwxr-xr-x", "policy/who.cedar": "-rw-r--r--", "policy/manifest.json.sig": "-rw-r--r--"} {
		if got, _, _ := strings.Cut(before[name], "\n"); got != mode {
			t.Errorf("%s: got mode %s, want %s", name, got, mode)
		}
	}
	if created := ensure(t, etc); created != nil {
		t.Errorf("the second time: made %q", created)
	}
	if diff := cmp.Diff(before, tree(t, etc)); diff != "" {
		t.Errorf("the second time changed something: %s", diff)
	}
}

// TestEnsureMissing: each thing comes back alone, and nothing else changes.
func TestEnsureMissing(t *testing.T) {
	for name, want := range map[string][]string{
		"config.json":             {"etc/config.json"},
		"keys/policy_ed25519.pub": {"etc/keys/policy_ed25519.pub"},
		"allowed_signers":         {"etc/allowed_signers"},
		"policy":                  {"etc/policy"},
		"keys":                    {"etc/keys"}, // and no key: nobody would trust it
	} {
		t.Run(name, func(t *testing.T) {
			etc := filepath.Join(t.TempDir(), "etc")
			ensure(t, etc)
			if err := os.RemoveAll(filepath.Join(etc, name)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, ensure(t, etc)); diff != "" {
				t.Error(diff)
			}
			if _, err := load(etc); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEnsureLeavesAlone(t *testing.T) {
	etc := filepath.Join(t.TempDir(), "etc")
	ensure(t, etc)
	remove(t, etc, "policy/manifest.json.sig")
	write(t, etc, "config.json", "{broken")
	before := tree(t, etc)
	ensure(t, etc)
	if diff := cmp.Diff(before, tree(t, etc)); diff != "" {
		t.Error(diff)
	}
	if _, err := load(etc); !errors.Is(err, policy.ErrUnsigned) {
		t.Errorf("got %v", err)
	}

	// The administrator's own signer, whose key is elsewhere: no policy can be made here.
	if err := errors.Join(os.RemoveAll(filepath.Join(etc, "policy")), os.RemoveAll(filepath.Join(etc, "keys"))); err != nil {
		t.Fatal(err)
	}
	if _, err := setup.Ensure(etc); err == nil || !strings.Contains(err.Error(), "put a signed policy there") {
		t.Errorf("got %v", err)
	}
	if err := setup.Sign(etc); err == nil {
		t.Error("signed without a key")
	}
}

// TestEnsureUntrusted: a key that allowed_signers does not name makes no policy.
func TestEnsureUntrusted(t *testing.T) {
	etc, other := filepath.Join(t.TempDir(), "etc"), filepath.Join(t.TempDir(), "etc")
	ensure(t, etc)
	ensure(t, other)
	signers, err := os.ReadFile(filepath.Join(other, setup.Signers))
	if err != nil {
		t.Fatal(err)
	}
	write(t, etc, "allowed_signers", string(signers))
	if err := setup.Sign(etc); !errors.Is(err, policy.ErrSigner) {
		t.Errorf("sign: got %v", err)
	}
	if err := os.RemoveAll(filepath.Join(etc, "policy")); err != nil {
		t.Fatal(err)
	}
	if _, err := setup.Ensure(etc); !errors.Is(err, policy.ErrSigner) {
		t.Errorf("ensure: got %v", err)
	}
	if _, err := os.Lstat(filepath.Join(etc, "policy")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a policy is there")
	}
}

// TestUnfinished: what a crash left is taken for nothing, and goes.
func TestUnfinished(t *testing.T) {
	etc := filepath.Join(t.TempDir(), "etc")
	ensure(t, etc)
	want := tree(t, etc)
	if err := os.Mkdir(filepath.Join(etc, ".setup-folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, etc, ".setup-folder/who.cedar", "half a pol")
	write(t, etc, ".setup-file", "{")
	ensure(t, etc)
	if diff := cmp.Diff(want, tree(t, etc)); diff != "" {
		t.Error(diff)
	}
}

func TestUnsafe(t *testing.T) {
	chmod := func(name string, mode fs.FileMode) func(*testing.T, string) {
		return func(t *testing.T, etc string) {
			if err := os.Chmod(filepath.Join(etc, name), mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	chown := func(name string) func(*testing.T, string) {
		return func(t *testing.T, etc string) {
			if os.Geteuid() != 0 {
				t.Skip("SKIPPED, LOUDLY: needs root")
			}
			if err := os.Lchown(filepath.Join(etc, name), 1000, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	link := func(name string) func(*testing.T, string) {
		return func(t *testing.T, etc string) {
			path := filepath.Join(etc, name)
			if err := errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path)); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name   string
		change func(*testing.T, string)
		want   string
	}{
		{"etc writable", chmod(".", 0o775), "others may write to it: chmod go-w"},
		{"etc sticky", chmod(".", 0o777|fs.ModeSticky), "others may write to it"},
		{"etc another's", chown("."), "must belong to root: chown root"},
		{"etc a link", link("."), "not a folder"},
		{"policy writable", chmod("policy", 0o757), "others may write"},
		{"policy another's", chown("policy"), "must belong to root"},
		{"policy a link", link("policy"), "not a folder"},
		{"keys readable", chmod("keys", 0o750), "chmod go-rwx"},
		{"key readable", chmod("keys/policy_ed25519", 0o640), "chmod go-rwx"},
		{"key another's", chown("keys/policy_ed25519"), "must belong to root"},
		{"config writable", chmod("config.json", 0o664), "others may write"},
		{"config a link", link("config.json"), "not a regular file"},
		{"signers writable", chmod("allowed_signers", 0o646), "others may write"},
		{"signers another's", chown("allowed_signers"), "must belong to root"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			etc := filepath.Join(t.TempDir(), "etc")
			ensure(t, etc)
			test.change(t, etc)
			for name, do := range map[string]func() error{
				"ensure": func() error { _, err := setup.Ensure(etc); return err },
				"sign":   func() error { return setup.Sign(etc) },
			} {
				if err := do(); err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%s: got %v, want %q", name, err, test.want)
				}
			}
		})
	}
}

func TestSign(t *testing.T) {
	etc := filepath.Join(t.TempDir(), "etc")
	if err := setup.Sign(etc); err == nil {
		t.Error("signed nothing")
	}
	ensure(t, etc)
	last := mustLoad(t, etc)
	for range 3 {
		if err := setup.Sign(etc); err != nil {
			t.Fatal(err)
		}
		next := mustLoad(t, etc)
		if next.Serial() <= last.Serial() {
			t.Fatalf("serial %d after %d", next.Serial(), last.Serial())
		}
		last = next
	}

	write(t, etc, "policy/mine.cedar", `@id("mine") @reason("not today") forbid (principal, action == Action::"ask", resource);`)
	if _, err := load(etc); !errors.Is(err, policy.ErrAltered) {
		t.Errorf("got %v", err)
	}
	if err := setup.Sign(etc); err != nil {
		t.Fatal(err)
	}
	d := mustLoad(t, etc).Decide(policy.Request{User: policy.User{UID: 1000, Person: true}, Action: policy.ActionAsk, Resource: policy.Daemon{}})
	if d.Effect != policy.Deny || d.Reason != "not today" {
		t.Errorf("got %+v", d)
	}

	before := tree(t, etc)
	write(t, etc, "policy/mine.cedar", `permit (everything)`)
	if err := setup.Sign(etc); !errors.Is(err, policy.ErrInvalid) || !strings.Contains(err.Error(), "mine.cedar") {
		t.Errorf("got %v", err)
	}
	if after := tree(t, etc); after["policy/manifest.json"] != before["policy/manifest.json"] {
		t.Error("a bad policy was signed")
	}
	remove(t, etc, "policy/mine.cedar")

	write(t, etc, "policy/manifest.json", "{")
	remove(t, etc, "policy/manifest.json.sig")
	if err := setup.Sign(etc); err != nil {
		t.Fatal(err)
	}
	mustLoad(t, etc)
}

func TestTogether(t *testing.T) {
	etc := filepath.Join(t.TempDir(), "etc")
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if _, err := setup.Ensure(etc); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	mustLoad(t, etc)
}

// TestOpenSSH: the key, the signature and allowed_signers are what the real ssh-keygen takes.
func TestOpenSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("SKIPPED, LOUDLY: ssh-keygen is missing: apt install openssh-client")
	}
	etc := filepath.Join(t.TempDir(), "etc")
	ensure(t, etc)
	path := func(name string) string { return filepath.Join(etc, name) }
	run := func(stdin []byte, args ...string) string {
		t.Helper()
		cmd := exec.Command("ssh-keygen", args...)
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("ssh-keygen %q: %s", args, out)
		}
		return string(out)
	}
	public, err := os.ReadFile(path(setup.Key + ".pub"))
	if err != nil {
		t.Fatal(err)
	}
	if got := run(nil, "-y", "-f", path(setup.Key)); got != string(public) {
		t.Errorf("the public key is %q, ssh-keygen says %q", public, got)
	}
	manifest, err := os.ReadFile(path("policy/manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	run(manifest, "-Y", "verify", "-f", path(setup.Signers), "-I", "policy", "-n", policy.Namespace, "-s", path("policy/manifest.json.sig"))

	remove(t, etc, "policy/manifest.json.sig")
	run(nil, "-Y", "sign", "-n", policy.Namespace, "-f", path(setup.Key), path("policy/manifest.json"))
	mustLoad(t, etc)
}

func mustLoad(t *testing.T, etc string) *policy.Bundle {
	t.Helper()
	b, err := load(etc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, etc, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(etc, name), fmt.Append(nil, text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, etc, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(etc, name)); err != nil {
		t.Fatal(err)
	}
}
