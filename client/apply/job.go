//go:build linux

package apply

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
)

// Apply carries c out below root, a directory. file gives the new bytes of a path of Files, which Apply closes; it is called
// in the order of Files, but not for all: what cannot be applied, or has a new mode alone, needs no bytes. The caller has
// compared c.Digest with the one that was approved.
func Apply(root *os.File, c *api.Changes, file func(path string) (*os.File, error)) api.ApplyReport {
	j := &job{root: int(root.Fd()), file: file, umask: umask(), inTheWay: map[string][]api.Change{}, made: map[string]bool{},
		parents: map[string]bool{}, conflicts: map[string]bool{},
		report: api.ApplyReport{Digest: api.Digest(c), Conflicts: []string{}, Failed: []string{}}}
	if j.report.Digest != c.Digest {
		j.note(".", errors.New("nothing was applied: the change set is not the one that its digest names; run it again"))
		return j.report
	}
	if err := c.Check(); err != nil {
		j.note(".", fmt.Errorf("nothing was applied: %w", err))
		return j.report
	}
	j.run(c)
	return j.report
}

type job struct {
	root      int
	file      func(path string) (*os.File, error)
	umask     uint32
	inTheWay  map[string][]api.Change // by the path of what is added: deletions at it and below it, deepest first
	made      map[string]bool         // folders that are new
	parents   map[string]bool         // folders whose entries changed
	conflicts map[string]bool
	report    api.ApplyReport
}

// errConflict means that the folder is not as it was when the set was made.
var errConflict = errors.New("changed meanwhile")

// note counts a change, or says what became of it.
func (j *job) note(p string, err error) {
	switch {
	case err == nil:
		j.report.Applied++
	case !errors.Is(err, errConflict):
		j.report.Failed = append(j.report.Failed, p+": "+err.Error())
	case !j.conflicts[p]:
		j.conflicts[p] = true
		j.report.Conflicts = append(j.report.Conflicts, p)
	}
}

// run has an order in which each step finds what it needs: folders that can be written in, then files, then links, when
// what they lead to is there. What is deleted goes last, and folders get their modes when nothing is to be written in them.
func (j *job) run(c *api.Changes) {
	added, modified := slices.Clone(c.Added), slices.Clone(c.Modified)
	slices.SortFunc(added, byPath)
	slices.SortFunc(modified, byPath)
	late := j.sortDeletions(c)
	for i := range modified {
		if modified[i].Type == api.TypeDir {
			j.openUp(&modified[i])
		}
	}
	for i := range added {
		if added[i].Type == api.TypeDir {
			j.note(added[i].Path, j.makeDir(&added[i]))
		}
	}
	for _, typ := range []string{api.TypeFile, api.TypeLink} {
		for i := range c.Added { // in the order of Files
			if ch := &c.Added[i]; ch.Type == typ {
				j.note(ch.Path, j.add(ch))
			}
		}
		for i := range c.Modified {
			if ch := &c.Modified[i]; ch.Type == typ {
				j.note(ch.Path, j.modify(ch))
			}
		}
	}
	for i := range c.Renamed {
		if old := j.rename(&c.Renamed[i]); old != nil {
			late = append(late, *old)
		}
	}
	slices.SortFunc(late, deepest)
	j.delete(late)
	for _, ch := range slices.Backward(added) {
		if j.made[ch.Path] {
			if err := j.setMode(&ch, false); err != nil {
				j.note(ch.Path, err)
			}
		}
	}
	for _, ch := range slices.Backward(modified) {
		if ch.Type == api.TypeDir {
			j.note(ch.Path, j.setMode(&ch, true))
		}
	}
	j.sync()
}

func byPath(a, b api.Change) int  { return strings.Compare(a.Path, b.Path) }
func deepest(a, b api.Change) int { return strings.Compare(b.Path, a.Path) }

// sortDeletions puts those at or below a path where something else will be aside, and returns the others.
func (j *job) sortDeletions(c *api.Changes) (late []api.Change) {
	deleted := map[string]bool{}
	for _, ch := range c.Deleted {
		deleted[ch.Path] = true
	}
	replaced := map[string]bool{}
	for _, ch := range c.Added {
		replaced[ch.Path] = deleted[ch.Path]
	}
	list := slices.Clone(c.Deleted)
	slices.SortFunc(list, deepest)
	for _, ch := range list {
		p := ch.Path
		for p != "." && !replaced[p] {
			p = path.Dir(p)
		}
		if p == "." {
			late = append(late, ch)
		} else {
			j.inTheWay[p] = append(j.inTheWay[p], ch)
		}
	}
	return late
}

func (j *job) delete(list []api.Change) {
	for i := range list {
		j.note(list[i].Path, j.remove(&list[i]))
	}
}

// add brings a new file or link to its place. Its bytes are on disk before what stands there is touched.
func (j *job) add(ch *api.Change) error {
	s, err := j.stage(ch, false)
	if err != nil {
		return err
	}
	defer s.close()
	old := j.inTheWay[ch.Path]
	if len(old) == 1 && old[0].Type != api.TypeDir { // a file became a link, or the reverse: in one step
		if err := s.exchange(&old[0]); err != nil {
			return err
		}
		j.note(old[0].Path, nil)
		return nil
	}
	j.delete(old)
	return s.appear()
}

func (j *job) modify(ch *api.Change) error {
	if ch.Type == api.TypeFile && ch.SHA256 == ch.Before {
		return j.chmod(ch)
	}
	s, err := j.stage(ch, true)
	if err != nil {
		return err
	}
	defer s.close()
	return s.exchange(ch)
}

// rename writes the new file and returns the old one, to be deleted.
func (j *job) rename(ch *api.Change) *api.Change {
	old := &api.Change{Path: ch.From, Type: api.TypeFile, Before: ch.Before}
	err := j.in(old.Path, func(dir int, name string) error { return conflictIfGone(expect(dir, name, old)) })
	if err != nil {
		j.note(ch.From, err)
		return nil
	}
	if err := j.add(ch); err != nil {
		j.note(ch.Path, err)
		return nil
	}
	return old
}

// sync makes the changed folders themselves durable; the files are already.
func (j *job) sync() {
	for p := range j.parents {
		fd, err := openAt(j.root, p, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil { // gone again, or it cannot be read: then only the kernel's own schedule is left
			continue
		}
		err = unix.Fsync(fd)
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.EINVAL) {
			j.note(p, fmt.Errorf("cannot write the folder to disk: %w", err))
		}
	}
}
