package auditproof

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
)

// MaxLine bounds a record's line in bytes, with its newline. The audit role bounds each field so that none is longer.
const MaxLine = 64 << 10

// ErrTorn means that the last line has no end.
var ErrTorn = errors.New("the last line is cut off")

// Lines reads the lines of a records file one by one, and checks their numbers.
type Lines struct {
	r    *bufio.Reader
	next int64
	size int64
}

// NewLines reads from r, where the line of record first begins.
func NewLines(r io.Reader, first int64) *Lines {
	return &Lines{r: bufio.NewReaderSize(r, MaxLine), next: first}
}

// Next returns the next line without its newline, good until the next call. At the end it returns io.EOF, behind which
// nothing follows, or ErrTorn; a line that is not the expected record's is an error of its own.
func (l *Lines) Next() ([]byte, error) {
	b, err := l.r.ReadSlice('\n')
	switch {
	case err == nil:
	case errors.Is(err, io.EOF) && len(b) == 0:
		return nil, io.EOF
	case errors.Is(err, io.EOF):
		return nil, ErrTorn
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("record %d has a line that is longer than any record", l.next)
	default:
		return nil, fmt.Errorf("cannot read record %d: %w", l.next, err)
	}
	l.size += int64(len(b))
	b = b[:len(b)-1]
	if n, ok := LineSeq(b); !ok || n != l.next {
		return b, fmt.Errorf("where record %d should be stands something else", l.next)
	}
	l.next++
	return b, nil
}

// Size is how many bytes the lines had that were returned.
func (l *Lines) Size() int64 { return l.size }

// LineSeq is the number that a line says it has.
func LineSeq(line []byte) (int64, bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"seq":`))
	if !ok {
		return 0, false
	}
	i := bytes.IndexByte(rest[:min(len(rest), 20)], ',')
	if i < 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(rest[:i]), 10, 64)
	return n, err == nil && n >= 0 && string(rest[:i]) == strconv.FormatInt(n, 10)
}

// Rehash reads the first size records from r and hashes them. node, if not nil, is given each node of the tree as it is
// complete, in the order of the stored hashes; an error of it ends the reading. The memory used does not depend on size.
func Rehash(r io.Reader, size int64, node func(index int64, h tlog.Hash) error) (t *Tree, bytes int64, err error) {
	t = new(Tree)
	lines := NewLines(r, 0)
	var index int64
	for t.Size() < size {
		line, err := lines.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, ErrTorn) {
			return nil, 0, fmt.Errorf("%d records were signed, but only %d whole ones are there: the others were cut off", size, t.Size())
		}
		if err != nil {
			return nil, 0, err
		}
		for _, h := range t.Add(tlog.RecordHash(line)) {
			if node != nil {
				if err := node(index, h); err != nil {
					return nil, 0, err
				}
			}
			index++
		}
	}
	return t, lines.Size(), nil
}
