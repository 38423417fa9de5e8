package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/closedpaw/closedpaw/client/screen"
)

const (
	// maxCaptured bounds each of stdout and stderr in the JSON form, in bytes.
	maxCaptured = 1 << 20
	// idle is how long after a command's end its pipes may stay open and silent: a holder of the other end that says
	// nothing more must not keep us.
	idle = 2 * time.Second
	// rest is the same after a stream that was cut off.
	rest = 200 * time.Millisecond
)

// stdio carries the standard streams of a run's command.
type stdio struct {
	in, out, err     *os.File // our ends of its pipes
	feed             *feeder
	outSink, errSink outSink
	copies           sync.WaitGroup
	failed           atomic.Pointer[error] // the first error of writing to our own stdout or stderr
	patience         atomic.Int64          // a time.Duration, once the command has ended
}

// outSink is where output goes: a terminal, neutralised; a file or pipe, as it is; or a bounded buffer.
type outSink interface {
	io.Writer
	Flush() error
}

func sink(f *os.File, capture bool) outSink {
	switch {
	case capture:
		return new(captured)
	case isTerminal(f):
		return screen.NewWriter(f)
	}
	return raw{f}
}

type raw struct{ *os.File }

func (raw) Flush() error { return nil }

type captured struct {
	bytes.Buffer
	cut bool
}

func (c *captured) Write(p []byte) (int, error) {
	n := len(p)
	if room := maxCaptured - c.Len(); n > room {
		c.cut, p = true, p[:room]
	}
	c.Buffer.Write(p)
	return n, nil
}

func (c *captured) Flush() error { return nil }

// start passes output on; input is passed once the command may run: resumeInput.
func (s *stdio) start() {
	s.copies.Go(func() { s.copy(s.outSink, s.out) })
	s.copies.Go(func() { s.copy(s.errSink, s.err) })
}

func (s *stdio) copy(to outSink, from *os.File) {
	defer to.Flush()
	b := make([]byte, 64<<10)
	for {
		if p := time.Duration(s.patience.Load()); p > 0 {
			from.SetReadDeadline(time.Now().Add(p))
		}
		n, err := from.Read(b)
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				s.failed.CompareAndSwap(nil, &err)
				from.Close() // the command gets the SIGPIPE that it would get without us
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (s *stdio) pauseInput()  { s.feed.stop() }
func (s *stdio) resumeInput() { s.feed.start() }

// drain waits until all output has been passed on, after the command has ended.
func (s *stdio) drain(ctx context.Context) error { return s.finish(ctx, idle) }

// abandon passes on what is there after a failure, and no more.
func (s *stdio) abandon() {
	ctx, stop := context.WithTimeout(context.Background(), 2*rest)
	defer stop()
	_ = s.finish(ctx, rest) // there is an error to report already
}

func (s *stdio) finish(ctx context.Context, patience time.Duration) error {
	s.patience.Store(int64(patience))
	s.out.SetReadDeadline(time.Now().Add(patience))
	s.err.SetReadDeadline(time.Now().Add(patience))
	done := make(chan struct{})
	go func() { s.copies.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *stdio) close() {
	if s.feed != nil {
		s.feed.stop()
	}
	for _, f := range []*os.File{s.in, s.out, s.err} {
		if f != nil {
			f.Close()
		}
	}
}

// captured returns what the command wrote, as text.
func (s *stdio) captured() (out, err string, cut bool) {
	o, e := s.outSink.(*captured), s.errSink.(*captured)
	const replacement = "\ufffd"
	return strings.ToValidUTF8(o.String(), replacement), strings.ToValidUTF8(e.String(), replacement), o.cut || e.cut
}

// feeder copies our stdin to the command. It can be stopped without having read a byte too many, so that what is typed
// as the answer to a question is not taken by the command.
type feeder struct {
	from, to *os.File
	rest     []byte // read and not written yet
	over     bool   // stdin or the command's interest in it has ended
	cancel   context.CancelFunc
	stopped  chan struct{}
}

func (f *feeder) start() {
	if f.over || f.cancel != nil {
		return
	}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(context.Background())
	f.stopped = make(chan struct{})
	f.to.SetWriteDeadline(time.Time{})
	go func() {
		defer close(f.stopped)
		f.over = f.copy(ctx)
	}()
}

// stop returns when nothing reads stdin any more.
func (f *feeder) stop() {
	if f.cancel == nil {
		return
	}
	f.cancel()
	f.to.SetWriteDeadline(time.Now())
	<-f.stopped
	f.cancel = nil
}

func (f *feeder) copy(ctx context.Context) (over bool) {
	b := make([]byte, 64<<10)
	for {
		for len(f.rest) > 0 {
			n, err := f.to.Write(f.rest)
			f.rest = f.rest[n:]
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return false
			}
			if err != nil {
				f.to.Close()
				return true
			}
		}
		if waitReadable(ctx, int(f.from.Fd())) != nil {
			return false
		}
		n, err := f.from.Read(b)
		if n > 0 {
			f.rest = append(f.rest[:0], b[:n]...)
		}
		if err != nil && n == 0 {
			f.to.Close()
			return true
		}
	}
}
