package launcher

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/wire"
)

// setup is what the launcher tells stage 1, as one argument. Stage 2 does not get it.
type setup struct {
	UID     uint32            `json:"uid"`
	GID     uint32            `json:"gid"`
	Sources map[string]string `json:"sources"` // host paths of the row's binds
}

// Stage1 turns this process, which the launcher cloned into namespaces of its own, into a confined role: an empty root
// folder with the row's binds, no privilege, no descriptor but those of the row. It ends in executing itself again and
// so returns only an error. It gives up privileges and gains none, so whoever may call it as root learns nothing new.
func Stage1(name role.Name, arg string) error {
	runtime.LockOSThread() // all below is about this thread; execveat makes it the only one
	row, ok := role.Table[name]
	if !ok {
		return fmt.Errorf("cannot start role %q: there is none of this name", name)
	}
	var s setup
	if err := wire.Decode([]byte(arg), &s); err != nil || s.UID == 0 || s.GID == 0 {
		return fmt.Errorf("cannot start role %q: only closedpawd itself starts roles", name)
	}
	if err := emptyRoot(row, s.Sources); err != nil {
		return fmt.Errorf("cannot give %s its root folder: %w", name, err)
	}
	if err := drop(name, s); err != nil {
		return err
	}
	// Everything but 0..2 and what was handed goes away at execveat; 3 is the executable itself.
	if err := unix.CloseRange(3, 3, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("cannot mark the executable: %w", err)
	}
	if err := unix.CloseRange(uint(role.FirstFD+len(row.Links)+len(row.Extra)), 1<<32-1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("cannot mark what was inherited: %w", err)
	}
	for i := 0; ; i++ {
		// More threads than that would only cost memory; control and gateway alone serve many at once.
		err := execveat(3, []string{"closedpawd", "-role", string(name)}, []string{"GOMAXPROCS=4"})
		if i == 50 || !errors.Is(err, unix.EAGAIN) { // a clone by the runtime at the same moment: golang.org/issue/19546
			return fmt.Errorf("cannot execute myself: %w", err)
		}
	}
}

// emptyRoot makes a tmpfs the root, with just the row's binds in it, and lets go of the old one.
func emptyRoot(row role.Row, sources map[string]string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make / private: %w", err)
	}
	fs, err := newFS("tmpfs", "size", "64k", "nr_inodes", "32", "mode", "755")
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return fmt.Errorf("cannot mount tmpfs: %w", err)
	}
	defer unix.Close(root)
	// On top of / itself: no mount point is needed anywhere.
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("cannot attach tmpfs: %w", err)
	}
	for _, b := range row.Binds {
		src, ok := sources[b.Source]
		if !ok && !b.Dir { // a host without this file; its reader copes
			continue
		}
		if err := bindIn(root, src, b); err != nil {
			return fmt.Errorf("cannot bind %s: %w", b.Source, err)
		}
	}
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("cannot pivot: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot detach the old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("cannot make / read-only: %w", err)
	}
	return nil
}

func bindIn(root int, src string, b role.Bind) error {
	attr := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC)
	if !b.Write {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	fd, err := cloneTree(unix.AT_FDCWD, src, attr)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	dst := strings.TrimPrefix(b.Target, "/")
	parts := strings.Split(dst, "/")
	for i := range parts[:len(parts)-1] {
		if err := unix.Mkdirat(root, path.Join(parts[:i+1]...), 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	if b.Dir {
		err = unix.Mkdirat(root, dst, 0o755)
	} else {
		err = unix.Mknodat(root, dst, unix.S_IFREG|0o444, 0)
	}
	if err != nil {
		return err
	}
	return unix.MoveMount(fd, "", root, dst, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// drop gives up everything, for this thread.
func drop(name role.Name, s setup) error {
	files := uint64(256)
	if name == role.Control { // clients, agents, and the control sockets of sandboxes
		files = 4096
	}
	for what, n := range map[int]uint64{unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: files} {
		if err := unix.Prlimit(0, what, &unix.Rlimit{Cur: n, Max: n}, nil); err != nil {
			return fmt.Errorf("cannot set a resource limit: %w", err)
		}
	}
	for c := uintptr(0); ; c++ { // needs CAP_SETPCAP: so before capset
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) && c > unix.CAP_LAST_CAP-8 { // this kernel has no more
			break
		}
		if err != nil {
			return fmt.Errorf("cannot drop capability %d: %w", c, err)
		}
	}
	// Raw calls: with cgo, unix.Setuid would go through libc to every thread.
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return fmt.Errorf("cannot drop groups: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(s.GID), uintptr(s.GID), uintptr(s.GID)); e != 0 {
		return fmt.Errorf("cannot set gid: %w", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(s.UID), uintptr(s.UID), uintptr(s.UID)); e != 0 {
		return fmt.Errorf("cannot set uid: %w", e)
	}
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capset(&h, &d[0]); err != nil {
		return fmt.Errorf("cannot clear capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot set no_new_privs: %w", err)
	}
	// setresuid cleared the signal that the launcher had set at clone.
	parent := os.Getppid()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("cannot set the death signal: %w", err)
	}
	if parent == 1 || os.Getppid() != parent {
		return errors.New("the launcher is gone")
	}
	return nil
}
