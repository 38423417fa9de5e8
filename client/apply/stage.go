//go:build linux

package apply

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
)

// staged is a new file or link, complete, under a temporary name beside its place.
type staged struct {
	dir       int // the folder of both names
	name, tmp string
	dev, ino  uint64 // what tmp is
	path      string
}

func tempName() string { return ".closedpaw-" + rand.Text() }

// stage writes ch beside its place.
func (j *job) stage(ch *api.Change, modified bool) (*staged, error) {
	dir, err := j.parent(ch.Path)
	if err != nil {
		return nil, err
	}
	s := &staged{dir: dir, name: path.Base(ch.Path), tmp: tempName(), path: ch.Path}
	if ch.Type == api.TypeLink {
		err = j.writeLink(s, ch)
	} else {
		err = j.writeFile(s, ch, modified)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	j.parents[path.Dir(ch.Path)] = true
	return s, nil
}

// close removes what is still under the temporary name, if it is what this wrote.
func (s *staged) close() {
	if s.ours() {
		_ = unix.Unlinkat(s.dir, s.tmp, 0) // a leftover is named .closedpaw-…
	}
	unix.Close(s.dir)
}

func (s *staged) ours() bool {
	var st unix.Stat_t
	return s.ino != 0 && unix.Fstatat(s.dir, s.tmp, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Ino == s.ino && st.Dev == s.dev
}

// remember notes what tmp is.
func (s *staged) remember(st *unix.Stat_t) { s.dev, s.ino = st.Dev, st.Ino }

func (j *job) writeFile(s *staged, ch *api.Change, modified bool) error {
	src, err := j.file(ch.Path)
	if err != nil {
		return fmt.Errorf("cannot get its new bytes: %w", err)
	}
	defer src.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("cannot get its new bytes: the daemon sent no regular file")
	}
	fd, err := openAt(s.dir, s.tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("cannot write beside it: %w", err)
	}
	f := os.NewFile(uintptr(fd), s.tmp)
	defer f.Close()
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("cannot write beside it: %w", err)
	}
	s.remember(&st)
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(io.NewSectionReader(src, 0, 1<<62), ch.Size+1))
	if err != nil {
		return fmt.Errorf("cannot write its new bytes: %w", err)
	}
	if n != ch.Size || hex.EncodeToString(h.Sum(nil)) != ch.SHA256 {
		return errors.New("cannot use its new bytes: they are not those that were shown")
	}
	mode := ch.Mode & 0o777
	switch {
	case modified:
		var old unix.Stat_t
		if unix.Fstatat(s.dir, s.name, &old, unix.AT_SYMLINK_NOFOLLOW) == nil && (old.Uid != st.Uid || old.Gid != st.Gid) {
			if unix.Fchown(fd, int(old.Uid), int(old.Gid)) != nil {
				_ = unix.Fchown(fd, -1, int(old.Gid)) // as good as it goes: the person may not be in the group
			}
		}
	case ch.From == "":
		mode &^= j.umask
	}
	if err := unix.Fchmod(fd, mode); err != nil {
		return fmt.Errorf("cannot set its mode: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot write it to disk: %w", err)
	}
	return nil
}

func (j *job) writeLink(s *staged, ch *api.Change) error {
	if err := unix.Symlinkat(ch.Target, s.dir, s.tmp); err != nil {
		return fmt.Errorf("cannot write beside it: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(s.dir, s.tmp, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("cannot write beside it: %w", err)
	}
	s.remember(&st)
	// The kernel follows it through this folder as it is now; the daemon could see only the sandbox's.
	fd, err := open(j.root, path.Join(path.Dir(ch.Path), s.tmp),
		unix.OpenHow{Flags: unix.O_PATH, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS})
	switch err {
	case nil:
		unix.Close(fd)
	case unix.EXDEV:
		return errors.New("cannot make the link: it leaves the folder")
	}
	return nil
}

// appear gives the name to what was staged, if nothing has it.
func (s *staged) appear() error {
	err := unix.Renameat2(s.dir, s.tmp, s.dir, s.name, unix.RENAME_NOREPLACE)
	if err == unix.EEXIST {
		return errConflict
	}
	if err != nil {
		return fmt.Errorf("cannot bring it to its place: %w", err)
	}
	return nil
}

// exchange puts what was staged in the place of what the set says was there. The two change names in one step; only then
// it is sure what came out, and if that is not the old one, they change back.
func (s *staged) exchange(ch *api.Change) error {
	if err := expect(s.dir, s.name, ch); err != nil {
		return conflictIfGone(err)
	}
	if err := unix.Renameat2(s.dir, s.tmp, s.dir, s.name, unix.RENAME_EXCHANGE); err != nil {
		return conflictIfGone(err)
	}
	bad := expect(s.dir, s.tmp, ch)
	if bad == nil {
		if err := unix.Unlinkat(s.dir, s.tmp, 0); err != nil {
			return fmt.Errorf("it was changed, but its old bytes are still there as %s: %w", s.tmp, err)
		}
		return nil
	}
	err := unix.Renameat2(s.dir, s.tmp, s.dir, s.name, unix.RENAME_EXCHANGE)
	if err == unix.ENOENT { // the new one was removed in between
		err = unix.Renameat2(s.dir, s.tmp, s.dir, s.name, unix.RENAME_NOREPLACE)
		if err == nil {
			return errConflict
		}
	}
	if err != nil || !s.ours() { // a second edit came in between: both are kept
		return fmt.Errorf("it changed twice meanwhile: one of the edits is in %s", s.tmp)
	}
	return conflictIfGone(bad)
}

// conflictIfGone is err; that there is nothing, or a link where there was none, is a conflict.
func conflictIfGone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) {
		return errConflict
	}
	return err
}
