package client

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// listener returns the uid that called listen for the other end, as the kernel remembers it: root, for a socket of
// systemd's as for one of the launcher's, although an ordinary user of the system accepts on it later.
func listener(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("cannot ask who listens: %w", err)
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		err = cerr
	}
	if err != nil {
		return 0, fmt.Errorf("cannot ask who listens: %w", err)
	}
	return cred.Uid, nil
}

func trusted(uid uint32) bool { return uid == 0 }
