package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/auditproof"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// Bounds of one answer to ReadAudit. scanBytes bounds the work where few records are the asked user's: the answer may
// then hold none and still have a Next.
const (
	maxLimit  = 1000
	pageBytes = 128 << 10
	scanBytes = 4 << 20
)

// checkLeaf compares a record's line with the hash that was stored when it was written.
func (l *log) checkLeaf(n int64, line []byte) error {
	was, err := l.hashReader().ReadHashes([]int64{tlog.StoredHashIndex(0, n)})
	if err != nil {
		return err
	}
	if was[0] != tlog.RecordHash(line) {
		return fmt.Errorf("record %d is not what was written", n)
	}
	return nil
}

// offset finds where the line of record n begins, in the first end bytes. As lines are numbered and bounded, halving the file
// finds it with some twenty reads; there is no index that could be wrong.
func (l *log) offset(n, end int64) (int64, error) {
	buf := make([]byte, auditproof.MaxLine+64) // a newline, and behind it a number
	lo, hi := int64(0), end                    // n's line begins in [lo, hi); a line begins at lo
	for hi-lo > 2*auditproof.MaxLine {
		mid := lo + (hi-lo)/2
		k, err := l.records.ReadAt(buf[:min(int64(len(buf)), end-mid)], mid)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("cannot read the records: %w", err)
		}
		i := bytes.IndexByte(buf[:k], '\n') + 1
		if i == 0 || i > auditproof.MaxLine {
			return 0, fmt.Errorf("in the audit log's records, near byte %d, there is no line", mid)
		}
		if i == k { // the last line: none begins behind mid
			hi = mid + 1
			continue
		}
		seq, ok := auditproof.LineSeq(buf[i:k])
		switch {
		case !ok:
			return 0, fmt.Errorf("in the audit log's records, near byte %d, there is no record", mid)
		case seq <= n:
			lo = mid + int64(i)
		default:
			hi = mid + int64(i)
		}
	}
	first, err := l.seqAt(lo, end)
	if err != nil {
		return 0, err
	}
	lines := auditproof.NewLines(io.NewSectionReader(l.records, lo, end-lo), first)
	for first < n {
		if _, err := lines.Next(); err != nil {
			return 0, errors.Join(fmt.Errorf("cannot find record %d", n), err)
		}
		first++
	}
	return lo + lines.Size(), nil
}

// seqAt is the number of the line that begins at offset.
func (l *log) seqAt(offset, end int64) (int64, error) {
	if offset == 0 {
		return 0, nil
	}
	var b [32]byte
	k, err := l.records.ReadAt(b[:min(32, end-offset)], offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("cannot read the records: %w", err)
	}
	n, ok := auditproof.LineSeq(b[:k])
	if !ok {
		return 0, fmt.Errorf("in the audit log's records, at byte %d, there is no record", offset)
	}
	return n, nil
}

// read answers ReadAudit. Each record that it returns has the hash that was stored for it.
func (l *log) read(q *role.ReadAudit) (*role.Records, error) {
	if q.After < -1 || q.UID < -1 || q.Limit < 0 {
		return nil, &role.Failed{Code: api.CodeBadRequest, Text: "a number is out of range"}
	}
	tree, end := l.state()
	a := &role.Records{Records: []api.AuditRecord{}, Next: -1, Size: tree.Size()}
	if q.After >= a.Size-1 {
		return a, nil
	}
	n := q.After + 1
	limit := min(q.Limit, maxLimit)
	if limit == 0 {
		limit = maxLimit
	}
	offset, err := l.offset(n, end)
	if err != nil {
		return nil, changed(err)
	}
	mine := fmt.Appendf(nil, `"uid":%d,`, q.UID) // within a string the quotes would be escaped
	lines := auditproof.NewLines(io.NewSectionReader(l.records, offset, end-offset), n)
	for size := 0; n < a.Size; n++ {
		if len(a.Records) == limit || lines.Size() > scanBytes {
			a.Next = n - 1
			break
		}
		line, err := lines.Next()
		if err != nil {
			return nil, changed(err)
		}
		if q.UID != -1 && !bytes.Contains(line, mine) {
			continue
		}
		if err := l.checkLeaf(n, line); err != nil {
			return nil, changed(err)
		}
		r, err := ParseRecord(line)
		if err != nil {
			return nil, changed(fmt.Errorf("record %d: %w", n, err))
		}
		b, err := json.Marshal(r) // no shorter than on the connection
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", n, err)
		}
		if size += len(b) + 1; size > pageBytes {
			a.Next = n - 1
			break
		}
		a.Records = append(a.Records, r)
	}
	return a, nil
}
