//go:build linux

package apply

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
)

const within = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// openAt opens a path below dir; nothing of it may be a symbolic link.
func openAt(dir int, p string, flags uint64, mode uint32) (int, error) {
	return open(dir, p, unix.OpenHow{Flags: flags | unix.O_NOFOLLOW, Mode: uint64(mode), Resolve: within})
}

func open(dir int, p string, how unix.OpenHow) (int, error) {
	how.Flags |= unix.O_CLOEXEC
	for range 64 { // the kernel asks to try again when it saw a rename on the way
		fd, err := unix.Openat2(dir, p, &how)
		if err != unix.EAGAIN && err != unix.EINTR {
			return fd, err
		}
	}
	return -1, unix.EAGAIN
}

// in calls f with the parent folder of p and p's last name. Whatever happens to the path from then on, f acts in that folder.
func (j *job) in(p string, f func(dir int, name string) error) error {
	dir, err := j.parent(p)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return f(dir, path.Base(p))
}

func (j *job) parent(p string) (int, error) {
	dir, err := openAt(j.root, path.Dir(p), unix.O_PATH|unix.O_DIRECTORY, 0)
	switch err {
	case nil:
		return dir, nil
	case unix.ELOOP, unix.ENOTDIR, unix.ENOENT: // a folder of the path is none, or none any more
		return -1, errConflict
	}
	return -1, fmt.Errorf("cannot open its folder: %w", err)
}

// expect says whether a name is as the set says it was: its type and the hash of its bytes or target. It returns
// errConflict or, where there is nothing, ENOENT.
func expect(dir int, name string, ch *api.Change) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	typ := st.Mode & unix.S_IFMT
	switch {
	case typ == unix.S_IFREG && ch.Type == api.TypeFile:
		fd, err := openAt(dir, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err == unix.ELOOP {
			return errConflict
		}
		if err != nil {
			return fmt.Errorf("cannot read what is there: %w", err)
		}
		defer unix.Close(fd)
		return expectBytes(fd, ch.Before)
	case typ == unix.S_IFLNK && ch.Type == api.TypeLink:
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(dir, name, b)
		if err == unix.EINVAL {
			return errConflict
		}
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(b[:n]); hex.EncodeToString(sum[:]) != ch.Before {
			return errConflict
		}
		return nil
	case typ == unix.S_IFDIR && ch.Type == api.TypeDir:
		return nil
	}
	return errConflict
}

// expectBytes compares an open file's hash.
func expectBytes(fd int, want string) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errConflict
	}
	h := sha256.New()
	if _, err := io.Copy(h, reader(fd)); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != want {
		return errConflict
	}
	return nil
}

// reader reads a descriptor that stays its owner's.
type reader int

func (r reader) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(r), b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// umask reads this process's own without changing it. Where /proc is missing, what is new is for its owner alone.
func umask() uint32 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o077
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Umask:"); ok {
			if m, err := strconv.ParseUint(strings.TrimSpace(v), 8, 32); err == nil {
				return uint32(m) & 0o777
			}
		}
	}
	return 0o077
}
