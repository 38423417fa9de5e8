package client

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// listener returns the uid of whoever listens at the other end.
func listener(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("cannot ask who listens: %w", err)
	}
	var cred *unix.Xucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	}); cerr != nil {
		err = cerr
	}
	if err != nil {
		return 0, fmt.Errorf("cannot ask who listens: %w", err)
	}
	return cred.Uid, nil
}

func trusted(uid uint32) bool { return uid == 0 || uint64(uid) == uint64(os.Getuid()) }
