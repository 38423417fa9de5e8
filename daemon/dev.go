package daemon

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/launcher"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/setup"
)

// runDev runs the daemon in the foreground with everything below dir, nothing installed.
func runDev(ctx context.Context, dir string, hostNS int, o launcher.Options) error {
	dir, err := devDir(dir)
	if err != nil {
		return err
	}
	if hostNS < 0 {
		return privately()
	}
	o.HostNS = os.NewFile(uintptr(hostNS), hostNSName)
	if err := mountNamespace(o.HostNS); err != nil {
		return err
	}
	run := filepath.Join(dir, "run")
	for _, d := range []string{run, filepath.Join(dir, "state")} {
		if err := ownDir(d, launcher.ID{}); err != nil {
			return err
		}
	}
	if err := lock(run); err != nil {
		return err
	}
	if _, err := setup.Ensure(filepath.Join(dir, "etc")); err != nil {
		return err
	}
	o.Paths = launcher.Paths{Etc: filepath.Join(dir, "etc"), State: filepath.Join(dir, "state/control"), Log: filepath.Join(dir, "state/audit")}
	if o.Paths.Run, err = mirror(run, dir, o.Runsc); err != nil {
		return err
	}
	if o.IDs, err = freeIDs(); err != nil {
		return err
	}
	for name, d := range map[role.Name]string{role.Control: o.Paths.State, role.Audit: o.Paths.Log} {
		if err := ownDir(d, o.IDs[name]); err != nil {
			return err
		}
	}
	sock := filepath.Join(run, "closedpaw.sock")
	l, err := listen(sock)
	if err != nil {
		return err
	}
	defer os.Remove(sock)
	o.Listeners = []*os.File{l}
	o.Greeting = "ready: export CLOSEDPAW_SOCKET=" + sock
	if st, err := os.Stat(dir); err == nil && st.Mode()&0o001 == 0 {
		fmt.Fprintf(os.Stderr, "closedpawd: only root can reach the socket, as %s has mode %#o: chmod 711 %s\n", dir, st.Mode().Perm(), dir)
	}
	return launcher.Run(ctx, o)
}

// devDir checks the folder, which it may make, and returns its absolute path.
func devDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("cannot use %s: %w", dir, err)
	}
	err = os.Mkdir(dir, 0o711)
	if err == nil {
		err = os.Chmod(dir, 0o711) // whatever the umask
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("cannot make %s: %w", dir, err)
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("cannot use %s: %w", dir, err)
	}
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		return "", fmt.Errorf("cannot use %s: it is a symbolic link; name the folder itself", dir)
	case !st.IsDir():
		return "", fmt.Errorf("cannot use %s: it is not a folder", dir)
	case ownerOf(st) != uint32(os.Geteuid()):
		return "", fmt.Errorf("cannot use %s: it belongs to user %d, not to you; name a new one, or chown root %s", dir, ownerOf(st), dir)
	case st.Mode()&0o022 != 0:
		return "", fmt.Errorf("cannot use %s: others may write to it; chmod go-w %s", dir, dir)
	}
	// Nobody else may put another folder in its place.
	for up := filepath.Dir(dir); ; up = filepath.Dir(up) {
		st, err := os.Stat(up)
		if err != nil {
			return "", fmt.Errorf("cannot use %s: %w", dir, err)
		}
		owner := ownerOf(st)
		if owner != 0 && strconv.Itoa(int(owner)) != os.Getenv("SUDO_UID") {
			return "", fmt.Errorf("cannot use %s: user %d could replace it, as %s is theirs; name one below /tmp or /var/lib", dir, owner, up)
		}
		if st.Mode()&0o022 != 0 && st.Mode()&fs.ModeSticky == 0 {
			return "", fmt.Errorf("cannot use %s: others could replace it, as they may write to %s; name one below /tmp or /var/lib", dir, up)
		}
		if up == "/" {
			return dir, nil
		}
	}
}

func ownerOf(st fs.FileInfo) uint32 { return st.Sys().(*syscall.Stat_t).Uid }

// ownDir makes a folder, or gives an existing one and all in it, to a role: with -dev its user may be another one than
// at the last start. Root's is open to look at, a role's is its alone. It follows no link.
func ownDir(dir string, id launcher.ID) error {
	mode := os.FileMode(0o700)
	if id.UID == 0 {
		mode = 0o755
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("cannot make %s: %w", dir, err)
	}
	st, err := os.Lstat(dir)
	if err == nil && !st.IsDir() {
		err = errors.New("it is not a folder; move it away")
	}
	if err == nil && ownerOf(st) == id.UID && st.Mode().Perm() == mode {
		return nil
	}
	if err == nil && id.UID != 0 {
		err = filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(p, int(id.UID), int(id.GID))
		})
	}
	if err == nil {
		err = os.Chmod(dir, mode)
	}
	if err != nil {
		return fmt.Errorf("cannot use %s: %w", dir, err)
	}
	return nil
}

// privately executes closedpawd again in a mount namespace of its own: whatever it mounts is nobody else's to see, and
// vanishes with its processes.
func privately() error {
	ns, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY, 0) // kept over the execution
	if err != nil {
		return fmt.Errorf("cannot open my mount namespace: %w", err)
	}
	runtime.LockOSThread() // what this thread unshares, the execution gives to the whole process
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("cannot make the mounts private: %w", err)
	}
	argv := append([]string{os.Args[0], "-hostns", strconv.Itoa(ns)}, os.Args[1:]...)
	return fmt.Errorf("cannot execute myself: %w", syscall.Exec("/proc/self/exe", argv, os.Environ()))
}

// mirror shows the run folder at a place that every user of a sandbox can reach, whatever the modes above dir, and
// whose path is short and plain. It exists in the private mount namespace alone; its name is made of dir's, as
// sandboxes that outlived a killed daemon are known by it.
func mirror(run string, needed ...string) (string, error) {
	at, err := spare(append(needed, run))
	if err != nil {
		return "", err
	}
	if err := unix.Mount("closedpaw", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k,mode=711"); err != nil {
		return "", fmt.Errorf("cannot mount on %s: %w", at, err)
	}
	h := fnv.New64a()
	h.Write([]byte(run))
	at = filepath.Join(at, fmt.Sprintf("closedpaw-%016x", h.Sum64()))
	if err := os.Mkdir(at, 0o711); err != nil {
		return "", fmt.Errorf("cannot make %s: %w", at, err)
	}
	if err := unix.Mount(run, at, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("cannot show %s at %s: %w", run, at, err)
	}
	return at, nil
}

// spare finds a folder of the host that may be hidden from the daemon.
func spare(needed []string) (string, error) {
	for _, at := range []string{"/mnt", "/media", "/srv", "/opt"} {
		st, err := os.Lstat(at)
		if err == nil && st.IsDir() && !slices.ContainsFunc(needed, func(p string) bool { return strings.HasPrefix(p, at+"/") }) {
			return at, nil
		}
	}
	return "", errors.New("cannot find a place to mount on: this host has none of /mnt, /media, /srv and /opt")
}

// listen makes the socket; a stale one is replaced, as the lock says that nobody serves it.
func listen(sock string) (*os.File, error) {
	if st, err := os.Lstat(sock); err == nil && st.Mode()&fs.ModeSocket != 0 {
		os.Remove(sock)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		if len(sock) > 107 {
			err = errors.New("the path is longer than a socket's may be; name a folder with a shorter one")
		}
		return nil, fmt.Errorf("cannot listen at %s: %w", sock, err)
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(sock, 0o666); err != nil { // who may do what is decided by the peer's identity
		return nil, fmt.Errorf("cannot open %s to all: %w", sock, err)
	}
	return l.File()
}

// freeIDs finds users for the roles that nobody is: none in the host's files and no process.
func freeIDs() (map[role.Name]launcher.ID, error) {
	const first, last = 60578, 61183 // unused by Debian and systemd: systemd.io/UIDS-GIDS
	used := map[string]bool{}
	for _, file := range []string{"/etc/passwd", "/etc/group"} {
		b, _ := os.ReadFile(file)
		for line := range strings.Lines(string(b)) {
			if w := strings.Split(line, ":"); len(w) > 2 {
				used[w[2]] = true
			}
		}
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot look for free users: %w", err)
	}
	for _, p := range procs {
		if st, err := p.Info(); err == nil {
			used[strconv.Itoa(int(ownerOf(st)))] = true
		}
		b, _ := os.ReadFile(filepath.Join("/proc", p.Name(), "status")) // one that is not dumpable belongs to root
		for line := range strings.Lines(string(b)) {
			if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
				for _, id := range strings.Fields(ids) {
					used[id] = true
				}
			}
		}
	}
	out := map[role.Name]launcher.ID{}
	id := uint32(first)
	for _, name := range []role.Name{role.Control, role.Audit, role.Gateway, role.Agent} {
		for used[strconv.Itoa(int(id))] {
			id++
		}
		if id > last {
			return nil, fmt.Errorf("cannot find free users between %d and %d for the roles", first, last)
		}
		out[name] = launcher.ID{UID: id, GID: id}
		id++
	}
	return out, nil
}
