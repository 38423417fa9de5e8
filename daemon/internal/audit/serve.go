package audit

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// Bounds of what may wait, and of one batch. With them the role's memory is bounded: a record has at most 6 KiB here.
const (
	maxQueue  = 1024
	maxBatch  = 256
	maxReads  = 64
	maxProofs = 8
)

// Serve is the audit role: it opens the log in dir and answers control until that ends. A log that cannot be opened is
// an error here, and the answer to control's first request.
func Serve(control *role.Conn, dir string) error {
	defer control.Close()
	l, err := open(dir)
	if err != nil {
		f := failed(err)
		if p, rerr := control.Recv(); rerr == nil {
			p.Close()
			_ = control.Send(p.Seq, f) // the caller of Serve is told anyway
		}
		if f.Hint != "" {
			err = fmt.Errorf("%w (%s)", err, f.Hint)
		}
		return err
	}
	return l.serve(control)
}

type queued struct {
	seq    uint64
	record api.AuditRecord
}

// server is what the goroutines of one Serve share.
type server struct {
	*log
	control *role.Conn
	appends chan queued
	reads   chan role.Packet
	proofs  chan role.Packet
	kick    chan struct{} // there is something to sign
	stop    chan struct{} // control is gone: proofs give up
}

// serve runs one goroutine each to receive, commit and sign, two that read and one that proves.
func (l *log) serve(control *role.Conn) error {
	defer l.close()
	s := &server{
		log: l, control: control,
		appends: make(chan queued, maxQueue), reads: make(chan role.Packet, maxReads), proofs: make(chan role.Packet, maxProofs),
		kick: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	var writers, readers sync.WaitGroup
	writers.Go(s.committer)
	writers.Go(s.signer)
	readers.Go(s.reader)
	readers.Go(s.reader)
	readers.Go(s.prover)
	err := s.receive()
	// What control said before it ended is still written; nobody needs the answers to the rest.
	close(s.stop)
	close(s.appends)
	close(s.reads)
	close(s.proofs)
	writers.Wait()
	readers.Wait()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, l.sign())
}

func (s *server) receive() error {
	for {
		p, err := s.control.Recv()
		if err != nil {
			return err
		}
		switch m := p.Msg.(type) {
		case *role.Append:
			s.appends <- queued{p.Seq, bounded(m.Record)}
		case *role.ReadAudit:
			s.offer(s.reads, p)
		case *role.Prove:
			s.offer(s.proofs, p)
		default:
			p.Close()
			return role.ErrNotPermitted
		}
	}
}

// offer never waits: reading must not hold up appends.
func (s *server) offer(ch chan role.Packet, p role.Packet) {
	select {
	case ch <- p:
	default:
		s.answer(p.Seq, &role.Failed{Code: api.CodeTooMany, Text: "too many read the audit log at once", Hint: "try again in a moment"})
	}
}

// answer gives up silently: that control is gone is receive's to find.
func (s *server) answer(seq uint64, m role.Message) { _ = s.control.Send(seq, m) }

// committer writes all that has gathered while the batch before was written.
func (s *server) committer() {
	defer close(s.kick)
	for q := range s.appends {
		batch := append(make([]queued, 0, maxBatch), q)
		for more := true; more && len(batch) < maxBatch; {
			select {
			case q, ok := <-s.appends:
				if more = ok; ok {
					batch = append(batch, q)
				}
			default:
				more = false
			}
		}
		records := make([]api.AuditRecord, len(batch))
		for i, q := range batch {
			records[i] = q.record
		}
		first, err := s.commit(records)
		if err != nil {
			slog.Error("audit", "err", err, "records", len(batch))
		}
		for i, q := range batch {
			if err != nil {
				s.answer(q.seq, failed(err))
			} else {
				s.answer(q.seq, &role.Appended{Seq: first + int64(i)})
			}
		}
		select {
		case s.kick <- struct{}{}:
		default:
		}
	}
}

// signDelay is how far the checkpoint may lie behind the acknowledged records.
const signDelay = 100 * time.Millisecond

// signer keeps the checkpoint up with the log. One that cannot be written is tried again with the next batch:
// the records are durable without it.
func (s *server) signer() {
	for range s.kick {
		select { // whoever waits for a record's acknowledgement has better use for the disk just now
		case <-time.After(signDelay):
		case <-s.stop:
		}
		if err := s.sign(); err != nil {
			slog.Error("audit", "err", err)
		}
	}
}

func (s *server) reader() {
	for p := range s.reads {
		a, err := s.read(p.Msg.(*role.ReadAudit))
		if err != nil {
			s.answer(p.Seq, failed(err))
			continue
		}
		s.answer(p.Seq, a)
	}
}

func (s *server) prover() {
	for p := range s.proofs {
		a, err := s.prove(p.Msg.(*role.Prove), s.stop)
		if err != nil {
			s.answer(p.Seq, failed(err))
			continue
		}
		s.answer(p.Seq, a)
	}
}
