package review

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// maxText bounds all the paths, targets and reasons of a set together, in bytes.
const maxText = 32 << 20

var errBadReview = errors.New("review broke the rules")

// Collect asks the role at the other end of c for the change set within the bounds of s, checks all of it and computes its
// digest. It calls c.Run itself; nobody else may. On an error the connection is closed. A *role.Failed is review's own
// answer, fit for a person.
func Collect(ctx context.Context, c *role.Caller, s role.Scan) (*api.Changes, error) {
	s.DiffBytes = min(s.DiffBytes, MaxDiff)
	ctx, cancel := context.WithTimeout(ctx, scanTime+role.Timeout)
	defer cancel()
	g := &gathered{scan: s}
	go func() { _ = c.Run(g.take) }() // how it ended is what Ask says
	end, err := role.Ask[role.Scanned](ctx, c, &s)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("cannot look at what the sandbox changed: %w", err)
	}
	set, err := g.finish(end.DiffCut)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("cannot look at what the sandbox changed: %w: %w", errBadReview, err)
	}
	return set, nil
}

// Open asks for the new bytes of a file of the set. What it returns is a regular file open for reading only; that the
// bytes are those of the set is for the reader to check.
func Open(ctx context.Context, c *role.Caller, path string) (*os.File, error) {
	p, err := c.Call(ctx, &role.OpenFile{Path: path})
	if err != nil {
		return nil, fmt.Errorf("cannot open a changed file: %w", err)
	}
	if _, ok := p.Msg.(*role.File); !ok || len(p.Files) != 1 {
		p.Close()
		return nil, fmt.Errorf("cannot open a changed file: %w", errBadReview)
	}
	f := p.Files[0]
	var st unix.Stat_t
	err = unix.Fstat(int(f.Fd()), &st)
	flags, err2 := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
	if err = errors.Join(err, err2); err == nil &&
		(st.Mode&unix.S_IFMT != unix.S_IFREG || flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_PATH != 0) {
		err = fmt.Errorf("%w: not a regular file open for reading", errBadReview)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot open a changed file: %w", err)
	}
	return f, nil
}

// gathered is what has come so far. A role may go on sending after its answer: hence the lock and done.
type gathered struct {
	scan  role.Scan
	mu    sync.Mutex
	done  bool
	set   api.Changes
	diff  strings.Builder
	count int
	text  int
}

// take gets what was not asked for; an error ends the connection.
func (g *gathered) take(p role.Packet) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch m := p.Msg.(type) {
	case *role.Change:
		if p.Seq != 0 || g.done {
			return fmt.Errorf("%w: a change out of turn", errBadReview)
		}
		return g.change(m)
	case *role.Diff:
		if p.Seq != 0 || g.done {
			return fmt.Errorf("%w: a diff out of turn", errBadReview)
		}
		if g.diff.Len()+len(m.Text) > g.scan.DiffBytes {
			return fmt.Errorf("%w: a diff of more than %d bytes", errBadReview, g.scan.DiffBytes)
		}
		g.diff.WriteString(m.Text)
		return nil
	}
	p.Close()
	if p.Seq == 0 {
		return fmt.Errorf("%w: an answer to nothing", errBadReview)
	}
	return nil // an answer whose asker gave up
}

func (g *gathered) change(m *role.Change) error {
	c := m.Change
	g.count++
	g.text += len(c.Path) + len(c.From) + len(c.Target) + len(c.Why)
	// Of fixed form; finish sees to that, but only when all has come.
	if len(c.Type) > 16 || len(c.SHA256) > 64 || len(c.Before) > 64 {
		return fmt.Errorf("%w: a type or a hash that is none", errBadReview)
	}
	if g.count > g.scan.Entries || g.text > maxText || c.Size > g.scan.Bytes {
		return fmt.Errorf("%w: more than was asked for", errBadReview)
	}
	lists := map[string]*[]api.Change{added: &g.set.Added, modified: &g.set.Modified, deleted: &g.set.Deleted,
		renamed: &g.set.Renamed, refused: &g.set.Refused}
	list, ok := lists[m.Kind]
	if !ok {
		return fmt.Errorf("%w: an unknown kind of change", errBadReview)
	}
	*list = append(*list, c)
	return nil
}

func (g *gathered) finish(cut bool) (*api.Changes, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done = true
	set := &g.set
	set.Diff, set.DiffCut = g.diff.String(), cut
	for _, list := range []*[]api.Change{&set.Added, &set.Modified, &set.Deleted, &set.Renamed, &set.Refused} {
		if *list == nil {
			*list = []api.Change{} // an empty list in JSON
		}
		slices.SortStableFunc(*list, func(a, b api.Change) int { return strings.Compare(a.Path, b.Path) })
	}
	if err := set.Check(); err != nil {
		return nil, err
	}
	set.Digest = api.Digest(set)
	return set, nil
}
