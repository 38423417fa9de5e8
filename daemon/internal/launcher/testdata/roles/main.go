// Command roles stands for closedpawd in the launcher's tests: the launcher, and roles that do next to nothing, in the
// very processes that the launcher makes. Its control gives its connection to the launcher away to the test.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/launcher"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "test roles:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "-launch":
		var o launcher.Options
		if err := json.Unmarshal([]byte(args[1]), &o); err != nil {
			return err
		}
		o.Listeners, o.HostNS = []*os.File{os.NewFile(3, "listener")}, os.NewFile(4, "hostns")
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
		defer stop()
		return launcher.Run(ctx, o)
	case len(args) == 3 && args[0] == "-role" && os.Getuid() == 0:
		return launcher.Stage1(role.Name(args[1]), args[2])
	case len(args) == 2 && args[0] == "-role":
		return serve(role.Name(args[1]))
	}
	return fmt.Errorf("bad arguments %q", args)
}

func serve(name role.Name) error {
	keep, err := unix.Dup(role.FirstFD)
	if err != nil {
		return err
	}
	conns, extra, err := role.Enter(name)
	if err != nil {
		return err
	}
	switch name {
	case role.Control:
		return giveAway(conns[0], keep)
	case role.Review:
		return look(conns[0], extra)
	}
	unix.Close(keep)
	for {
		if _, err := conns[0].Recv(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// giveAway lets the test speak for control, until the test goes away.
func giveAway(c *role.Conn, fd int) error {
	p, err := c.Recv()
	if err != nil {
		return err
	}
	if _, ok := p.Msg.(*role.Begin); !ok {
		return fmt.Errorf("control got %T first", p.Msg)
	}
	l, err := net.FileListener(p.Files[0])
	if err != nil {
		return err
	}
	if err := c.Send(0, &role.Ready{}); err != nil {
		return err
	}
	begin, err := json.Marshal(p.Msg)
	if err != nil {
		return err
	}
	for {
		a, err := l.Accept()
		if err != nil {
			return err
		}
		if _, _, err := a.(*net.UnixConn).WriteMsgUnix(begin, unix.UnixRights(fd), nil); err != nil {
			return err
		}
		io.Copy(io.Discard, a)
		return nil
	}
}

// look says what a review sees and what it must not be able to do.
func look(c *role.Conn, layers []*os.File) error {
	if _, err := c.Recv(); err != nil {
		return err
	}
	var b strings.Builder
	for _, f := range layers {
		names, err := f.Readdirnames(-1)
		fmt.Fprintf(&b, "%s: %q %v\n", f.Name(), names, err)
		for _, n := range names {
			how := &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
			fd, err := unix.Openat2(int(f.Fd()), n, how)
			if err != nil {
				fmt.Fprintf(&b, "%s/%s: %v\n", f.Name(), n, err)
				continue
			}
			r := os.NewFile(uintptr(fd), n)
			text, err := io.ReadAll(r)
			fmt.Fprintf(&b, "%s/%s: %q %v\n", f.Name(), n, text, err)
			r.Close()
		}
		_, err = unix.Openat(int(f.Fd()), "planted", unix.O_CREAT|unix.O_WRONLY, 0o600)
		fmt.Fprintf(&b, "%s write: %v\n", f.Name(), err)
	}
	if err := c.Send(0, &role.Diff{Text: b.String()}); err != nil {
		return err
	}
	_, err := c.Recv()
	if err == io.EOF {
		return nil
	}
	return err
}
