package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/auditproof"
)

// log is the open folder. One goroutine commits, one signs, any number read.
type log struct {
	root            *os.Root
	lock            *os.File // the folder, locked while this process lives
	records, hashes *os.File
	signer          note.Signer
	public          string
	sync            func(*os.File) error // (*os.File).Sync; a test counts

	mu   sync.Mutex // over what follows
	tree *auditproof.Tree
	end  int64 // of the acknowledged records in bytes

	torn    bool       // the committer's: a failed batch could not be taken back yet
	signing sync.Mutex // serialises sign
	signed  int64      // the signer's: records that the checkpoint covers
}

func (l *log) close() {
	for _, c := range []io.Closer{l.records, l.hashes, l.lock, l.root} {
		switch c := c.(type) {
		case *os.File:
			if c != nil {
				c.Close()
			}
		case *os.Root:
			if c != nil {
				c.Close()
			}
		}
	}
}

// state is what is durable now.
func (l *log) state() (*auditproof.Tree, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tree.Clone(), l.end
}

// commit makes records durable, all or none, and returns the number of the first.
func (l *log) commit(batch []api.AuditRecord) (first int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot write the audit log: %w", err)
		}
	}()
	if err := l.present(); err != nil {
		return 0, err
	}
	if l.torn {
		if err := l.truncate(); err != nil {
			return 0, err
		}
	}
	tree, end := l.state()
	first = tree.Size()
	var buf bytes.Buffer
	var nodes []tlog.Hash
	for _, r := range batch {
		r.Seq, r.Time = tree.Size(), time.Now().UTC()
		line, err := EncodeRecord(r)
		if err != nil {
			return 0, err
		}
		buf.Write(line)
		buf.WriteByte('\n')
		nodes = append(nodes, tree.Add(tlog.RecordHash(line))...)
	}
	if _, err = l.records.WriteAt(buf.Bytes(), end); err == nil {
		if err = l.writeHashes(tlog.StoredHashCount(first), nodes); err == nil {
			err = l.sync(l.records)
		}
	}
	if err != nil {
		return 0, errors.Join(err, l.truncate())
	}
	l.mu.Lock()
	l.tree, l.end = tree, end+int64(buf.Len())
	l.mu.Unlock()
	return first, nil
}

// present makes sure that the records go where a reader of the folder will look: a file that was removed or replaced
// would still take them.
func (l *log) present() error {
	at, err := l.root.Stat(auditproof.RecordsFile)
	if err != nil {
		return fmt.Errorf("its records were removed while it was open: stop closedpawd first, then move the folder away: %w", err)
	}
	open, err := l.records.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(at, open) {
		return errors.New("its records were replaced while it was open: put the old file back, or stop closedpawd first")
	}
	return nil
}

// truncate takes back what was written behind the acknowledged records. Until that is done nothing may be
// written: a shorter line could end exactly where a line that was taken back begins, and would bring it back.
func (l *log) truncate() error {
	l.torn = true
	if err := l.records.Truncate(l.end); err != nil {
		return fmt.Errorf("cannot take an unfinished write back: %w", err)
	}
	if err := l.hashes.Truncate(tlog.StoredHashCount(l.tree.Size()) * tlog.HashSize); err != nil {
		return fmt.Errorf("cannot take an unfinished write back: %w", err)
	}
	l.torn = false
	return nil
}

func (l *log) writeHashes(index int64, nodes []tlog.Hash) error {
	b := make([]byte, 0, len(nodes)*tlog.HashSize)
	for _, h := range nodes {
		b = append(b, h[:]...)
	}
	_, err := l.hashes.WriteAt(b, index*tlog.HashSize)
	return err
}

func (l *log) hashReader() tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hs := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			if _, err := l.hashes.ReadAt(hs[i][:], index*tlog.HashSize); err != nil {
				return nil, fmt.Errorf("cannot read a stored hash: %w", err)
			}
		}
		return hs, nil
	})
}

// sign replaces the checkpoint, if there is something new. What it covers is on disk before.
func (l *log) sign() error {
	l.signing.Lock()
	defer l.signing.Unlock()
	tree, _ := l.state()
	if tree.Size() == l.signed {
		return nil
	}
	msg, err := tree.Checkpoint().Sign(l.signer)
	if err != nil {
		return fmt.Errorf("cannot sign the checkpoint: %w", err)
	}
	if err := l.hashes.Sync(); err != nil {
		return fmt.Errorf("cannot sync the audit log's hashes: %w", err)
	}
	if err := replace(l.root, auditproof.CheckpointFile, msg, 0o600); err != nil {
		return fmt.Errorf("cannot replace the checkpoint: %w", err)
	}
	l.signed = tree.Size()
	return nil
}
