package audit

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/auditproof"
)

// lockWait is how long a start waits for the audit role before it to end.
const lockWait = 5 * time.Second

// recheck is how many of the newest signed records a start reads and hashes.
const recheck = 1024

// open takes the folder over: begins a log, or checks the one that is there; see the package comment.
func open(dir string) (_ *log, err error) {
	l := &log{sync: (*os.File).Sync}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.root, err = os.OpenRoot(dir); err != nil {
		return nil, fmt.Errorf("cannot open the audit folder: %w", err)
	}
	if l.lock, err = lock(l.root); err != nil {
		return nil, err
	}
	if l.signer, l.public, err = loadKey(l.root); err != nil {
		return nil, err
	}
	msg, err := readSmall(l.root, auditproof.CheckpointFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read the checkpoint: %w", err)
	}
	if msg == nil {
		return nil, refused("its checkpoint is missing")
	}
	c, err := auditproof.Open(msg, l.public)
	if err != nil {
		return nil, refused("%w", err)
	}
	if l.records, err = l.root.OpenFile(auditproof.RecordsFile, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("cannot open the audit log's records: %w", err)
	}
	if l.hashes, err = l.root.OpenFile(auditproof.HashesFile, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("cannot open the audit log's hashes: %w", err)
	}
	if err := l.check(c); err != nil {
		return nil, err
	}
	return l, l.recover(c.Size)
}

func lock(root *os.Root) (*os.File, error) {
	d, err := root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("cannot open the audit folder: %w", err)
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(20 * time.Millisecond) {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			d.Close()
			return nil, fmt.Errorf("cannot lock the audit folder: %w: if another closedpawd uses it, stop that one", err)
		}
	}
}

// check sets the log's state to that of checkpoint c, if the files agree with it.
func (l *log) check(c auditproof.Checkpoint) error {
	quick := l.checkEdge(c)
	if quick == nil {
		return nil
	}
	slog.Warn("the audit log is read as a whole, as the quick check failed", "why", quick)
	return l.checkAll(c)
}

// checkEdge is the quick check. Any trouble is left to checkAll to judge.
func (l *log) checkEdge(c auditproof.Checkpoint) error {
	t, err := auditproof.LoadTree(c.Size, l.hashReader())
	if err != nil {
		return err
	}
	if t.Checkpoint() != c {
		return errors.New("the stored hashes do not give the signed one")
	}
	st, err := l.records.Stat()
	if err != nil {
		return err
	}
	from := max(0, c.Size-recheck)
	offset, err := l.offset(from, st.Size())
	if err != nil {
		return err
	}
	lines := auditproof.NewLines(io.NewSectionReader(l.records, offset, st.Size()-offset), from)
	for n := from; n < c.Size; n++ {
		line, err := lines.Next()
		if err != nil {
			return err
		}
		if err := l.checkLeaf(n, line); err != nil {
			return err
		}
	}
	l.tree, l.end = t, offset+lines.Size()
	return nil
}

// checkAll reads every signed record and makes hashes anew.
func (l *log) checkAll(c auditproof.Checkpoint) error {
	bad := int64(-1)
	// Whether the stored hashes are those of the checkpoint tells who is right where a record and its hash differ.
	stored, err := auditproof.LoadTree(c.Size, l.hashReader())
	trusted := err == nil && stored.Checkpoint() == c
	tmp, err := l.root.OpenFile(auditproof.HashesFile+".new", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("cannot make the log's hashes anew: %w", err)
	}
	defer func() { _ = l.root.Remove(auditproof.HashesFile + ".new") }() // if it is still there
	defer tmp.Close()
	w := bufio.NewWriterSize(tmp, 64<<10)
	t, end, err := auditproof.Rehash(io.NewSectionReader(l.records, 0, 1<<62), c.Size, func(i int64, h tlog.Hash) error {
		if trusted && bad < 0 {
			if level, n := tlog.SplitStoredHashIndex(i); level == 0 {
				if was, err := l.hashReader().ReadHashes([]int64{i}); err == nil && was[0] != h {
					bad = n
				}
			}
		}
		_, err := w.Write(h[:])
		return err
	})
	switch {
	case err != nil:
		return refused("%w", err)
	case t.Checkpoint() != c && bad >= 0:
		return refused("record %d is not what was written", bad)
	case t.Checkpoint() != c:
		return refused("its %d signed records are not what was signed: at least one was changed", c.Size)
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("cannot make the log's hashes anew: %w", err)
	}
	if err := tmp.Sync(); err != nil {
		return fmt.Errorf("cannot make the log's hashes anew: %w", err)
	}
	if err := l.root.Rename(auditproof.HashesFile+".new", auditproof.HashesFile); err != nil {
		return fmt.Errorf("cannot make the log's hashes anew: %w", err)
	}
	l.hashes.Close()
	if l.hashes, err = l.root.OpenFile(auditproof.HashesFile, os.O_RDWR, 0o600); err != nil {
		return fmt.Errorf("cannot open the audit log's hashes: %w", err)
	}
	l.tree, l.end = t, end
	return nil
}

// recover goes on behind the signed records: whole ones are kept, the rest is dropped.
func (l *log) recover(signed int64) error {
	st, err := l.records.Stat()
	if err != nil {
		return fmt.Errorf("cannot read the audit log's records: %w", err)
	}
	start := l.end
	lines := auditproof.NewLines(io.NewSectionReader(l.records, start, st.Size()-start), signed)
	for {
		line, err := lines.Next()
		if err == nil {
			_, err = ParseRecord(line)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			// What a power cut leaves of an unfinished write is no JSON. What is, was written as a whole, and not here.
			if json.Valid(line) && len(line) > 0 {
				return refused("behind the signed records, where record %d should be, stands a line that this closedpawd did not write: %w", l.tree.Size(), err)
			}
			break
		}
		if err := l.writeHashes(tlog.StoredHashCount(l.tree.Size()), l.tree.Add(tlog.RecordHash(line))); err != nil {
			return fmt.Errorf("cannot write the audit log's hashes: %w", err)
		}
		l.end = start + lines.Size()
	}
	dropped := st.Size() - l.end
	if err := l.truncate(); err != nil {
		return err
	}
	if l.tree.Size() > signed || dropped > 0 {
		if err := l.records.Sync(); err != nil {
			return fmt.Errorf("cannot sync the audit log: %w", err)
		}
		kept := l.tree.Size() - signed
		if _, err := l.commit([]api.AuditRecord{{UID: -1, Event: EventRecovered,
			Detail: fmt.Sprintf("kept and signed %d records behind the last checkpoint, dropped %d bytes that were never acknowledged", kept, dropped)}}); err != nil {
			return err
		}
	}
	l.signed = signed
	return l.sign()
}
