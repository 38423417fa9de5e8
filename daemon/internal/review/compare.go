package review

import (
	"errors"
	"fmt"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
)

const (
	pathDir = unix.O_PATH | unix.O_DIRECTORY
	special = unix.S_ISUID | unix.S_ISGID | unix.S_ISVTX
)

// compare looks at one name of a folder: now is what merged has, old what lower has (nil: no such folder). gone says
// that the name is deleted.
func (s *scanner) compare(f folder, name string, now, old *os.File) (gone bool, err error) {
	if err := s.inTime(); err != nil {
		return false, err
	}
	p := path.Join(f.path, name)
	st, is, err := stat(now, name)
	if err != nil {
		return false, s.refuse(p, unreadable)
	}
	var was unix.Stat_t
	had := false
	if old != nil {
		if was, had, err = stat(old, name); err != nil {
			return false, s.refuse(p, unreadable)
		}
	}
	if !is {
		if had {
			_, err = s.delete(p, f.depth+1)
		}
		return true, err
	}
	if bad := api.NameProblem(name); bad != "" {
		return false, s.refuse(p, "its name "+bad)
	}
	if len(p) > api.MaxPath {
		return false, s.refuse(p, "its path is too long")
	}
	e := entry{path: p, name: name, now: now, old: old, st: st, was: was, had: had, depth: f.depth + 1}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return false, s.dir(e)
	case unix.S_IFREG:
		return false, s.file(e)
	case unix.S_IFLNK:
		return false, s.link(e)
	case unix.S_IFIFO:
		return false, s.refuse(p, "it is a FIFO")
	case unix.S_IFSOCK:
		return false, s.refuse(p, "it is a socket")
	}
	return false, s.refuse(p, "it is a device")
}

// entry is one name on both sides.
type entry struct {
	path, name string
	now, old   *os.File // the folders that it is in
	st, was    unix.Stat_t
	had        bool // was is set
	depth      int
}

func (e *entry) hadType(t uint32) bool { return e.had && e.was.Mode&unix.S_IFMT == t }

func (e *entry) change(typ string) change {
	return change{Change: api.Change{Path: e.path, Type: typ, Mode: e.st.Mode & 0o777}, oldMode: e.was.Mode & 0o777}
}

// place lists a new thing as added, and what of another type stood there as deleted; or it refuses both.
func (s *scanner) place(e entry, c change) (ok bool, err error) {
	if e.had {
		mark := len(s.lists[deleted])
		ok, err := s.delete(e.path, e.depth)
		if err != nil {
			return false, err
		}
		if !ok {
			s.lists[deleted] = s.lists[deleted][:mark]
			return false, s.refuse(e.path, "it replaces what cannot be deleted")
		}
	}
	return true, s.add(added, c)
}

func (s *scanner) dir(e entry) error {
	if e.depth > maxDepth {
		return s.refuse(e.path, fmt.Sprintf("it is more than %d folders deep", maxDepth))
	}
	c := e.change(api.TypeDir)
	old := e.hadType(unix.S_IFDIR)
	if !old {
		if ok, err := s.place(e, c); err != nil || !ok {
			return err
		}
	} else if c.oldMode != c.Mode {
		if err := s.add(modified, c); err != nil {
			return err
		}
	}
	s.todo = append(s.todo, folder{path: e.path, old: old, depth: e.depth})
	return nil
}

func (s *scanner) file(e entry) error {
	old := e.hadType(unix.S_IFREG)
	bits := e.st.Mode & special
	if bits != 0 && (!old || e.was.Mode&special != bits) {
		return s.refuse(e.path, "it has a set-id or sticky bit")
	}
	if why := s.tooLarge(e.st.Size); why != "" {
		return s.refuse(e.path, why)
	}
	now, err := s.sum(e.now, e.name, e.st.Size)
	if errors.Is(err, errBound) {
		return err
	}
	if err != nil {
		return s.refuse(e.path, unreadable)
	}
	c := e.change(api.TypeFile)
	c.Size, c.SHA256, c.Binary = now.size, now.hash, !now.text
	if !old {
		_, err := s.place(e, c)
		return err
	}
	if why := s.tooLarge(e.was.Size); why != "" {
		return s.refuse(e.path, why)
	}
	was, err := s.sum(e.old, e.name, e.was.Size)
	if errors.Is(err, errBound) {
		return err
	}
	if err != nil {
		return s.refuse(e.path, unreadable)
	}
	switch {
	case was.hash == now.hash && (e.st.Mode^e.was.Mode)&0o7777 == 0: // touched, or renamed away and back
		return nil
	case bits != 0:
		return s.refuse(e.path, "it has a set-id or sticky bit")
	}
	c.Before, c.oldSize, c.Binary = was.hash, was.size, c.Binary || !was.text
	return s.add(modified, c)
}

func (s *scanner) tooLarge(size int64) string {
	if size > s.lim.Bytes {
		return fmt.Sprintf("it is larger than %d bytes", s.lim.Bytes)
	}
	return ""
}

// sum hashes a file; all that is read counts.
func (s *scanner) sum(dir *os.File, p string, size int64) (sum, error) {
	enough := fmt.Errorf("%w: what was changed has more than %d bytes", errBound, s.lim.Bytes)
	if s.bytes+size > 2*s.lim.Bytes { // the old bytes and the new ones
		return sum{}, enough
	}
	f, err := openFile(dir, p)
	if err != nil {
		return sum{}, err
	}
	defer f.Close()
	return digest(f, s.buf, func(n int) error {
		if s.bytes += int64(n); s.bytes > 2*s.lim.Bytes {
			return enough
		}
		return s.inTime()
	})
}

func (s *scanner) link(e entry) error {
	target, err := readlink(e.now, e.name)
	if err != nil {
		return s.refuse(e.path, unreadable)
	}
	c := e.change(api.TypeLink)
	c.Mode, c.Target = 0, target
	if e.hadType(unix.S_IFLNK) {
		was, err := readlink(e.old, e.name)
		if err != nil {
			return s.refuse(e.path, unreadable)
		}
		if was == target {
			return nil
		}
		c.Before = hexOf([]byte(was))
	}
	if why := api.LinkProblem(e.path, target); why != "" {
		return s.refuse(e.path, why)
	}
	if why := leads(s.merged, e.path, target); why != "" {
		return s.refuse(e.path, why)
	}
	if c.Before != "" {
		return s.add(modified, c)
	}
	_, err = s.place(e, c)
	return err
}

// delete lists a path of lower, and what is below it, as deleted; ok is false if some of it has to stay.
func (s *scanner) delete(p string, depth int) (ok bool, err error) {
	keep := func(why string) (bool, error) { return false, s.refuse(p, why) }
	if bad := api.NameProblem(path.Base(p)); bad != "" {
		return keep("its name " + bad)
	}
	if len(p) > api.MaxPath || depth > maxDepth {
		return keep("its path is too long")
	}
	dir, err := openAt(s.lower, path.Dir(p), pathDir)
	if err != nil {
		return keep(unreadable)
	}
	defer dir.Close()
	st, is, err := stat(dir, path.Base(p))
	if err != nil {
		return keep(unreadable)
	}
	if !is { // the person was faster
		return true, nil
	}
	c := change{Change: api.Change{Path: p, Mode: st.Mode & 0o777}}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		if why := s.tooLarge(st.Size); why != "" {
			return keep(why)
		}
		was, err := s.sum(dir, path.Base(p), st.Size)
		if errors.Is(err, errBound) {
			return false, err
		}
		if err != nil {
			return keep(unreadable)
		}
		c.Type, c.Size, c.Before, c.Binary = api.TypeFile, was.size, was.hash, !was.text
	case unix.S_IFLNK:
		target, err := readlink(dir, path.Base(p))
		if err != nil {
			return keep(unreadable)
		}
		c.Type, c.Mode, c.Before = api.TypeLink, 0, hexOf([]byte(target))
		if api.NameProblem(target) == "" && len(target) <= api.MaxPath {
			c.Target = target
		}
	case unix.S_IFDIR:
		whole, err := s.deleteBelow(p, depth)
		if err != nil {
			return false, err
		}
		if !whole {
			return keep("it holds what cannot be deleted")
		}
		c.Type = api.TypeDir
	default:
		return keep("it is a device, FIFO or socket")
	}
	return true, s.add(deleted, c)
}

func (s *scanner) deleteBelow(p string, depth int) (whole bool, err error) {
	dir, err := openDir(s.lower, p)
	if err != nil {
		return false, s.refuse(p, unreadable)
	}
	names, err := s.names(dir)
	dir.Close()
	if err != nil {
		return false, err
	}
	whole = true
	for _, name := range names {
		ok, err := s.delete(path.Join(p, name), depth+1)
		if err != nil {
			return false, err
		}
		whole = whole && ok
	}
	return whole, nil
}
