package main

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

const (
	ioctlGet      = unix.TIOCGETA
	ioctlSet      = unix.TIOCSETA
	ioctlSetFlush = unix.TIOCSETAF
)

// discardInput throws away what was typed and not read, also a line that was not finished.
func discardInput(fd int) error {
	const fread = 1 // FREAD of <sys/fcntl.h>: the input queue
	return unix.IoctlSetPointerInt(fd, unix.TIOCFLUSH, fread)
}

// waitReadable returns when a read of fd would not block, or with ctx's cause when that ends. It selects, because poll
// and kqueue do not work on /dev/tty here.
func waitReadable(ctx context.Context, fd int) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	defer context.AfterFunc(ctx, func() { w.Close() })() // r becomes readable
	stop := int(r.Fd())
	if max(fd, stop) >= unix.FD_SETSIZE {
		return unix.EMFILE
	}
	for {
		var set unix.FdSet
		set.Set(fd)
		set.Set(stop)
		_, err := unix.Select(max(fd, stop)+1, &set, nil, nil, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case set.IsSet(stop):
			return context.Cause(ctx)
		case set.IsSet(fd):
			return nil
		}
	}
}
