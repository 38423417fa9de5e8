package control

import (
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel bounds the descriptors of control that lie in sockets, for all its clients together: one that does not
// read must not be sent more than a few.
func TestUnreadFilesAreFew(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(pair[1]), "ours")
	c, err := net.FileConn(f)
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	u := c.(*net.UnixConn)
	sent, failed := make(chan bool, 1000), make(chan error, 1)
	go func() {
		for range 1000 {
			if err := sendFile(u, null); err != nil {
				failed <- err
				return
			}
			sent <- true
		}
		failed <- nil
	}()
	time.Sleep(time.Second)
	if n := len(sent); n == 0 || n > 32 {
		t.Errorf("%d files lie unread", n)
	}
	if taken(u, 0) {
		t.Error("what lies unread counts as taken")
	}
	unix.Close(pair[0]) // frees them
	if err := <-failed; err == nil {
		t.Error("all were sent")
	}
	if !taken(u, 0) {
		t.Error("what is gone counts as untaken")
	}
}
