//go:build linux

package apply

import (
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
)

// makeDir makes a folder in which this user can write until setMode.
func (j *job) makeDir(ch *api.Change) error {
	j.delete(j.inTheWay[ch.Path])
	return j.in(ch.Path, func(dir int, name string) error {
		err := unix.Mkdirat(dir, name, ch.Mode&0o777|0o700)
		if err == unix.EEXIST {
			var st unix.Stat_t
			if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				return nil // somebody made it meanwhile: as good
			}
			return errConflict
		}
		if err != nil {
			return fmt.Errorf("cannot make the folder: %w", err)
		}
		j.made[ch.Path], j.parents[path.Dir(ch.Path)] = true, true
		return nil
	})
}

// openUp lets this user write in a folder whose mode changes, until setMode.
func (j *job) openUp(ch *api.Change) {
	fd, err := openAt(j.root, ch.Path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return // setMode says so
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil && st.Mode&0o700 != 0o700 {
		_ = unix.Fchmod(fd, st.Mode&0o7777|0o700) // what then cannot be written says so
	}
}

// setMode gives a folder its mode: exactly, or of a new one what is left after the umask. It keeps set-group-id and
// sticky bits that a folder has here.
func (j *job) setMode(ch *api.Change, exactly bool) error {
	fd, err := openAt(j.root, ch.Path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("cannot set its mode: %w", conflictIfNoDir(conflictIfGone(err)))
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("cannot set its mode: %w", err)
	}
	mode := ch.Mode & 0o777
	if !exactly {
		mode &= st.Mode
	}
	if mode |= st.Mode & 0o7000; mode == st.Mode&0o7777 {
		return nil
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("cannot set its mode: %w", err)
	}
	return nil
}

// chmod changes the mode of a file that has the bytes of the set, and nothing else of it.
func (j *job) chmod(ch *api.Change) error {
	return j.in(ch.Path, func(dir int, name string) error {
		fd, err := openAt(dir, name, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			return conflictIfGone(err)
		}
		defer unix.Close(fd)
		if err := expectBytes(fd, ch.Before); err != nil {
			return err
		}
		if err := unix.Fchmod(fd, ch.Mode&0o777); err != nil {
			return fmt.Errorf("cannot set its mode: %w", err)
		}
		return nil
	})
}
