package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/review"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/text"
	"github.com/closedpaw/closedpaw/policy"
)

// Bounds of a review.
const (
	scanEntries = 200_000
	maxDetail   = 64 << 10
)

// applyTime is how long a client may take to apply what was approved.
const applyTime = 10 * time.Minute

// applying is an approved change set while its client applies it.
type applying struct {
	changes *api.Changes
	review  *role.Caller
	report  chan api.ApplyReport // takes one
}

// settle ends the sandbox, finds out what it did to the folder, shows it, and lets the client apply it if its person
// wants that. A no is no error.
func (w *work) settle(ctx context.Context, apply string, order bool) error {
	if w.box == nil || w.folder == nil {
		return nil
	}
	if err := w.box.Kill(ctx); err != nil { // first: what is looked at must not change any more
		return err
	}
	rc, err := w.box.Review(ctx)
	if err != nil {
		return err
	}
	defer rc.Close()
	set, err := review.Collect(ctx, rc, role.Scan{Entries: scanEntries, Bytes: w.limits.UpperBytes, DiffBytes: review.MaxDiff})
	if err != nil {
		return fmt.Errorf("cannot review what changed: %w", err)
	}
	if err := w.m.Audit.ChangesFound(ctx, int64(w.rec.UID), w.rec.ID, set); err != nil {
		return err
	}
	if err := w.send(api.Event{Type: api.EventChanges, Changes: set}); err != nil {
		return err
	}
	if apply == "never" || set.Empty() {
		return nil
	}
	permit, err := w.m.Guard.Permit(ctx, guard.Effect{UID: w.rec.UID, Session: w.rec.ID, Action: policy.ActionChangesApply,
		Resource: policy.Session{ID: w.rec.ID, Owner: w.rec.UID}, Tool: "apply", Summary: "apply to your folder: " + summary(set),
		Detail: detail(set), Exact: []byte(set.Digest), Label: w.label, Interactive: w.interactive,
		Requested: order && apply == "yes", Opened: w.opened, Closed: w.closed})
	var no *guard.Denied
	if errors.As(err, &no) {
		w.denied++
		if no.ByPerson {
			return nil
		}
		return w.send(api.Event{Type: api.EventNotice, Text: "not applied: " + no.Reason})
	}
	if err != nil {
		return err
	}
	err = w.handOut(ctx, permit, set, rc)
	return errors.Join(err, permit.Done(ctx, 0, err))
}

// handOut lets the client fetch the approved files and waits for its report.
func (w *work) handOut(ctx context.Context, permit *guard.Permit, set *api.Changes, rc *role.Caller) error {
	if err := permit.Use([]byte(set.Digest)); err != nil {
		return err
	}
	a := &applying{changes: set, review: rc, report: make(chan api.ApplyReport, 1)}
	w.m.setApplying(w, a)
	defer w.m.setApplying(w, nil)
	if err := w.send(api.Event{Type: api.EventApply, Apply: &api.Apply{Digest: set.Digest}}); err != nil {
		return err
	}
	select {
	case r := <-a.report:
		w.applied = len(r.Conflicts)+len(r.Failed) == 0
		return w.m.Audit.ApplyOutcome(context.WithoutCancel(ctx), int64(w.rec.UID), w.rec.ID, r.Digest, r.Applied, len(r.Conflicts), len(r.Failed))
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(applyTime):
		return &api.Error{Code: api.CodeTimeout, Message: "the client did not say what it applied", Hint: "look at the folder before you go on"}
	}
}

func (m *Manager) setApplying(w *work, a *applying) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w.apply = a
}

func (m *Manager) applyingOf(id string) (*applying, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w := m.active[id]; w != nil && w.apply != nil {
		return w.apply, nil
	}
	return nil, &api.Error{Code: api.CodeConflict, Message: "nothing of this session waits to be applied"}
}

// Approved opens the files of a session's approved change set, one after the other, in the order of its lists.
func (m *Manager) Approved(ctx context.Context, id string, each func(*os.File) error) error {
	a, err := m.applyingOf(id)
	if err != nil {
		return err
	}
	for _, c := range slices.Concat(a.changes.Added, a.changes.Modified, a.changes.Renamed) {
		if c.Type != api.TypeFile {
			continue
		}
		f, err := review.Open(ctx, a.review, c.Path)
		if err != nil {
			return err
		}
		err = each(f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Applied takes the client's report. It is its word about its own user's folder, and recorded as that.
func (m *Manager) Applied(id string, r api.ApplyReport) error {
	a, err := m.applyingOf(id)
	if err != nil {
		return err
	}
	if r.Digest != a.changes.Digest {
		return badRequest("the report is about another change set")
	}
	select {
	case a.report <- r:
		return nil
	default:
		return &api.Error{Code: api.CodeConflict, Message: "what was applied has been reported already"}
	}
}

// detail is the diff as a question shows it. It says when there is more: who answers at another terminal than the one
// that asked sees nothing else.
func detail(c *api.Changes) string {
	head, rest := text.Cut(c.Diff, maxDetail-100)
	if rest == "" && !c.DiffCut {
		return c.Diff
	}
	return head + "\n[the diff goes on: not all that a yes would apply is shown here]\n"
}

// summary counts a change set in words.
func summary(c *api.Changes) string {
	s := ""
	for _, p := range []struct {
		n    int
		what string
	}{{len(c.Added), "added"}, {len(c.Modified), "modified"}, {len(c.Deleted), "deleted"}, {len(c.Renamed), "renamed"}, {len(c.Refused), "refused"}} {
		if p.n > 0 {
			if s != "" {
				s += ", "
			}
			s += fmt.Sprintf("%d %s", p.n, p.what)
		}
	}
	if s == "" {
		return "nothing changed"
	}
	return s
}
