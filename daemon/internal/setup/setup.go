// Package setup makes what the daemon needs in its configuration folder and does not find there: the configuration,
// a key to sign the policy with, the file that says who may sign, and the default policy, signed.
//
// It guarantees that nothing that is there is ever changed or completed in part: a policy folder without a signature
// stays unsigned, a missing key is not replaced once allowed_signers names another, and after a crash in the middle
// each thing is either whole or missing. All that it relies on belongs to root and is writable by nobody else.
//
// It runs as root, before anything is served, and must never read what a user or the world wrote.
package setup

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/closedpaw/closedpaw/daemon/internal/config"
	"github.com/closedpaw/closedpaw/policy"
)

// Names below the configuration folder.
const (
	Config  = "config.json"
	Signers = "allowed_signers"
	Policy  = "policy"
	Keys    = "keys"
	Key     = "keys/policy_ed25519"
)

// validity is that of a signature made here. The key is on the machine that trusts it, so its end protects nobody;
// it is there because every policy has one.
const validity = 10 * 365 * 24 * time.Hour

// slack is how far before now a policy is valid: at its first start a machine's clock may be ahead.
const slack = 24 * time.Hour

// Ensure makes what is missing in etc and returns the paths of what it made.
func Ensure(etc string) (created []string, err error) {
	d, err := open(etc, true)
	if err != nil {
		return nil, err
	}
	defer d.close()
	for _, step := range []func() error{d.config, d.key, d.signers, d.policy} {
		if err := step(); err != nil {
			return d.created, err
		}
	}
	return d.created, d.check()
}

// Sign signs the policy in etc as it is now, with the key that Ensure made and a higher serial. What is no policy that
// could be used is not signed.
func Sign(etc string) error {
	d, err := open(etc, false)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.check(); err != nil {
		return err
	}
	signer, err := d.readKey()
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot sign the policy: there is no key %s; sign with your own: ssh-keygen -Y sign -n %s -f KEY %s",
			d.path(Key), policy.Namespace, d.path(Policy, policy.ManifestFile))
	}
	if err != nil {
		return err
	}
	files, err := policy.ReadFolder(os.DirFS(d.path(Policy)))
	if err != nil {
		return err
	}
	if files, err = d.sign(files, signer, time.Now()); err != nil {
		return err
	}
	// A crash between the two leaves a signature that does not fit: the daemon says so, and to sign again mends it.
	for _, name := range []string{policy.ManifestFile, policy.SignatureFile} {
		if err := d.write(filepath.Join(Policy, name), files[name], 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (d *dir) config() error {
	if there, err := d.there(Config); there || err != nil {
		return err
	}
	b, err := config.Default().Encode()
	if err != nil {
		return err
	}
	return d.make(Config, b, 0o644)
}

// key makes a key pair, unless somebody else is trusted already: nobody would ask for its signatures.
func (d *dir) key() error {
	if err := d.folder(Keys, 0o700); err != nil {
		return err
	}
	there, err := d.there(Key)
	if err != nil {
		return err
	}
	if trusted, err := d.there(Signers); err != nil || trusted && !there {
		return err
	}
	if !there {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return fmt.Errorf("cannot make a key: %w", err)
		}
		block, err := ssh.MarshalPrivateKey(private, "closedpaw policy")
		if err != nil {
			return fmt.Errorf("cannot encode a key: %w", err)
		}
		if err := d.make(Key, pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	if there, err := d.there(Key + ".pub"); there || err != nil {
		return err
	}
	signer, err := d.readKey()
	if err != nil {
		return err
	}
	line := strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(signer.PublicKey())), "\n") + " closedpaw policy\n"
	return d.make(Key+".pub", []byte(line), 0o600)
}

func (d *dir) signers() error {
	if there, err := d.there(Signers); there || err != nil {
		return err
	}
	signer, err := d.readKey()
	if err != nil {
		return err
	}
	text := fmt.Sprintf("# Who may sign ClosedPaw's policy; ssh-keygen(1) has the format under ALLOWED SIGNERS.\n"+
		"# Times must end in Z. To revoke a key, keep its line and add valid-before=\"YYYYMMDDZ\".\n"+
		"policy namespaces=%q %s", policy.Namespace, ssh.MarshalAuthorizedKey(signer.PublicKey()))
	return d.make(Signers, []byte(text), 0o644)
}

func (d *dir) policy() error {
	if there, err := d.there(Policy); there || err != nil {
		return err
	}
	signer, err := d.readKey()
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot make the policy %s: there is no key %s to sign it with; put a signed policy there, or remove %s to begin anew",
			d.path(Policy), d.path(Key), d.path(Signers))
	}
	if err != nil {
		return err
	}
	files, err := policy.Default()
	if err != nil {
		return err
	}
	if files, err = d.sign(files, signer, time.Now()); err != nil {
		return err
	}
	return d.makeFolder(Policy, files)
}

// sign makes a bundle of files and makes sure that the daemon will take it. Its serial is the Unix time, or one more
// than that of the manifest among files if this is higher: so it is above every earlier one even where an old folder
// was put back or the folder was removed.
func (d *dir) sign(files map[string][]byte, signer ssh.Signer, now time.Time) (map[string][]byte, error) {
	serial := uint64(now.Unix())
	if old, err := policy.ParseManifest(files[policy.ManifestFile]); err == nil {
		serial = max(serial, old.Serial+1)
	}
	files, err := policy.Sign(files, policy.Manifest{Serial: serial, NotBefore: now.Add(-slack), Expires: now.Add(validity)}, signer)
	if err != nil {
		return nil, err
	}
	signers, err := os.ReadFile(d.path(Signers))
	if err != nil {
		return nil, fmt.Errorf("cannot read who may sign: %w", err)
	}
	if _, err := policy.LoadFiles(files, signers, policy.LoadOptions{Now: now, MinSerial: serial}); err != nil {
		return nil, fmt.Errorf("cannot sign the policy with %s: %w", d.path(Key), err)
	}
	return files, nil
}

func (d *dir) readKey() (ssh.Signer, error) {
	b, err := os.ReadFile(d.path(Key))
	if err != nil {
		return nil, fmt.Errorf("cannot read the key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("cannot use the key %s: %w", d.path(Key), err)
	}
	return signer, nil
}
