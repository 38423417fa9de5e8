package audit

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/auditproof"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// prove answers Prove: it reads and hashes the whole log, which may take long, while appends go on.
// Where the log is shorter than asked, the signed checkpoint alone says so.
func (l *log) prove(q *role.Prove, stop <-chan struct{}) (*role.Proof, error) {
	if q.Size < 0 {
		return nil, &role.Failed{Code: api.CodeBadRequest, Text: "a size is negative"}
	}
	tree, end := l.state()
	c := tree.Checkpoint()
	// The nodes that the proof needs are asked for with a dry run, and picked out as the records go by: they come
	// from what stands in the file now, not from what was stored.
	need := map[int64]tlog.Hash{}
	extends := q.Size > 0 && q.Size <= c.Size
	if extends {
		_, err := tlog.ProveTree(c.Size, q.Size, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			for _, i := range indexes {
				need[i] = tlog.Hash{}
			}
			return make([]tlog.Hash, len(indexes)), nil
		}))
		if err != nil {
			return nil, err
		}
	}
	again, err := l.rehash(c.Size, end, need, stop)
	if err != nil {
		return nil, changed(err)
	}
	if again != c {
		return nil, changed(l.firstChanged(c.Size, end))
	}
	p := api.Proof{Key: l.public, Consistency: []string{}, Rehashed: again.Size}
	if extends {
		proof, err := tlog.ProveTree(c.Size, q.Size, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			hs := make([]tlog.Hash, len(indexes))
			for i, index := range indexes {
				hs[i] = need[index]
			}
			return hs, nil
		}))
		if err != nil {
			return nil, err
		}
		for _, h := range proof {
			p.Consistency = append(p.Consistency, h.String())
		}
	}
	// What is handed out should not be ahead of the checkpoint on disk: whoever compares the folder with it would take the
	// log for cut. The records themselves are on disk all the same.
	if err := l.sign(); err != nil {
		slog.Error("audit", "err", err)
	}
	msg, err := c.Sign(l.signer)
	if err != nil {
		return nil, err
	}
	p.Checkpoint = string(msg)
	return &role.Proof{Proof: p}, nil
}

// rehash reads the file by its name again, so that one that was put in its place is found.
func (l *log) rehash(size, end int64, need map[int64]tlog.Hash, stop <-chan struct{}) (auditproof.Checkpoint, error) {
	if err := l.present(); err != nil {
		return auditproof.Checkpoint{}, err
	}
	f, err := l.root.OpenFile(auditproof.RecordsFile, os.O_RDONLY, 0)
	if err != nil {
		return auditproof.Checkpoint{}, err
	}
	defer f.Close()
	t, _, err := auditproof.Rehash(io.NewSectionReader(f, 0, end), size, func(i int64, h tlog.Hash) error {
		if _, ok := need[i]; ok {
			need[i] = h
		}
		select {
		case <-stop:
			return errors.New("audit ends")
		default:
			return nil
		}
	})
	if err != nil {
		return auditproof.Checkpoint{}, err
	}
	return t.Checkpoint(), nil
}

// firstChanged says which record does not have the hash that was stored when it was written.
func (l *log) firstChanged(size, end int64) error {
	lines := auditproof.NewLines(io.NewSectionReader(l.records, 0, end), 0)
	for n := range size {
		line, err := lines.Next()
		if err == nil {
			err = l.checkLeaf(n, line)
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("its %d records do not have the hash that was signed", size)
}
