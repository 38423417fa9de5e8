package auditproof

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// ErrUnsigned means that all that is signed is good, but that records follow which are not signed yet. The audit role
// signs them within moments, or, if it was killed before, at its next start.
var ErrUnsigned = errors.New("records follow the last checkpoint that are not signed yet")

const restore = "restore the folder from a backup, or move it away to begin a new log"

// VerifyDir reads a log folder, or a copy of it, and says how many records are proven to be what was signed with the
// folder's own key.pub. It writes nothing and does not need the signing key.
func VerifyDir(dir string) (size int64, err error) {
	r, err := VerifyDirAgainst(dir, nil)
	if r != nil {
		size = r.Size
	}
	return size, err
}

// VerifyDirAgainst is VerifyDir that also compares the folder with what is remembered of its log; to check it
// against a known key only, remembered holds that key and nothing else. With ErrUnsigned the result is good too.
func VerifyDirAgainst(dir string, remembered *Remembered) (*Remembered, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open the log folder: %w", err)
	}
	defer root.Close()
	pub, err := readSmall(root, PublicKeyFile)
	if err != nil {
		return nil, err
	}
	key, ok := strings.CutSuffix(string(pub), "\n")
	if !ok {
		return nil, fmt.Errorf("%s is damaged: %s", PublicKeyFile, restore)
	}
	if remembered != nil {
		if err := remembered.sameKey(key); err != nil {
			return nil, err
		}
	}
	// The checkpoint is read before the records, so that a log which grows meanwhile is no error.
	msg, err := readSmall(root, CheckpointFile)
	if err != nil {
		return nil, err
	}
	c, err := Open(msg, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, restore)
	}
	if remembered != nil && c.Size < remembered.Size {
		return nil, remembered.broken(fmt.Sprintf("it has only %d now", c.Size))
	}
	f, err := root.Open(RecordsFile)
	if err != nil {
		return nil, fmt.Errorf("cannot open the records: %w: %s", err, restore)
	}
	defer f.Close()
	stored, err := openHashes(root)
	if err != nil {
		return nil, err
	}
	defer stored.close()
	if err := verifyRecords(f, c, remembered, stored); err != nil {
		return nil, err
	}
	return remember(key, c), unsigned(f, c.Size)
}

// verifyRecords reads the signed records. f stands behind them afterwards.
func verifyRecords(f *os.File, c Checkpoint, remembered *Remembered, stored *hashes) error {
	var old Tree // the tree as it grows, kept where it was remembered
	grow := func(index int64, h tlog.Hash) error {
		if remembered != nil && old.Size() < remembered.Size {
			if level, _ := tlog.SplitStoredHashIndex(index); level == 0 {
				old.Add(h)
			}
		}
		return stored.compare(h)
	}
	t, size, err := Rehash(f, c.Size, grow)
	if err != nil {
		return fmt.Errorf("%w: %s", err, restore)
	}
	if t.Checkpoint() != c {
		if n := stored.firstBad(); n >= 0 {
			return fmt.Errorf("record %d is not what was written, or %s was changed with it: the %d records do not have the hash that was signed: %s", n, HashesFile, c.Size, restore)
		}
		return fmt.Errorf("the %d records do not have the hash that was signed: at least one of them was changed: %s", c.Size, restore)
	}
	if remembered != nil && remembered.Size > 0 && old.Checkpoint() != (Checkpoint{remembered.Size, remembered.Hash}) {
		return remembered.broken("what stands there now has another hash")
	}
	if stored.firstBad() >= 0 {
		return fmt.Errorf("all %d records are what was signed, but the file %s is damaged: stop closedpawd and remove that file; it is made anew at the next start", c.Size, HashesFile)
	}
	_, err = f.Seek(size, io.SeekStart)
	return err
}

// unsigned looks at what follows the signed records. Half a line is nothing: it was never acknowledged.
func unsigned(f *os.File, next int64) error {
	lines := NewLines(f, next)
	for n := int64(0); ; n++ {
		switch _, err := lines.Next(); {
		case errors.Is(err, io.EOF) && n == 0:
			return nil
		case errors.Is(err, ErrTorn) && n == 0:
			return fmt.Errorf("half a record follows the %d that are signed and good: closedpawd drops it at its next start, as it was never acknowledged: %w", next, ErrUnsigned)
		case errors.Is(err, io.EOF) || errors.Is(err, ErrTorn):
			return fmt.Errorf("%d records are signed and good, %d more follow: %w: start closedpawd and verify again", next, n, ErrUnsigned)
		case err != nil:
			return fmt.Errorf("%d records are signed and good, but what follows them is no record: %w: start closedpawd, which drops what it never acknowledged, and verify again", next, err)
		}
	}
}

func readSmall(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing from the log folder: %s", name, restore)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the log folder: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxCheckpoint+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", name, err)
	}
	return b, nil
}

// hashes compares the stored hashes with those that were computed. The file is not needed to verify; without it, a
// changed record is found but not named.
type hashes struct {
	f     *os.File
	r     *bufio.Reader
	index int64
	bad   int64
}

func openHashes(root *os.Root) (*hashes, error) {
	f, err := root.Open(HashesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return &hashes{bad: -1}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the stored hashes: %w", err)
	}
	return &hashes{f: f, r: bufio.NewReaderSize(f, 64<<10), bad: -1}, nil
}

func (s *hashes) close() {
	if s.f != nil {
		s.f.Close()
	}
}

func (s *hashes) compare(h tlog.Hash) error {
	if s.r == nil {
		return nil
	}
	var was tlog.Hash
	if _, err := io.ReadFull(s.r, was[:]); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("cannot read the stored hashes: %w", err)
	}
	if was != h && s.bad < 0 {
		s.bad = s.index
	}
	s.index++
	return nil
}

// firstBad is the first record whose hash, or that of a subtree which it completes, is not the stored one; or -1.
func (s *hashes) firstBad() int64 {
	if s.bad < 0 {
		return -1
	}
	level, n := tlog.SplitStoredHashIndex(s.bad)
	return (n+1)<<level - 1
}
