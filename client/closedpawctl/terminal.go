package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/closedpaw/closedpaw/client/screen"
)

// maxReply bounds the line that a person answers with.
const maxReply = 4096

// stopped is how long a question takes to be shown only if the person has stopped the terminal's output.
const stopped = 500 * time.Millisecond

// terminal is where a person can be asked.
type terminal struct {
	in  *os.File
	out *os.File
	mu  sync.Mutex
	old *unix.Termios // to be put back, while a question is open
}

// openTerminal returns the controlling terminal, or stdin and stderr where these are one; nil if nobody is there.
func (a *app) openTerminal() *terminal {
	if f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		a.terminal.Store(&terminal{in: f, out: f})
	} else if isTerminal(a.in) && isTerminal(a.err) {
		a.terminal.Store(&terminal{in: a.in, out: a.err})
	}
	return a.terminal.Load()
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// confirm shows text and a question and returns whether the person typed y or yes. Keys that were typed before the
// question was there are thrown away: they answer something else. It returns early when ctx ends.
func (t *terminal) confirm(ctx context.Context, text, question string) (bool, error) {
	if err := t.cook(); err != nil {
		return false, fmt.Errorf("cannot ask on the terminal: %w", err)
	}
	defer t.restore()
	if err := t.put(text, question+" [y/N] "); err != nil {
		return false, fmt.Errorf("cannot ask on the terminal: %w", err)
	}
	line, err := t.line(ctx)
	if err != nil {
		_ = discardInput(int(t.in.Fd())) // half an answer is none to the shell either
		fmt.Fprintln(t.out)
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// put shows text and then the question, before which input is thrown away: right before it, as an answer may come as
// soon as it is there; and again if showing it took so long that the person had the terminal stopped.
func (t *terminal) put(text, question string) error {
	if _, err := io.WriteString(t.out, text); err != nil {
		return err
	}
	if err := discardInput(int(t.in.Fd())); err != nil {
		return err
	}
	begin := time.Now()
	if _, err := io.WriteString(t.out, question); err != nil {
		return err
	}
	if time.Since(begin) > stopped {
		return discardInput(int(t.in.Fd()))
	}
	return nil
}

func (t *terminal) line(ctx context.Context) (string, error) {
	var line []byte
	b := make([]byte, 256)
	for {
		if err := waitReadable(ctx, int(t.in.Fd())); err != nil {
			return "", err
		}
		n, err := t.in.Read(b)
		if err != nil {
			return "", err
		}
		line = append(line, b[:n]...)
		if i := strings.IndexByte(string(line), '\n'); i >= 0 {
			return string(line[:i]), nil
		}
		if len(line) > maxReply {
			return "", nil // no yes has this length
		}
	}
}

// cook makes the terminal give lines, echo and signals, whatever state it was left in.
func (t *terminal) cook() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	fd := int(t.in.Fd())
	old, err := unix.IoctlGetTermios(fd, ioctlGet)
	if err != nil {
		return err
	}
	cooked := *old
	cooked.Lflag |= unix.ICANON | unix.ECHO | unix.ISIG | unix.IEXTEN
	cooked.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, ioctlSetFlush, &cooked); err != nil {
		return err
	}
	t.old = old
	return nil
}

// restore puts the terminal back. It may be called at any time.
func (t *terminal) restore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.old != nil {
		_ = unix.IoctlSetTermios(int(t.in.Fd()), ioctlSet, t.old) // a terminal that is gone needs nothing
		t.old = nil
	}
}

// quote neutralises text and marks each of its lines as somebody else's, so that none passes for a question of ours.
func quote(text string) string {
	text = strings.TrimSuffix(screen.Text(text), "\n")
	return "  | " + strings.ReplaceAll(text, "\n", "\n  | ") + "\n"
}
