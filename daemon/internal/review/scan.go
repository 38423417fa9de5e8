package review

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// The kinds of a role.Change.
const (
	added    = "added"
	modified = "modified"
	deleted  = "deleted"
	renamed  = "renamed"
	refused  = "refused"
)

var kinds = []string{added, modified, deleted, renamed, refused}

// Bounds that no message widens.
const (
	maxDepth = 128              // folders below each other
	scanTime = 90 * time.Second // for all of a scan
)

var errBound = errors.New("bound reached")

// change is an api.Change with what only the diff needs.
type change struct {
	api.Change
	oldMode uint32
	oldSize int64
}

// result is what a scan found, each list sorted by path.
type result struct {
	lists    map[string][]change
	deadline time.Time
}

// scanner walks the folders of upper.
type scanner struct {
	lower, upper, merged *os.File
	lim                  role.Scan
	deadline             time.Time
	entries, listed      int
	bytes                int64 // read, of both sides
	lists                map[string][]change
	buf                  []byte
	todo                 []folder
}

// folder is a directory of upper that is to be looked at.
type folder struct {
	path  string
	old   bool // lower has it too
	depth int
}

func scan(lower, upper, merged *os.File, lim role.Scan) (*result, error) {
	lim.Bytes = min(lim.Bytes, 1<<50)
	s := &scanner{lower: lower, upper: upper, merged: merged, lim: lim, deadline: time.Now().Add(scanTime),
		lists: map[string][]change{}, buf: make([]byte, 128<<10), todo: []folder{{path: ".", old: true}}}
	for len(s.todo) > 0 {
		f := s.todo[len(s.todo)-1]
		s.todo = s.todo[:len(s.todo)-1]
		if err := s.folder(f); err != nil {
			return nil, err
		}
	}
	for _, k := range kinds {
		sortByPath(s.lists[k])
	}
	pairRenames(s.lists)
	return &result{lists: s.lists, deadline: s.deadline}, nil
}

// entry counts what is looked at.
func (s *scanner) entry() error {
	if s.entries++; s.entries > s.lim.Entries {
		return fmt.Errorf("%w: more than %d files were changed", errBound, s.lim.Entries)
	}
	return s.inTime()
}

func (s *scanner) inTime() error {
	if time.Now().After(s.deadline) {
		return fmt.Errorf("%w: looking at what was changed took more than %v", errBound, scanTime)
	}
	return nil
}

func (s *scanner) add(kind string, c change) error {
	s.lists[kind] = append(s.lists[kind], c)
	if s.listed++; s.listed > s.lim.Entries {
		return fmt.Errorf("%w: more than %d changes", errBound, s.lim.Entries)
	}
	return nil
}

// refuse lists a path that is not applied. A path that cannot be shown as it is is quoted.
func (s *scanner) refuse(p, why string) error {
	if len(p) > api.MaxPath+256 {
		p = p[:api.MaxPath] + "…"
	}
	if api.NameProblem(p) != "" {
		p = strconv.Quote(p)
	}
	return s.add(refused, change{Change: api.Change{Path: p, Why: why}})
}

const unreadable = "it cannot be read with the sandbox's rights"

func (s *scanner) folder(f folder) error {
	up, err := openDir(s.upper, f.path)
	if err != nil {
		return s.refuse(f.path, unreadable)
	}
	defer up.Close()
	now, err := openAt(s.merged, f.path, pathDir)
	if err != nil {
		return s.refuse(f.path, unreadable)
	}
	defer now.Close()
	var old *os.File
	if f.old {
		if old, err = openAt(s.lower, f.path, pathDir); err != nil {
			return s.refuse(f.path, unreadable)
		}
		defer old.Close()
	}
	names, err := s.names(up)
	if err != nil {
		return err
	}
	whiteouts := false
	for _, name := range names {
		gone, err := s.compare(f, name, now, old)
		if err != nil {
			return err
		}
		whiteouts = whiteouts || gone
	}
	// A folder that was removed and made again hides all that lower has in it. A root or one with whiteouts cannot be such.
	if f.old && f.path != "." && !whiteouts {
		return s.hidden(f, now, names)
	}
	return nil
}

// names lists a directory of the sandbox, sorted.
func (s *scanner) names(dir *os.File) ([]string, error) {
	var names []string
	for {
		some, err := dir.Readdirnames(1024)
		for range some {
			if err := s.entry(); err != nil {
				return nil, err
			}
		}
		names = append(names, some...)
		if err == io.EOF || err == nil && len(some) == 0 {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, fmt.Errorf("cannot list a folder of the sandbox: %w", err)
		}
	}
}

// hidden lists as deleted what lower has and merged does not show, unless something of lower alone shows: then nothing is
// hidden, and what seems missing came into the person's folder meanwhile.
func (s *scanner) hidden(f folder, now *os.File, upper []string) error {
	old, err := openDir(s.lower, f.path)
	if err != nil {
		return s.refuse(f.path, unreadable)
	}
	defer old.Close()
	var missing []string
	for {
		some, err := old.Readdirnames(1024)
		for _, name := range some {
			if _, ok := slices.BinarySearch(upper, name); ok {
				continue
			}
			if _, shown, err := stat(now, name); err != nil || shown {
				return nil
			}
			if err := s.entry(); err != nil {
				return err
			}
			missing = append(missing, name)
		}
		if err == io.EOF || err == nil && len(some) == 0 {
			break
		}
		if err != nil {
			return s.refuse(f.path, unreadable)
		}
	}
	slices.Sort(missing)
	for _, name := range missing {
		if _, err := s.delete(path.Join(f.path, name), f.depth+1); err != nil {
			return err
		}
	}
	return nil
}
