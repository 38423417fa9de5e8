package policy_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/closedpaw/closedpaw/policy"
)

// keygen runs the real ssh-keygen.
func keygen(t *testing.T, stdin []byte, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("ssh-keygen", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func needKeygen(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("SKIPPED, LOUDLY: ssh-keygen is missing: apt install openssh-client")
	}
}

func writeFiles(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestOpenSSH signs with ssh-keygen what Load must take, and has ssh-keygen verify what Sign made.
func TestOpenSSH(t *testing.T) {
	needKeygen(t)
	tests := []struct {
		name  string
		args  []string
		taken bool
	}{
		{"ed25519", []string{"-t", "ed25519"}, true},
		{"ecdsa 256", []string{"-t", "ecdsa", "-b", "256"}, true},
		{"ecdsa 384", []string{"-t", "ecdsa", "-b", "384"}, true},
		{"ecdsa 521", []string{"-t", "ecdsa", "-b", "521"}, true},
		{"rsa 3072", []string{"-t", "rsa", "-b", "3072"}, true},
		{"rsa 2048", []string{"-t", "rsa", "-b", "2048"}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir, key := t.TempDir(), filepath.Join(t.TempDir(), "key")
			if out, err := keygen(t, nil, append(test.args, "-q", "-N", "", "-C", "an administrator", "-f", key)...); err != nil {
				t.Fatal(out)
			}
			private, err := os.ReadFile(key)
			if err != nil {
				t.Fatal(err)
			}
			signer, err := ssh.ParsePrivateKey(private)
			if err != nil {
				t.Fatal(err)
			}
			public, err := os.ReadFile(key + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			signers := append([]byte("# who may sign\n\nadmin@example.org namespaces=\"closedpaw-policy\" "), public...)
			signersFile := filepath.Join(t.TempDir(), "allowed_signers")
			if err := os.WriteFile(signersFile, signers, 0o644); err != nil {
				t.Fatal(err)
			}
			if !test.taken {
				if _, err := policy.ParseSigners(signers); err == nil || !strings.Contains(err.Error(), "3072") {
					t.Errorf("as a signer: got %v", err)
				}
				if _, err := policy.Sign(smallFiles(), manifest(1), signer); err == nil {
					t.Error("it signed")
				}
				return
			}

			files := sign(t, defaultFiles(t), manifest(1), signer)
			writeFiles(t, dir, files)
			options := policy.LoadOptions{Now: now}
			if _, err := policy.Load(os.DirFS(dir), signers, options); err != nil {
				t.Fatalf("our own signature: %v", err)
			}
			verify := []string{"-Y", "verify", "-f", signersFile, "-I", "admin@example.org", "-n", policy.Namespace, "-s", filepath.Join(dir, policy.SignatureFile)}
			if out, err := keygen(t, files[policy.ManifestFile], verify...); err != nil {
				t.Fatalf("ssh-keygen does not take our signature: %s", out)
			}
			if out, err := keygen(t, append(files[policy.ManifestFile], ' '), verify...); err == nil {
				t.Fatalf("ssh-keygen takes our signature for something else: %s", out)
			}

			for _, hash := range []string{"sha512", "sha256"} {
				resign(t, dir, key, policy.Namespace, hash)
				b, err := policy.Load(os.DirFS(dir), signers, options)
				if err != nil {
					t.Fatalf("a signature by ssh-keygen with %s: %v", hash, err)
				}
				if b.Signer() != "admin@example.org "+ssh.FingerprintSHA256(signer.PublicKey()) {
					t.Errorf("signer: got %q", b.Signer())
				}
			}
			resign(t, dir, key, "file", "sha512")
			if _, err := policy.Load(os.DirFS(dir), signers, options); !errors.Is(err, policy.ErrUnsigned) || !strings.Contains(err.Error(), `"file"`) {
				t.Errorf("another namespace: got %v", err)
			}
		})
	}
}

func resign(t *testing.T, dir, key, namespace, hash string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, policy.SignatureFile)); err != nil {
		t.Fatal(err)
	}
	if out, err := keygen(t, nil, "-Y", "sign", "-n", namespace, "-O", "hashalg="+hash, "-f", key, filepath.Join(dir, policy.ManifestFile)); err != nil {
		t.Fatal(out)
	}
}

// TestOpenSSHAgrees: what our parser of allowed_signers makes of options is what ssh-keygen makes of them.
func TestOpenSSHAgrees(t *testing.T) {
	needKeygen(t)
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if out, err := keygen(t, nil, "-t", "ed25519", "-q", "-N", "", "-f", key); err != nil {
		t.Fatal(out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	private, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	bundle := t.TempDir()
	files := sign(t, smallFiles(), manifest(1), signer)
	writeFiles(t, bundle, files)
	for _, options := range []string{
		"", `namespaces="closedpaw-policy" `, `NAMESPACES="closedpaw-policy" `, `namespaces="file" `, `namespaces="a,closedpaw-*,b" `,
		`namespaces="*,!closedpaw-policy" `, `namespaces="!file,*" `, `namespaces="closedpaw?policy" `, `namespaces="closedpaw-polic" `,
		`valid-after="20260701Z" `, `valid-after="20260702Z" `, `valid-before="20260702Z" `, `valid-before="20260701Z" `,
		`valid-before="202607011200Z" `, `valid-before="20260701115959Z" `, `valid-after="20260701120000Z",namespaces="closedpaw-policy" `,
		`valid-after="20260101Z",valid-before="20270101Z" `, `valid-after="20270101Z",valid-before="20260101Z" `,
		`namespaces=closedpaw-policy `, `namespaces="closedpaw-policy" , `, `nonsense `, `namespaces="a",namespaces="closedpaw-policy" `,
		`valid-before="20261301Z" `, `valid-before="2027Z" `, `valid-before="" `,
	} {
		signers := []byte("admin " + options + string(public))
		file := filepath.Join(dir, "allowed_signers")
		if err := os.WriteFile(file, signers, 0o644); err != nil {
			t.Fatal(err)
		}
		out, theirs := keygen(t, files[policy.ManifestFile], "-Y", "verify", "-f", file, "-I", "admin", "-n", policy.Namespace,
			"-s", filepath.Join(bundle, policy.SignatureFile), "-O", "verify-time="+now.Format("20060102150405")+"Z")
		_, ours := policy.Load(os.DirFS(bundle), signers, policy.LoadOptions{Now: now})
		if (ours == nil) != (theirs == nil) {
			t.Errorf("%q: we say %v, ssh-keygen says %s", options, ours, out)
		}
	}
}
