package launcher

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// folderTime bounds what is done with a folder that a client handed over.
const folderTime = 5 * time.Second

// kinds are the file systems whose folders may be given to a sandbox: local ones that can be idmapped. On another, a
// user's FUSE server say, or a network server, every step could hang.
var kinds = []string{"ext4", "xfs", "btrfs", "tmpfs"}

func refuse(hint, format string, a ...any) error {
	return &role.Failed{Code: api.CodeDenied, Text: fmt.Sprintf(format, a...), Hint: hint}
}

// cloned is the mount of a folder that was found fit, detached.
type cloned struct {
	tree     *os.File
	uid, gid uint32
}

// clone checks a folder that control passed on and clones its mount, in the mount namespace in which clients live:
// elsewhere open_tree fails. It may be called with anything that any user can open. No step reaches a file system
// before its name, as the kernel tells it, was found in kinds. Should one hang all the same, a disk that is gone say,
// the request fails after folderTime and its thread is left to the kernel.
func clone(dir *os.File, owner uint32, hostNS *os.File) (cloned, error) {
	fd, err := unix.FcntlInt(dir.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return cloned{}, fmt.Errorf("cannot take over the folder: %w", err)
	}
	type result struct {
		c   cloned
		err error
	}
	done := make(chan result)
	late := make(chan struct{})
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this function, and its namespace with it
		defer unix.Close(fd)
		var r result
		if r.err = enter(hostNS); r.err == nil {
			r.c, r.err = check(fd, owner)
		}
		select {
		case done <- r:
		case <-late:
			if r.err == nil {
				r.c.tree.Close()
			}
		}
	}()
	select {
	case r := <-done:
		return r.c, r.err
	case <-time.After(folderTime):
		close(late)
		return cloned{}, refuse("is the disk it lies on still there?", "the folder's file system does not answer")
	}
}

func enter(hostNS *os.File) error {
	if hostNS == nil {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("cannot unshare a thread: %w", err)
	}
	if err := unix.Setns(int(hostNS.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("cannot enter the host's mount namespace: %w", err)
	}
	return nil
}

func check(fd int, owner uint32) (c cloned, err error) {
	fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return c, fmt.Errorf("cannot look at the folder: %w", err)
	}
	if fl&unix.O_PATH != 0 || fl&unix.O_ACCMODE != unix.O_RDONLY { // such a one proves no right to read
		return c, refuse("open it with O_RDONLY", "the folder was not opened for reading")
	}
	kind, err := kindOf(fd)
	if err != nil {
		return c, err
	}
	if !slices.Contains(kinds, kind) {
		return c, refuse("copy it to one of "+strings.Join(kinds, ", "), "a folder on file system %s cannot be given to a sandbox", kind)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return c, fmt.Errorf("cannot look at the folder: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return c, refuse("name a folder", "what was handed over is not a folder")
	}
	if st.Uid != owner {
		return c, refuse("give a folder of your own", "the folder belongs to user %d, not to user %d", st.Uid, owner)
	}
	t, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return c, fmt.Errorf("cannot clone the folder's mount: %w", err)
	}
	return cloned{os.NewFile(uintptr(t), "folder"), st.Uid, st.Gid}, nil
}

// kindOf names the file system of an open file without asking it.
func kindOf(fd int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/thread-self/fdinfo/%d", fd))
	if err != nil {
		return "", fmt.Errorf("cannot look at the folder: %w", err)
	}
	id := ""
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			id = strings.TrimSpace(v)
		}
	}
	all, err := mounts("/proc/thread-self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("cannot look at the mounts: %w", err)
	}
	for _, m := range all {
		if m.id == id {
			return m.kind, nil
		}
	}
	return "", refuse("call closedpawctl outside of containers, snaps and other mount namespaces", "the folder is not in a mount of the host")
}

// idmap makes a cloned mount read-only, and its owner's files those of the user that the namespace maps them to.
func idmap(tree, userns *os.File) error {
	err := unix.MountSetattr(int(tree.Fd()), "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_IDMAP | unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
		Propagation: unix.MS_PRIVATE,
		Userns_fd:   uint64(userns.Fd()),
	})
	if err != nil {
		return refuse("a newer kernel may, or copy it to another file system", "the folder's file system cannot be idmapped: %v", err)
	}
	return nil
}
