package auditproof

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The files of a log folder.
const (
	RecordsFile    = "records"    // one JSON object a line; a leaf of the tree is a line without its newline
	HashesFile     = "hashes"     // the tree's nodes, 32 bytes each, where tlog.StoredHashIndex says; made anew when damaged
	CheckpointFile = "checkpoint" // the signed note
	KeyFile        = "key"        // the note's signing key, 0600
	PublicKeyFile  = "key.pub"    // its verifier key
)

// KeyName is the name in the log's note key.
const KeyName = "closedpaw-audit"

// origin is the first line of a checkpoint's text. Another form would have another origin.
const origin = "closedpaw audit\n"

// maxCheckpoint bounds a checkpoint in bytes; a real one has about 220.
const maxCheckpoint = 1024

// Checkpoint is the state of a log: so many records, and the hash of their tree.
type Checkpoint struct {
	Size int64
	Hash tlog.Hash
}

// Text is what gets signed: "closedpaw audit\nSIZE\nBASE64 HASH\n".
func (c Checkpoint) Text() string { return fmt.Sprintf("%s%d\n%s\n", origin, c.Size, c.Hash) }

// ParseText reads the text of a checkpoint. Only the exact form that Text writes is taken.
func ParseText(text string) (Checkpoint, error) {
	bad := errors.New("its text is not that of an audit checkpoint")
	rest, ok := strings.CutPrefix(text, origin)
	if !ok {
		return Checkpoint{}, bad
	}
	size, hash, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 {
		return Checkpoint{}, bad
	}
	h, err := tlog.ParseHash(strings.TrimSuffix(hash, "\n"))
	if err != nil {
		return Checkpoint{}, bad
	}
	c := Checkpoint{n, h}
	if c.Text() != text {
		return Checkpoint{}, bad
	}
	return c, nil
}

// Sign makes the signed checkpoint.
func (c Checkpoint) Sign(s note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: c.Text()}, s)
}

// Open checks that msg is a checkpoint signed with key, a verifier key, and by nobody else. There is one way to write a
// checkpoint: a changed byte is an error, even where base64 would not mind.
func Open(msg []byte, key string) (Checkpoint, error) {
	v, err := verifier(key)
	if err != nil {
		return Checkpoint{}, err
	}
	if len(msg) > maxCheckpoint {
		return Checkpoint{}, fmt.Errorf("the checkpoint has %d bytes, more than any has: it was changed", len(msg))
	}
	n, err := note.Open(msg, note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the checkpoint is not signed with the log's key %s: it was changed, or is another log's: %w", short(key), err)
	}
	c, err := ParseText(n.Text)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("the checkpoint is signed, but %w", err)
	}
	var again strings.Builder
	again.WriteString(n.Text + "\n")
	for _, s := range n.Sigs {
		b, _ := base64.StdEncoding.DecodeString(s.Base64) // note.Open has decoded it before
		again.WriteString("— " + s.Name + " " + base64.StdEncoding.EncodeToString(b) + "\n")
	}
	if again.String() != string(msg) {
		return Checkpoint{}, errors.New("the checkpoint is signed, but is not written as the audit role writes it: it was changed")
	}
	return c, nil
}

// verifier parses a verifier key; as keys are compared as strings, only their canonical form is taken.
func verifier(key string) (note.Verifier, error) {
	v, err := note.NewVerifier(key)
	if err == nil {
		var b []byte
		b, err = base64.StdEncoding.DecodeString(strings.SplitN(key, "+", 3)[2]) // base64 may hold a + itself
		if err == nil {
			var again string
			again, err = note.NewEd25519VerifierKey(v.Name(), b[1:])
			if err == nil && (again != key || v.Name() != KeyName) {
				err = errors.New("not in canonical form")
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the log's public key is malformed: it was changed: %w", err)
	}
	return v, nil
}

// short is a key as people compare it: name and hash.
func short(key string) string {
	if p := strings.SplitN(key, "+", 3); len(p) == 3 {
		return p[0] + "+" + p[1]
	}
	return "(malformed)"
}
