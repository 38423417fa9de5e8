package policy_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/closedpaw/closedpaw/policy"
)

// fido signs as a FIDO token does (openssh/PROTOCOL.u2f); ssh-keygen verifies it without one.
type fido struct {
	key    ed25519.PrivateKey
	public ssh.PublicKey
	flags  byte // 1: it was touched
}

func newFIDO(t *testing.T, flags byte) fido {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	public, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Type        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, key.Public().(ed25519.PublicKey), "ssh:"}))
	if err != nil {
		t.Fatal(err)
	}
	return fido{key, public, flags}
}

func (f fido) PublicKey() ssh.PublicKey { return f.public }

func (f fido) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	app, msg := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	state := []byte{f.flags, 0, 0, 0, 9}
	return &ssh.Signature{
		Format: ssh.KeyAlgoSKED25519,
		Blob:   ed25519.Sign(f.key, bytes.Join([][]byte{app[:], state, msg[:]}, nil)),
		Rest:   state,
	}, nil
}

func TestFIDO(t *testing.T) {
	needKeygen(t)
	touched := newFIDO(t, 1)
	signers := fmt.Appendf(nil, "admin namespaces=\"closedpaw-policy\" %s", ssh.MarshalAuthorizedKey(touched.public))
	files := sign(t, smallFiles(), manifest(1), touched)
	if _, err := policy.LoadFiles(files, signers, policy.LoadOptions{Now: now}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	writeFiles(t, dir, files)
	writeFiles(t, dir, map[string][]byte{"allowed_signers": signers})
	out, err := keygen(t, files[policy.ManifestFile], "-Y", "verify", "-f", filepath.Join(dir, "allowed_signers"), "-I", "admin", "-n", policy.Namespace,
		"-s", filepath.Join(dir, policy.SignatureFile))
	if err != nil {
		t.Fatal(out)
	}

	sig, err := sshsig.Sign(bytes.NewReader(files[policy.ManifestFile]), newFIDO(t, 0), sshsig.HashSHA512, policy.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	files[policy.SignatureFile] = sshsig.Armor(sig)
	if _, err := policy.LoadFiles(files, signers, policy.LoadOptions{Now: now}); !errors.Is(err, policy.ErrAltered) {
		t.Errorf("a key that nobody touched signed: got %v", err)
	}
}
