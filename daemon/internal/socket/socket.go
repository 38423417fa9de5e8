// Package socket reads and writes sockets in the cheapest way that Go has, for the way of each token of a model.
//
// An ordinary system call tells Go's scheduler, and where the process was idle that wakes its monitor thread, which then
// looks around for a while: in a process that passes a token on every few hundred microseconds this is more than half
// of all thread wake-ups. A call that cannot wait need not tell: so these are made with MSG_DONTWAIT, and the waiting is
// left to Go's poller, as package net does. Deadlines, Close and errors are as in package net.
package socket

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Conn is a connection of package net whose Read and Write are cheaper.
type Conn struct {
	net.Conn
	raw syscall.RawConn
}

// Wrap takes c over: a TCP or UNIX connection.
func Wrap(c net.Conn) (*Conn, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("cannot use a %T as a socket", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Conn{c, raw}, nil
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, _, _, err := Receive(c.raw, b, nil)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// Write implements net.Conn.
func (c *Conn) Write(b []byte) (done int, err error) {
	for done < len(b) && err == nil {
		var n int
		n, err = Send(c.raw, b[done:])
		done += n
	}
	return done, err
}

// Receive is recvmsg: it waits until there is something, and returns how much of b and of oob it filled, and the flags.
// Descriptors are closed on execution. It is no error that there is nothing any more, but 0 bytes.
func Receive(c syscall.RawConn, b, oob []byte) (n, oobn, flags int, err error) {
	var errno syscall.Errno
	err = c.Read(func(fd uintptr) bool {
		for errno = unix.EINTR; errno == unix.EINTR; {
			n, oobn, flags, errno = recvmsg(fd, b, oob)
		}
		return errno != unix.EAGAIN
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("recvmsg", errno)
	}
	return n, oobn, flags, err
}

// Send sends what there is room for, or the whole message where the socket has messages; it waits until it can.
func Send(c syscall.RawConn, b []byte) (n int, err error) {
	var errno syscall.Errno
	err = c.Write(func(fd uintptr) bool {
		for errno = unix.EINTR; errno == unix.EINTR; {
			n, errno = send(fd, b)
		}
		return errno != unix.EAGAIN
	})
	if err == nil && errno != 0 {
		err = os.NewSyscallError("send", errno)
	}
	return n, err
}
