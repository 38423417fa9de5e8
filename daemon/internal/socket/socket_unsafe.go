package socket

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// recvmsg does not wait. RawSyscall keeps what its arguments point to, as the header does what it points to itself.
func recvmsg(fd uintptr, b, oob []byte) (n, oobn, flags int, errno syscall.Errno) {
	iov := unix.Iovec{Base: unsafe.SliceData(b)}
	iov.SetLen(len(b))
	h := unix.Msghdr{Iov: &iov, Control: unsafe.SliceData(oob)}
	h.SetIovlen(1)
	h.SetControllen(len(oob))
	r, _, errno := syscall.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&h)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	if errno != 0 {
		return 0, 0, 0, errno
	}
	return int(r), int(h.Controllen), int(h.Flags), 0
}

// send does not wait.
func send(fd uintptr, b []byte) (int, syscall.Errno) {
	r, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}
