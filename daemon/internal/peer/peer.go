// Package peer says who is at the other end of a client's connection: what the kernel recorded when it connected.
//
// An identity is taken once, at accept time, and travels as a typed value in the connection's context. It is never
// parsed from a string and never looked up again by pid. This is the only package that reads SO_PEERCRED and
// SO_PEERPIDFD. It also bounds how many connections one user may hold, before a byte of theirs is read.
package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/socket"
)

// Identity is what the kernel says of a peer.
type Identity struct {
	UID, GID uint32
	PID      int32    // of the process that connected; only as good as Process
	Process  *os.File // its pidfd; nil where the kernel gave none. The connection owns it
}

// ErrUnknown means that a context carries no identity. Whoever gets it must refuse.
var ErrUnknown = errors.New("peer is unknown")

type key struct{}

// From returns the identity that ConnContext put into ctx.
func From(ctx context.Context) (Identity, error) {
	id, ok := ctx.Value(key{}).(Identity)
	if !ok {
		return Identity{}, ErrUnknown
	}
	return id, nil
}

// ConnContext is for [net/http.Server.ConnContext]. A connection of another listener has no identity.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if p, ok := c.(*Conn); ok {
		return context.WithValue(ctx, key{}, p.id)
	}
	return ctx
}

// Conn is a client's connection with its identity. It owns the peer's pidfd, as net/http tells nobody when a hijacked
// connection is closed.
type Conn struct {
	*net.UnixConn
	fast *socket.Conn // the same
	id   Identity
	once sync.Once
	done func()
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (int, error) { return c.fast.Write(b) }

// Close closes the connection and lets go of the peer.
func (c *Conn) Close() error {
	c.once.Do(func() {
		if c.id.Process != nil {
			c.id.Process.Close()
		}
		c.done()
	})
	return c.UnixConn.Close()
}

// Listener accepts connections of known peers.
type Listener struct {
	*net.UnixListener
	max  int
	who  func(uid uint32) bool
	mu   sync.Mutex
	open map[uint32]int // by uid
}

// tooMany is the whole answer to a connection over the bound: nothing of the request is read.
const tooMany = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 103\r\n\r\n" +
	`{"code":"too_many","message":"too many connections of this user","hint":"wait for the others to end"}` + "\r\n"

// others stands for all users together that are nobody's own.
const others = 1<<32 - 1

// Listen makes l a Listener that lets each user hold at most max connections. Users whom who does not know share one
// such bound: one person can be 65536 of them, by /etc/subuid.
func Listen(l *net.UnixListener, max int, who func(uid uint32) bool) *Listener {
	return &Listener{UnixListener: l, max: max, who: who, open: map[uint32]int{}}
}

// as is the uid that a connection counts for.
func (l *Listener) as(uid uint32) uint32 {
	if uid == 0 || l.who(uid) {
		return uid
	}
	return others
}

// Accept returns the next connection of a peer that the kernel names and that is below its bound; others are closed.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		u, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		fast, err := socket.Wrap(u)
		if err != nil {
			u.Close()
			continue
		}
		id, err := of(u)
		if err != nil {
			u.Close()
			continue
		}
		as := l.as(id.UID)
		if !l.take(as) {
			if id.Process != nil {
				id.Process.Close()
			}
			_, _ = u.Write([]byte(tooMany)) // into an empty socket buffer: it does not block
			u.Close()
			continue
		}
		return &Conn{UnixConn: u, fast: fast, id: id, done: func() { l.give(as) }}, nil
	}
}

func (l *Listener) take(uid uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[uid] >= l.max {
		return false
	}
	l.open[uid]++
	return true
}

func (l *Listener) give(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[uid]--; l.open[uid] <= 0 {
		delete(l.open, uid)
	}
}

// of asks the kernel. Where it has no SO_PEERPIDFD (before Linux 6.5), the pidfd is opened by number at once; a peer
// that ended before that may then name a stranger's process, so Process is evidence of liveness there, not of identity.
func of(u *net.UnixConn) (Identity, error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return Identity{}, fmt.Errorf("cannot reach peer socket: %w", err)
	}
	var cred *unix.Ucred
	var cerr error
	pidfd := -1
	err = raw.Control(func(fd uintptr) {
		if cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); cerr != nil {
			return
		}
		if pidfd, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PEERPIDFD); err != nil {
			if pidfd, err = unix.PidfdOpen(int(cred.Pid), 0); err != nil {
				pidfd = -1
			}
		}
	})
	if err := errors.Join(err, cerr); err != nil {
		return Identity{}, fmt.Errorf("cannot read peer credentials: %w", err)
	}
	id := Identity{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}
	if pidfd >= 0 {
		id.Process = os.NewFile(uintptr(pidfd), "peer")
	}
	return id, nil
}
