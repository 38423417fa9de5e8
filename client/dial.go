package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
	"time"
)

// dialTimeout bounds the wait for a place in the daemon's queue of connections.
const dialTimeout = 10 * time.Second

// UnreachableError means that no daemon that may be trusted answers on the socket.
type UnreachableError struct {
	Socket string
	Err    error
	Hint   string // what to do next
}

func (e *UnreachableError) Error() string {
	s := fmt.Sprintf("cannot reach closedpawd at %s: %v", e.Socket, e.Err)
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *UnreachableError) Unwrap() error { return e.Err }

const startHint = "start it: systemctl start closedpaw.socket, or try it out: closedpawd -dev DIR and export CLOSEDPAW_SOCKET=DIR/run/closedpaw.sock"

// dial connects to the daemon, whatever address net/http made of its URL.
func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

func (c *Client) connect(ctx context.Context) (*net.UnixConn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if cause := context.Cause(ctx); cause != nil && err != nil {
		return nil, cause
	}
	if err != nil {
		return nil, unreachable(c.socket, err)
	}
	u := conn.(*net.UnixConn)
	uid, err := listener(u)
	if err == nil && !trusted(uid) {
		err = fmt.Errorf("uid %d listens there, not root", uid)
	}
	if err != nil {
		u.Close()
		return nil, &UnreachableError{Socket: c.socket, Err: err, Hint: "it may be someone else's trap: is --socket or CLOSEDPAW_SOCKET right?"}
	}
	return u, nil
}

func unreachable(socket string, err error) error {
	e := &UnreachableError{Socket: socket, Err: err}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		e.Err = errno // without the address, which is said already
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		e.Hint = startHint
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Hint = "the socket is there and nobody listens; " + startHint
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "the socket is not open to you: look at ls -l " + socket + ", and at its folder"
	case errors.Is(err, syscall.ENOTSOCK), errors.Is(err, syscall.EPROTOTYPE):
		e.Hint = "is --socket or CLOSEDPAW_SOCKET right?"
	case errors.Is(err, syscall.EAGAIN):
		e.Hint = "it is busy; try again"
	}
	return e
}
