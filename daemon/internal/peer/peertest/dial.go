// Package peertest lets a test that runs as root connect as another user, as the kernel sees it.
package peertest

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dial connects to the UNIX socket at path as uid, with the gid of the same number. It needs root, unless uid is the test's own.
func Dial(uid uint32, path string) (net.Conn, error) {
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result)
	go func() {
		// Raw calls change this thread alone. It is never unlocked: it ends with the goroutine.
		runtime.LockOSThread()
		c, err := dial(uid, path)
		done <- result{c, err}
	}()
	r := <-done
	return r.c, r.err
}

func dial(uid uint32, path string) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if int(uid) != os.Getuid() {
		id := uintptr(uid)
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, id, id, id); e != 0 {
			return nil, fmt.Errorf("cannot become gid %d: %w", uid, e)
		}
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); e != 0 {
			return nil, fmt.Errorf("cannot become uid %d: %w", uid, e)
		}
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, fmt.Errorf("cannot connect to %s as uid %d: %w", path, uid, err)
	}
	return net.FileConn(f)
}
