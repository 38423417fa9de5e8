package control

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Only folders and pipes may reach the process's poller: a user's FUSE file that never answers POLL would stop it for
// everybody. An eventfd stands for all else that can be polled.
func TestReceiveKeepsStrangeDescriptorsFromThePoller(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(pair[0]), "theirs")
	defer theirs.Close()
	f := os.NewFile(uintptr(pair[1]), "ours")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	event, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(event)
	for name, fd := range map[string]int{"file": int(file.Fd()), "eventfd": event, "socket": pair[0]} {
		if err := unix.Sendmsg(pair[0], []byte("D"), unix.UnixRights(fd), nil, 0); err != nil {
			t.Fatal(err)
		}
		if files, err := receive(c.(*net.UnixConn)); err == nil {
			t.Errorf("%s was taken: %v", name, files)
		}
	}
}
