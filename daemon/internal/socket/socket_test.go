package socket_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/socket"
)

// pairs are both ends of connections of each kind that is used.
func pairs(t *testing.T) map[string][2]*socket.Conn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "end")
		if ends[i], err = net.FileConn(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return map[string][2]*socket.Conn{"unix": {wrap(t, ends[0]), wrap(t, ends[1])}, "tcp": {wrap(t, a), wrap(t, b)}}
}

func wrap(t *testing.T, c net.Conn) *socket.Conn {
	t.Helper()
	s, err := socket.Wrap(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestAllArrives sends more than a socket takes at once to a reader that begins late, both ways at the same time.
func TestAllArrives(t *testing.T) {
	want := bytes.Repeat([]byte("0123456789abcde\n"), 1<<17)
	for name, p := range pairs(t) {
		var wg sync.WaitGroup
		for i := range p {
			wg.Go(func() {
				if n, err := p[i].Write(want); n != len(want) || err != nil {
					t.Errorf("%s: %d bytes, %v", name, n, err)
				}
			})
			wg.Go(func() {
				time.Sleep(50 * time.Millisecond)
				got := make([]byte, len(want))
				if _, err := io.ReadFull(p[1-i], got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: what arrived differs, %v", name, err)
				}
			})
		}
		wg.Wait()
	}
}

// TestEnds shows that what ends a connection of package net ends these, with the same errors.
func TestEnds(t *testing.T) {
	read := func(c *socket.Conn) error { _, err := c.Read(make([]byte, 10)); return err }
	fill := func(c *socket.Conn) error { _, err := c.Write(make([]byte, 64<<20)); return err }
	for name, c := range map[string]struct {
		do   func(c *socket.Conn) error
		end  func(c, other *socket.Conn) error
		want error
	}{
		"closed here while it reads":   {read, func(c, _ *socket.Conn) error { return c.Close() }, net.ErrClosed},
		"closed here while it writes":  {fill, func(c, _ *socket.Conn) error { return c.Close() }, net.ErrClosed},
		"closed there while it reads":  {read, func(_, o *socket.Conn) error { return o.Close() }, io.EOF},
		"closed there while it writes": {fill, func(_, o *socket.Conn) error { return o.Close() }, nil}, // EPIPE or ECONNRESET
		"deadline of reading":          {read, func(c, _ *socket.Conn) error { return c.SetReadDeadline(time.Now()) }, os.ErrDeadlineExceeded},
		"deadline of writing":          {fill, func(c, _ *socket.Conn) error { return c.SetWriteDeadline(time.Now()) }, os.ErrDeadlineExceeded},
	} {
		for kind, p := range pairs(t) {
			ended := make(chan error, 1)
			go func() { ended <- c.do(p[0]) }()
			time.Sleep(20 * time.Millisecond)
			if err := c.end(p[0], p[1]); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err == nil || c.want != nil && !errors.Is(err, c.want) {
					t.Errorf("%s, %s: %v", name, kind, err)
				}
			case <-time.After(5 * time.Second):
				t.Errorf("%s, %s: it goes on", name, kind)
			}
		}
	}
}

func TestWrapTakesSocketsOnly(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := socket.Wrap(a); err == nil {
		t.Error("a pipe in memory was taken")
	}
}
