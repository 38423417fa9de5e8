package auditproof

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// maxRemembered bounds the file of a remembered checkpoint in bytes.
const maxRemembered = 4096

// Remembered is what a client keeps of the last checkpoint that it has verified. One with Size 0 says only with which
// key the log must be signed.
type Remembered struct {
	Key  string    `json:"key"` // the note's verifier key
	Size int64     `json:"size"`
	Hash tlog.Hash `json:"hash"`
	Time time.Time `json:"time"` // when it was verified
}

type rememberedFile struct {
	Version int `json:"version"` // 1
	Remembered
}

func (r *Remembered) sameKey(key string) error {
	if key == r.Key {
		return nil
	}
	return fmt.Errorf("the log is signed with key %s, but %s was %s: the log was replaced by another one; if you did that "+
		"yourself, remove the remembered checkpoint and verify again", short(key), r.when(), short(r.Key))
}

func (r *Remembered) broken(found string) error {
	return fmt.Errorf("the log no longer contains the first %d records that it had %s: %s: it was rewritten, or an older copy "+
		"was put back; keep the folder and its backups for whoever investigates", r.Size, r.when(), found)
}

func (r *Remembered) when() string {
	if r.Time.IsZero() {
		return "before"
	}
	return "on " + r.Time.UTC().Format("2006-01-02 15:04:05 MST")
}

// LoadRemembered reads what SaveRemembered wrote. A file that is not there yet gives nil and no error.
func LoadRemembered(path string) (*Remembered, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the remembered checkpoint: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRemembered+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the remembered checkpoint: %w", err)
	}
	r, err := ParseRemembered(b)
	if err != nil {
		return nil, fmt.Errorf("the remembered checkpoint %s is damaged: %w: restore it from a backup; without it an old change of the log cannot be found", path, err)
	}
	return r, nil
}

// ParseRemembered parses the file strictly.
func ParseRemembered(b []byte) (*Remembered, error) {
	if len(b) > maxRemembered {
		return nil, fmt.Errorf("it has more than %d bytes", maxRemembered)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var f rememberedFile
	if err := d.Decode(&f); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows it")
	}
	if f.Version != 1 {
		return nil, fmt.Errorf("its version is %d, not 1", f.Version)
	}
	if f.Size < 0 {
		return nil, errors.New("its size is negative")
	}
	if _, err := verifier(f.Key); err != nil {
		return nil, err
	}
	return &f.Remembered, nil
}

// SaveRemembered writes r, readable by its owner alone. The old file stays whole until the new one is on disk.
func SaveRemembered(path string, r *Remembered) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot remember the checkpoint: %w", err)
		}
	}()
	b, err := json.Marshal(rememberedFile{1, *r})
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(append(b, '\n')); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
