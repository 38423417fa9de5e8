package runsc

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/urpc"

	"github.com/closedpaw/closedpaw/daemon/internal/sandbox"
)

// silent is a sandbox whose sentry never answers.
func silent(t *testing.T) *box {
	t.Helper()
	b := &box{id: "silent", gone: make(chan struct{}), free: make(chan *urpc.Client, 1)}
	for range 2 {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
		t.Cleanup(func() { ours.Close(); theirs.Close() })
		c, err := b.dial(ours)
		if err != nil {
			t.Fatal(err)
		}
		if b.ctl == nil {
			b.ctl = c
		} else {
			b.free <- c
		}
	}
	return b
}

// A sentry that was taken over cannot hold a session by not answering.
func TestSilentSentry(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, end := range map[string]func(b *box, cancel func()) error{
		"the session ends": func(_ *box, cancel func()) error { cancel(); return context.Canceled },
		"the sandbox ends": func(b *box, _ func()) error { b.end(); return sandbox.ErrEnded },
	} {
		b := silent(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			_, err := b.Start(ctx, sandbox.Command{Argv: []string{"true"}}, null, null, null)
			ended <- err
		}()
		time.Sleep(50 * time.Millisecond)
		want := make(chan error, 1)
		go func() { want <- end(b, cancel) }()
		select {
		case err := <-ended:
			if w := <-want; !errors.Is(err, w) {
				t.Errorf("%s: error %v, want %v", name, err, w)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: the command still starts", name)
		}
	}
	b := silent(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := (&process{b: b}).Kill(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}
