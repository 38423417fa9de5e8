//go:build linux

package apply

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
)

// remove deletes what the set says was there. That it is gone already is as good.
func (j *job) remove(ch *api.Change) error {
	dir, err := openAt(j.root, path.Dir(ch.Path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return conflictIfNoDir(err)
	}
	defer unix.Close(dir)
	err = removeAt(dir, path.Base(ch.Path), ch)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err == nil {
		j.parents[path.Dir(ch.Path)] = true
	}
	return err
}

func removeAt(dir int, name string, ch *api.Change) error {
	if ch.Type == api.TypeDir {
		err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
		if err == unix.ENOTEMPTY || err == unix.EEXIST {
			return errConflict
		}
		return conflictIfNoDir(err)
	}
	if err := expect(dir, name, ch); err != nil {
		return err
	}
	// Out of the way first: only what nobody finds by its name any more is looked at for the last time.
	tmp := tempName()
	if err := unix.Renameat2(dir, name, dir, tmp, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	if bad := expect(dir, tmp, ch); bad != nil {
		if err := unix.Renameat2(dir, tmp, dir, name, unix.RENAME_NOREPLACE); err != nil {
			return fmt.Errorf("it changed meanwhile and is now %s: %w", tmp, err)
		}
		return bad
	}
	return unix.Unlinkat(dir, tmp, 0)
}

func conflictIfNoDir(err error) error {
	if err == unix.ENOTDIR || err == unix.ELOOP {
		return errConflict
	}
	return err
}
