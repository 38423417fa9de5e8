package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// newFS opens and configures a file system; options are pairs of name and value.
func newFS(kind string, options ...string) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("cannot open %s: %w", kind, err)
	}
	for i := 0; i < len(options); i += 2 {
		if err := unix.FsconfigSetString(fs, options[i], options[i+1]); err != nil {
			unix.Close(fs)
			return -1, fmt.Errorf("cannot set %s of %s: %w", options[i], kind, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		b := make([]byte, 512) // the kernel says more in the context's log
		n, _ := unix.Read(fs, b)
		unix.Close(fs)
		return -1, fmt.Errorf("cannot create %s: %w %s", kind, err, strings.TrimSpace(string(b[:max(n, 0)])))
	}
	return fs, nil
}

// mountFS makes a file system and attaches it.
func mountFS(at, kind string, options ...string) error {
	fs, err := newFS(kind, options...)
	if err != nil {
		return err
	}
	defer unix.Close(fs)
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return fmt.Errorf("cannot mount %s: %w", kind, err)
	}
	defer unix.Close(m)
	return attach(m, at)
}

func attach(tree int, at string) error {
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("cannot attach to %s: %w", at, err)
	}
	return nil
}

// cloneTree returns a detached copy, with these attributes, of the mount that the path lies in. Submounts are left out.
func cloneTree(dir int, path string, attr uint64) (int, error) {
	fd, err := unix.OpenTree(dir, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return -1, fmt.Errorf("cannot clone the mount of %s: %w", path, err)
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attr, Propagation: unix.MS_PRIVATE}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("cannot restrict the mount of %s: %w", path, err)
	}
	return fd, nil
}

// readOnly opens a folder so that nothing below it can be written through the descriptor.
func readOnly(path string) (*os.File, error) {
	t, err := cloneTree(unix.AT_FDCWD, path, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(t)
	fd, err := unix.Openat(t, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// mountLine is what is needed of a line of /proc/PID/mountinfo.
type mountLine struct{ id, root, point, kind, super string }

// mounts reads a mountinfo file: proc_pid_mountinfo(5).
func mounts(file string) ([]mountLine, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseMounts(string(b))
}

// parseMounts takes single spaces, not runs of them, for separators: whoever mounts may leave the source empty.
func parseMounts(text string) (out []mountLine, err error) {
	for line := range strings.Lines(text) {
		head, tail, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		h, t := strings.Split(head, " "), strings.Split(tail, " ")
		if !ok || len(h) < 6 || len(t) != 3 {
			return nil, fmt.Errorf("cannot understand the mount %q", line)
		}
		out = append(out, mountLine{h[0], unescape(h[3]), unescape(h[4]), t[0], t[2]})
	}
	return out, nil
}

// unescape undoes the kernel's \ooo for space, tab, newline and backslash.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountsBelow lists the mount points at and below dir, the latest first.
func mountsBelow(dir string) ([]string, error) {
	all, err := mounts("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, m := range all {
		if m.point == dir || strings.HasPrefix(m.point, dir+"/") {
			out = append(out, m.point)
		}
	}
	slices.Reverse(out)
	return out, nil
}

// removeTree unmounts all below dir, then removes dir. It removes nothing while anything is mounted there: what is
// mounted is the person's folder or the host's own.
func removeTree(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	below, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for _, m := range below {
		if err := unix.Unmount(m, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("cannot unmount %s: %w", m, err)
		}
	}
	if below, err = mountsBelow(dir); err != nil || len(below) > 0 {
		return fmt.Errorf("cannot remove %s: %d mounts are still in it: %w", dir, len(below), err)
	}
	return os.RemoveAll(dir)
}
