package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/launcher"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// hostNSName is the descriptor's name in systemd's store.
const hostNSName = "hostns"

// runInstalled runs the daemon with the sockets that systemd holds.
func runInstalled(ctx context.Context, o launcher.Options) error {
	for _, f := range activation.Files(true) {
		if f.Name() == hostNSName {
			if err := mountNamespace(f); err != nil {
				return err
			}
			o.HostNS = f
			continue
		}
		if err := listener(f); err != nil {
			return fmt.Errorf("cannot use the socket %q of systemd: %w; see closedpaw.socket", f.Name(), err)
		}
		o.Listeners = append(o.Listeners, f)
	}
	if len(o.Listeners) == 0 {
		return errors.New("no socket to serve: start it with systemctl start closedpaw.socket, or try it out with closedpawd -dev DIR")
	}
	o.IDs = map[role.Name]launcher.ID{}
	for name, row := range role.Table {
		if name == role.Review { // each is its sandbox's user
			continue
		}
		id, err := lookup(row.User)
		if err != nil {
			return err
		}
		o.IDs[name] = id
	}
	if err := os.MkdirAll(o.Paths.Run, 0o755); err != nil {
		return fmt.Errorf("cannot make %s: %w", o.Paths.Run, err)
	}
	for name, dir := range map[role.Name]string{role.Control: o.Paths.State, role.Audit: o.Paths.Log} {
		if err := ownDir(dir, o.IDs[name]); err != nil {
			return err
		}
	}
	if err := lock(o.Paths.Run); err != nil {
		return err
	}
	return launcher.Run(ctx, o)
}

func lookup(name string) (launcher.ID, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return launcher.ID{}, fmt.Errorf("cannot find the system user %s: %w; systemd-sysusers makes it", name, err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err1 != nil || err2 != nil || uid == 0 || gid == 0 {
		return launcher.ID{}, fmt.Errorf("cannot use the system user %s: it must be an ordinary one", name)
	}
	return launcher.ID{UID: uint32(uid), GID: uint32(gid)}, nil
}

// listener refuses what is no listening UNIX stream socket.
func listener(f *os.File) error {
	for _, o := range []struct {
		opt, want int
		what      string
	}{{unix.SO_DOMAIN, unix.AF_UNIX, "a UNIX socket"}, {unix.SO_TYPE, unix.SOCK_STREAM, "a stream socket"}, {unix.SO_ACCEPTCONN, 1, "listening"}} {
		if v, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, o.opt); err != nil || v != o.want {
			return errors.New("it is not " + o.what)
		}
	}
	return nil
}

// mountNamespace refuses what is no mount namespace.
func mountNamespace(f *os.File) error {
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNS {
		return fmt.Errorf("cannot use descriptor %q: it is not a mount namespace", f.Name())
	}
	unix.CloseOnExec(int(f.Fd()))
	return nil
}

// storeHostNS runs before the daemon, in ExecStartPre=+, and has systemd keep a descriptor of the mount namespace in
// which people's folders are: the unit has one of its own. From systemd 257 on OpenFile= could do it.
func storeHostNS() error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return errors.New("-store-hostns is for systemd: see ExecStartPre of closedpaw.service")
	}
	ns, err := unix.Open("/proc/1/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open the host's mount namespace: %w", err)
	}
	defer unix.Close(ns)
	// Not net.UnixConn: it refuses descriptors on a connected datagram socket.
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot make a socket: %w", err)
	}
	defer unix.Close(s)
	var barrier [2]int
	if err := unix.Pipe2(barrier[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("cannot make a pipe: %w", err)
	}
	defer unix.Close(barrier[0])
	to := &unix.SockaddrUnix{Name: path}
	err = errors.Join(
		unix.Sendmsg(s, []byte("FDSTOREREMOVE=1\nFDNAME="+hostNSName), nil, to, 0), // of an earlier start
		unix.Sendmsg(s, []byte("FDSTORE=1\nFDPOLL=0\nFDNAME="+hostNSName), unix.UnixRights(ns), to, 0),
		unix.Sendmsg(s, []byte("BARRIER=1"), unix.UnixRights(barrier[1]), to, 0), // without the others' lines: sd_notify(3)
		unix.Close(barrier[1]))
	if err != nil {
		return fmt.Errorf("cannot talk to systemd: %w", err)
	}
	// systemd closes its end when it has read all of that; ending earlier could lose it.
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(barrier[0])}}, 5000); err != nil || n == 0 {
		return fmt.Errorf("systemd does not answer: %w", errors.Join(err, os.ErrDeadlineExceeded))
	}
	return nil
}
