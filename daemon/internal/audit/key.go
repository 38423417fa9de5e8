package audit

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/closedpaw/closedpaw/client/auditproof"
)

// maxSmall bounds the key and checkpoint files in bytes.
const maxSmall = 1024

// readSmall returns nil for a file that is not there.
func readSmall(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxSmall+1))
}

// replace writes a file so that it is either the old one or the new one, on disk, whatever happens.
func replace(root *os.Root, name string, b []byte, mode os.FileMode) error {
	tmp := name + ".new"
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask is
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, root.Remove(tmp)) // half a file would eat the space that the next try needs
	}
	return root.Rename(tmp, name)
}

func syncDir(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// loadKey reads the log's key; at the very first start it begins the log. As the key is written last, a log that has
// records has a key, and one that has a key has a checkpoint.
func loadKey(root *os.Root) (signer note.Signer, public string, err error) {
	b, err := readSmall(root, auditproof.KeyFile)
	if err != nil {
		return nil, "", fmt.Errorf("cannot read the log's key: %w", err)
	}
	if b == nil {
		if b, err = begin(root); err != nil {
			return nil, "", err
		}
	}
	st, err := root.Stat(auditproof.KeyFile)
	if err != nil {
		return nil, "", fmt.Errorf("cannot read the log's key: %w", err)
	}
	if p := st.Mode().Perm(); p&0o077 != 0 {
		return nil, "", fmt.Errorf("%w: the signing key %q in the audit folder has mode %04o, others may have read it: "+
			"move the folder away to begin a new log, or, if you are sure, chmod 0600 the key", ErrRefused, auditproof.KeyFile, p)
	}
	signer, public, err = parseKey(string(b))
	if err != nil {
		return nil, "", refused("its signing key is malformed")
	}
	pub, err := readSmall(root, auditproof.PublicKeyFile)
	if err != nil {
		return nil, "", fmt.Errorf("cannot read the log's public key: %w", err)
	}
	if pub == nil || string(pub) != public+"\n" {
		return nil, "", refused("%s is not the public half of its signing key", auditproof.PublicKeyFile)
	}
	return signer, public, nil
}

// parseKey takes a key file only as begin writes it.
func parseKey(text string) (note.Signer, string, error) {
	parts := strings.SplitN(strings.TrimSuffix(text, "\n"), "+", 5) // PRIVATE, KEY, name, hash, and base64, which may hold a +
	seed, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(seed) != 1+ed25519.SeedSize { // the first byte is the algorithm
		return nil, "", errors.New("malformed")
	}
	private, public, err := encodeKey(ed25519.NewKeyFromSeed(seed[1:]))
	if err != nil || private != text {
		return nil, "", errors.New("malformed")
	}
	s, err := note.NewSigner(strings.TrimSuffix(text, "\n"))
	return s, public, err
}

func encodeKey(k ed25519.PrivateKey) (private, public string, err error) {
	public, err = note.NewEd25519VerifierKey(auditproof.KeyName, k.Public().(ed25519.PublicKey))
	if err != nil {
		return "", "", err
	}
	parts := strings.SplitN(public, "+", 3) // name, hash and base64
	seed := append([]byte{1}, k.Seed()...)
	return "PRIVATE+KEY+" + parts[0] + "+" + parts[1] + "+" + base64.StdEncoding.EncodeToString(seed) + "\n", public, nil
}

// begin makes an empty log. It refuses where there is one already.
func begin(root *os.Root) (key []byte, err error) {
	if st, err := root.Stat(auditproof.RecordsFile); err == nil && st.Size() > 0 {
		return nil, refused("its signing key is missing, but there are records")
	}
	old, err := readSmall(root, auditproof.CheckpointFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read the checkpoint: %w", err)
	}
	empty := new(auditproof.Tree).Checkpoint()
	if old != nil && !strings.HasPrefix(string(old), empty.Text()) { // not what a first start that was cut short leaves
		return nil, refused("its signing key and records are missing, but there is a checkpoint")
	}
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make the log's key: %w", err)
	}
	private, public, err := encodeKey(k)
	if err != nil {
		return nil, fmt.Errorf("cannot make the log's key: %w", err)
	}
	signer, err := note.NewSigner(strings.TrimSuffix(private, "\n"))
	if err != nil {
		return nil, fmt.Errorf("cannot make the log's key: %w", err)
	}
	msg, err := empty.Sign(signer)
	if err != nil {
		return nil, fmt.Errorf("cannot make the log's key: %w", err)
	}
	for _, f := range []struct {
		name string
		b    []byte
		mode os.FileMode
	}{
		{auditproof.PublicKeyFile, []byte(public + "\n"), 0o644},
		{auditproof.CheckpointFile, msg, 0o600},
		{auditproof.KeyFile, []byte(private), 0o600},
	} {
		if err := replace(root, f.name, f.b, f.mode); err != nil {
			return nil, fmt.Errorf("cannot begin an audit log: %w", err)
		}
		if err := syncDir(root); err != nil { // in this order on disk, too
			return nil, fmt.Errorf("cannot begin an audit log: %w", err)
		}
	}
	return []byte(private), nil
}
