package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// unfinished is how the names of what is being made begin. They stand in etc itself: in the policy folder they would
// be files that nobody signed.
const unfinished = ".setup-"

// dir is the configuration folder, locked against another setup.
type dir struct {
	name    string
	lock    *os.File
	created []string
}

// open checks and locks the folder, which it may make, and removes what an earlier setup did not finish.
func open(name string, create bool) (*dir, error) {
	d := &dir{name: name}
	if create {
		err := os.Mkdir(name, 0o755)
		if err == nil {
			d.created = append(d.created, name)
			err = os.Chmod(name, 0o755) // whatever the umask
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("cannot make the configuration folder: %w", err)
		}
	}
	if err := owned(name, fs.ModeDir, 0o022); err != nil {
		return nil, err
	}
	var err error
	if d.lock, err = os.Open(name); err != nil {
		return nil, fmt.Errorf("cannot open the configuration folder: %w", err)
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX); err != nil {
		d.close()
		return nil, fmt.Errorf("cannot lock %s: %w", name, err)
	}
	left, err := d.lock.ReadDir(-1)
	for _, e := range left {
		if err == nil && strings.HasPrefix(e.Name(), unfinished) {
			err = os.RemoveAll(d.path(e.Name()))
		}
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("cannot clean %s: %w", name, err)
	}
	return d, nil
}

func (d *dir) close() { d.lock.Close() }

func (d *dir) path(elem ...string) string {
	return filepath.Join(append([]string{d.name}, elem...)...)
}

// there says whether something has the name, whatever it is.
func (d *dir) there(name string) (bool, error) {
	_, err := os.Lstat(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot look for %s: %w", d.path(name), err)
	}
	return true, nil
}

// check looks at all that the daemon will rely on.
func (d *dir) check() error {
	for _, c := range []struct {
		name   string
		kind   fs.FileMode
		others fs.FileMode // what group and others must not be able to do
	}{
		{Config, 0, 0o022},
		{Signers, 0, 0o022},
		{Policy, fs.ModeDir, 0o022},
		{Keys, fs.ModeDir, 0o077},
		{Key, 0, 0o077},
	} {
		err := owned(d.path(c.name), c.kind, c.others)
		if c.name == Key && errors.Is(err, fs.ErrNotExist) {
			continue // the administrator's own key signs
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// owned makes sure that path is what it should be, belongs to whom this process runs as (root), and cannot be used by
// others for what it must not.
func owned(path string, kind, others fs.FileMode) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot use %s: %w: closedpawd -setup makes what is missing", path, fs.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("cannot look at %s: %w", path, err)
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	mode := st.Mode()
	switch {
	case mode.Type() != kind && kind == fs.ModeDir:
		return fmt.Errorf("cannot use %s: it is not a folder (links are not followed): move it away", path)
	case mode.Type() != kind:
		return fmt.Errorf("cannot use %s: it is not a regular file (links are not followed): move it away", path)
	case !ok || int64(sys.Uid) != int64(os.Geteuid()):
		return fmt.Errorf("cannot use %s: it must belong to root: chown root %s", path, path)
	case mode.Perm()&others != 0 && others == 0o077:
		return fmt.Errorf("cannot use %s: others may get at it: chmod go-rwx %s", path, path)
	case mode.Perm()&others != 0:
		return fmt.Errorf("cannot use %s: others may write to it: chmod go-w %s", path, path)
	}
	return nil
}

// folder makes a folder that is empty at first.
func (d *dir) folder(name string, mode fs.FileMode) error {
	if there, err := d.there(name); err != nil {
		return err
	} else if there {
		return owned(d.path(name), fs.ModeDir, 0o777&^mode)
	}
	if err := os.Mkdir(d.path(name), mode); err != nil {
		return fmt.Errorf("cannot make a folder: %w", err)
	}
	d.created = append(d.created, d.path(name))
	return nil
}

// make writes a file that is missing.
func (d *dir) make(name string, b []byte, mode fs.FileMode) error {
	if err := d.write(name, b, mode); err != nil {
		return err
	}
	d.created = append(d.created, d.path(name))
	return nil
}

// write puts a file in place, whole and on disk, or not at all.
func (d *dir) write(name string, b []byte, mode fs.FileMode) error {
	tmp := d.path(unfinished + "file")
	if err := writeFile(tmp, b, mode); err != nil {
		return err
	}
	return d.rename(tmp, name)
}

// makeFolder puts a folder of files in place, whole and on disk, or not at all.
func (d *dir) makeFolder(name string, files map[string][]byte) error {
	tmp := d.path(unfinished + "folder")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return fmt.Errorf("cannot make a folder: %w", err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("cannot make a folder: %w", err)
	}
	for _, f := range slices.Sorted(maps.Keys(files)) {
		if err := writeFile(filepath.Join(tmp, f), files[f], 0o644); err != nil {
			return err
		}
	}
	if err := syncFolder(tmp); err != nil {
		return err
	}
	if err := d.rename(tmp, name); err != nil {
		return err
	}
	d.created = append(d.created, d.path(name))
	return nil
}

func (d *dir) rename(tmp, name string) error {
	if err := os.Rename(tmp, d.path(name)); err != nil {
		return fmt.Errorf("cannot put %s in place: %w", d.path(name), err)
	}
	return syncFolder(filepath.Dir(d.path(name)))
}

func writeFile(path string, b []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("cannot make a file: %w", err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return nil
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot open a folder: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot write the folder %s: %w", path, err)
	}
	return nil
}
