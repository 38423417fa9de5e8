package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/sandbox"
)

// drain is for how long output is still read after a command ended: what it left running may hold the pipe open.
const drain = 200 * time.Millisecond

// output keeps the beginning and the end of what a command wrote, within role.MaxToolResult.
type output struct {
	head, tail []byte // tail is a ring of the last half bytes
	at         int    // where the ring's oldest byte is
	total      int64
}

const half = (role.MaxToolResult - 256) / 2 // room for what is said of the gap and of the exit

// Write never fails: it forgets the middle.
func (o *output) Write(b []byte) (int, error) {
	n := len(b)
	o.total += int64(n)
	if k := min(half-len(o.head), len(b)); k > 0 {
		o.head, b = append(o.head, b[:k]...), b[k:]
	}
	if len(b) > half {
		b = b[len(b)-half:]
	}
	if k := min(half-len(o.tail), len(b)); k > 0 {
		o.tail, b = append(o.tail, b[:k]...), b[k:]
	}
	for len(b) > 0 {
		k := copy(o.tail[o.at:], b)
		b, o.at = b[k:], (o.at+k)%half
	}
	return n, nil
}

// String is valid UTF-8 and says how much is missing in the middle.
func (o *output) String() string {
	tail := string(o.tail[o.at:]) + string(o.tail[:o.at])
	s := string(o.head)
	if gone := o.missing(); gone > 0 {
		s += fmt.Sprintf("\n[… %d bytes left out …]\n", gone)
	}
	return valid(s + tail)
}

func (o *output) missing() int64 { return o.total - int64(len(o.head)+len(o.tail)) }

// valid replaces what is no UTF-8 by "?", which is no longer than what it replaces.
func valid(s string) string { return strings.ToValidUTF8(s, "?") }

var errTooLong = errors.New("it ran too long")

// collect runs c in box for at most limit, with its output in one pipe.
func collect(ctx context.Context, box sandbox.Sandbox, c sandbox.Command, stdin []byte, limit time.Duration) (*output, sandbox.Status, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, sandbox.Status{}, fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer r.Close()
	in, feed, err := os.Pipe()
	if err != nil {
		w.Close()
		return nil, sandbox.Status{}, fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer feed.Close()
	p, err := box.Start(ctx, c, in, w, w)
	w.Close()
	in.Close()
	if err != nil {
		return nil, sandbox.Status{}, err
	}
	go func() {
		_, _ = feed.Write(stdin) // a command that does not read it all has its reasons
		feed.Close()
	}()
	out, read := &output{}, make(chan struct{})
	go func() {
		_, _ = io.Copy(out, r) // until the end, or the deadline below
		close(read)
	}()
	status, err := wait(ctx, p, limit)
	select {
	case <-read:
	case <-time.After(drain):
		if e := r.SetReadDeadline(time.Now()); e != nil { // pipes can be polled
			return nil, status, e
		}
		<-read
	}
	return out, status, err
}

// wait ends the command itself if it takes too long; the sandbox goes on.
func wait(ctx context.Context, p sandbox.Process, limit time.Duration) (sandbox.Status, error) {
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	status, err := p.Wait(short)
	if err == nil || short.Err() == nil || ctx.Err() != nil {
		return status, err
	}
	if err := p.Kill(ctx); err != nil {
		return status, err
	}
	if status, err = p.Wait(ctx); err == nil {
		err = errTooLong
	}
	return status, err
}
