package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/closedpaw/closedpaw/client"
	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/apply"
	"github.com/closedpaw/closedpaw/client/screen"
)

// reportTime bounds how long the daemon is told what was applied: also when the person has interrupted us.
const reportTime = 5 * time.Second

// takeChanges keeps and shows what the sandbox did to the folder; where a question follows, the terminal shows it with that.
func (t *turn) takeChanges(c *api.Changes) error {
	if c.Digest != api.Digest(c) {
		return fmt.Errorf("%w: a change set that is not the one its digest names", client.ErrProtocol)
	}
	t.changes, t.shown = c, false
	t.p.working("")
	switch {
	case c.Empty() && len(c.Refused) == 0:
	case t.mode == "ask" && t.person != nil && !c.Empty():
	case t.mode == "yes":
		t.p.show(renderList(c))
	case t.mode == "never" && t.p.quiet:
	default:
		t.p.show(renderChanges(c, colours(t.app.err)))
	}
	return nil
}

// apply puts the approved changes into the person's folder, with the person's rights, and reports.
func (t *turn) apply(ctx context.Context, a *api.Apply) error {
	switch {
	case t.root == nil || t.changes == nil:
		return fmt.Errorf("%w: it wants changes applied that are not there", client.ErrProtocol)
	case a.Digest != t.changes.Digest:
		return fmt.Errorf("%w: it wants other changes applied than it has shown", client.ErrProtocol)
	case t.mode == "never" || t.mode == "ask" && !t.approved:
		return fmt.Errorf("%w: it wants changes applied that nobody has allowed", client.ErrProtocol)
	}
	files, err := t.app.client.ChangedFiles(ctx, t.session)
	if err != nil {
		return err
	}
	from := &source{files: files, order: apply.Files(t.changes), early: map[string]*os.File{}}
	defer from.close()
	t.p.working("applying")
	report := apply.Apply(t.root, t.changes, from.open)
	t.p.working("")
	t.tell(&report)
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), reportTime)
	defer stop()
	if err := t.app.client.Applied(ctx, t.session, report); err != nil {
		return fmt.Errorf("cannot report what was applied: %w", err)
	}
	return nil
}

// source gives the approved files by path. The daemon sends them in an order of its own; those that are not wanted yet
// are kept.
type source struct {
	files *client.Files
	order []string
	early map[string]*os.File
}

func (s *source) open(path string) (*os.File, error) {
	if f, ok := s.early[path]; ok {
		delete(s.early, path)
		return f, nil
	}
	for len(s.order) > 0 {
		f, err := s.files.Next()
		if err != nil {
			return nil, err
		}
		name := s.order[0]
		if s.order = s.order[1:]; name == path {
			return f, nil
		}
		s.early[name] = f
	}
	return nil, fmt.Errorf("%w: the approved file was not sent", client.ErrProtocol)
}

func (s *source) close() {
	for _, f := range s.early {
		f.Close()
	}
	s.files.Close()
}

func (t *turn) tell(r *api.ApplyReport) {
	t.conflicts = len(r.Conflicts)+len(r.Failed) > 0
	t.applied = !t.conflicts
	t.p.say("applied %s", count(r.Applied, "change"))
	for _, path := range r.Conflicts {
		t.p.must("not applied, because it was changed meanwhile: %s", path)
	}
	for _, why := range r.Failed {
		t.p.must("not applied: %s", why)
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// renderChanges shows a change set, neutralised: the diff, and below it the list, which no text of a file can imitate.
func renderChanges(c *api.Changes, colour bool) string {
	var b strings.Builder
	for line := range strings.Lines(c.Diff) {
		b.WriteString(renderLine(strings.TrimSuffix(screen.Text(line), "\n"), colour) + "\n")
	}
	if c.DiffCut {
		b.WriteString("closedpawctl: the diff is longer than what is shown of it\n")
	}
	b.WriteString(renderList(c))
	return b.String()
}

func renderLine(line string, colour bool) string {
	sgr := ""
	switch {
	case strings.HasPrefix(line, "+"):
		sgr = "32"
	case strings.HasPrefix(line, "-"):
		sgr = "31"
	case strings.HasPrefix(line, "@@"):
		sgr = "36"
	}
	if !colour || sgr == "" {
		return line
	}
	return "\x1b[" + sgr + "m" + line + "\x1b[0m"
}

// renderList names every path of a change set, neutralised.
func renderList(c *api.Changes) string {
	var b strings.Builder
	for _, l := range []struct {
		what string
		list []api.Change
	}{{"added", c.Added}, {"modified", c.Modified}, {"deleted", c.Deleted}, {"renamed", c.Renamed}, {"refused", c.Refused}} {
		for _, one := range l.list {
			fmt.Fprintf(&b, "closedpawctl: %-8s  %s\n", l.what, screen.Line(describeChange(l.what, &one)))
		}
	}
	return b.String()
}

func describeChange(what string, c *api.Change) string {
	s := c.Path
	if what == "renamed" {
		s = c.From + " → " + c.Path
	}
	var notes []string
	switch {
	case what == "refused":
		notes = append(notes, c.Why)
	case what == "deleted":
	case c.Type == "link":
		s += " → " + c.Target
		notes = append(notes, "link")
	case c.Type == "dir":
		notes = append(notes, "folder")
	default:
		notes = append(notes, fmt.Sprintf("%d bytes", c.Size))
		if c.Mode&0o111 != 0 {
			notes = append(notes, "executable")
		}
		if c.Binary {
			notes = append(notes, "binary")
		}
	}
	if len(notes) > 0 {
		s += " (" + strings.Join(notes, ", ") + ")"
	}
	return s
}

// colours says whether f is a terminal that may be given colours.
func colours(f *os.File) bool {
	return isTerminal(f) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
