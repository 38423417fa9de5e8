package role

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/socket"
	"github.com/closedpaw/closedpaw/daemon/internal/wire"
)

// MaxMessage bounds one encoded message, in bytes.
const MaxMessage = 256 << 10

// maxFiles bounds the descriptors of one message.
const maxFiles = 8

// ErrNotPermitted means that the table does not let this role say this here. Whoever receives it ends the connection.
var ErrNotPermitted = errors.New("message is not permitted")

// Pair returns both ends of a connection between two roles: a SOCK_SEQPACKET socket pair that takes a message of
// MaxMessage whole.
func Pair() (a, b *os.File, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a socket pair: %w", err)
	}
	for _, fd := range p {
		// The kernel doubles it, up to twice net.core.wmem_max (212992 by default).
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 208<<10); err != nil {
			unix.Close(p[0])
			unix.Close(p[1])
			return nil, nil, fmt.Errorf("cannot size a socket: %w", err)
		}
	}
	return os.NewFile(uintptr(p[0]), "role"), os.NewFile(uintptr(p[1]), "role"), nil
}

// Packet is one message as received.
type Packet struct {
	Seq   uint64 // of the request that it answers or makes; 0: neither
	Msg   Message
	Files []*os.File // the receiver's to close
}

// Close closes what came with the packet.
func (p Packet) Close() {
	for _, f := range p.Files {
		f.Close()
	}
}

// Conn is one role's end of a connection to another. Sending is safe for concurrent use; one goroutine receives.
type Conn struct {
	me, other Name
	c         *net.UnixConn
	raw       syscall.RawConn
	mu        sync.Mutex // serialises sending
	buf, oob  []byte
}

// NewConn takes f over as the connection of role me to role other.
func NewConn(f *os.File, me, other Name) (*Conn, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("cannot take over the connection to %s: %w", other, err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("cannot take over the connection to %s: not a UNIX socket", other)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		u.Close()
		return nil, fmt.Errorf("cannot take over the connection to %s: %w", other, err)
	}
	return &Conn{me: me, other: other, c: u, raw: raw, buf: make([]byte, MaxMessage+1), oob: make([]byte, unix.CmsgSpace(maxFiles*4))}, nil
}

// Close ends the connection; the other side sees the end of the stream.
func (c *Conn) Close() error { return c.c.Close() }

// Readable says that Recv would not wait: there is a message, or the other side is gone.
func (c *Conn) Readable() bool {
	n := 0
	err := c.raw.Control(func(fd uintptr) {
		n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	})
	return n != 0 || err != nil // it is closed: Recv says so at once
}

type envelope struct {
	Type string          `json:"type"`
	Seq  uint64          `json:"seq,omitempty"`
	Body json.RawMessage `json:"body"`
}

// outgoing is an envelope that is encoded in one go with what is in it.
type outgoing struct {
	Type string  `json:"type"`
	Seq  uint64  `json:"seq,omitempty"`
	Body Message `json:"body"`
}

// Send writes one message with descriptors; the files stay the caller's.
func (c *Conn) Send(seq uint64, m Message, files ...*os.File) error {
	if err := permitted(m.kind(), c.me, c.other, len(files)); err != nil {
		return err
	}
	b, err := wire.Encode(outgoing{m.kind(), seq, m})
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", m.kind(), err)
	}
	if len(b) > MaxMessage {
		return fmt.Errorf("cannot send %s: %d bytes are more than %d", m.kind(), len(b), MaxMessage)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(files) == 0 {
		_, err = socket.Send(c.raw, b)
	} else {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		_, _, err = c.c.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	}
	if err != nil {
		return fmt.Errorf("cannot send %s to %s: %w", m.kind(), c.other, err)
	}
	return nil
}

// Recv reads one message. io.EOF means that the other side is gone; any other error that it broke the rules:
// the caller must then close the connection.
func (c *Conn) Recv() (Packet, error) {
	n, on, flags, err := socket.Receive(c.raw, c.buf, c.oob)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ECONNRESET) { // net wraps them all
			err = io.EOF
		}
		return Packet{}, err
	}
	files, err := received(c.oob[:on])
	p := Packet{Files: files}
	switch {
	case err != nil:
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("message or descriptors were cut off")
	case n == 0:
		err = io.EOF
	default:
		p.Seq, p.Msg, err = Decode(c.buf[:n])
		if err == nil {
			err = permitted(p.Msg.kind(), c.other, c.me, len(files))
		}
	}
	if err != nil {
		p.Close()
		if err == io.EOF {
			return Packet{}, err
		}
		return Packet{}, fmt.Errorf("bad message from %s: %w", c.other, err)
	}
	return p, nil
}

// Decode parses one message strictly: known type, known fields, nothing behind it.
func Decode(b []byte) (seq uint64, m Message, err error) {
	var e envelope
	if err := wire.Decode(b, &e); err != nil {
		return 0, nil, err
	}
	r, ok := messages[e.Type]
	if !ok {
		return 0, nil, fmt.Errorf("%w: no type %q", ErrNotPermitted, e.Type)
	}
	m = r.new()
	if err := wire.Decode(e.Body, m); err != nil {
		return 0, nil, fmt.Errorf("%s: %w", e.Type, err)
	}
	return e.Seq, m, nil
}

func permitted(kind string, from, to Name, files int) error {
	r, ok := messages[kind]
	if !ok || kind != "failed" && (r.from != from || r.to != to) {
		return fmt.Errorf("%w: %s must not say %q to %s", ErrNotPermitted, from, kind, to)
	}
	if files < r.min || files > r.max {
		return fmt.Errorf("%w: %q with %d descriptors", ErrNotPermitted, kind, files)
	}
	return nil
}

func received(oob []byte) (files []*os.File, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	scms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range scms {
		fds, err := unix.ParseUnixRights(&scms[i])
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}
