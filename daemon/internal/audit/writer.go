package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// daemonUID stands in records that are no user's.
const daemonUID = -1

// Writer is control's side of the log. Each function returns when its record is on disk, or with an error: then what
// was to be recorded must not be done. A function that records what has already happened does not give up when ctx is
// cancelled (the client is gone, but it happened all the same); all give up after role.Timeout.
type Writer struct{ c *role.Caller }

// NewWriter uses the connection to the audit role; someone must run c.
func NewWriter(c *role.Caller) *Writer { return &Writer{c} }

// write makes one record durable, for something that is still to happen.
func (w *Writer) write(ctx context.Context, r api.AuditRecord) error {
	ctx, cancel := context.WithTimeout(ctx, role.Timeout)
	defer cancel()
	if _, err := role.Ask[role.Appended](ctx, w.c, &role.Append{Record: bounded(r)}); err != nil {
		return fmt.Errorf("cannot record %s: %w", r.Event, err)
	}
	return nil
}

// happened is write for what cannot be undone.
func (w *Writer) happened(ctx context.Context, r api.AuditRecord) error {
	return w.write(context.WithoutCancel(ctx), r)
}

// DaemonStarted is the first record of a life: if it fails, there is no daemon.
func (w *Writer) DaemonStarted(ctx context.Context, version string) error {
	return w.write(ctx, api.AuditRecord{UID: daemonUID, Event: EventStarted, Detail: version})
}

// DaemonStopped is the last record of a life that ended in an orderly way.
func (w *Writer) DaemonStopped(ctx context.Context, reason string) error {
	return w.happened(ctx, api.AuditRecord{UID: daemonUID, Event: EventStopped, Reason: reason})
}

// PolicyLoaded says by which policy is decided from now on; digest is that of the bundle.
func (w *Writer) PolicyLoaded(ctx context.Context, serial uint64, digest string) error {
	return w.write(ctx, api.AuditRecord{UID: daemonUID, Event: EventPolicy, Digest: digest, Detail: fmt.Sprintf("serial %d", serial)})
}

// RequestDenied says that a user was refused an action of the API.
func (w *Writer) RequestDenied(ctx context.Context, uid int64, action, reason string) error {
	return w.happened(ctx, api.AuditRecord{UID: uid, Event: EventDenied, Tool: action, Decision: "deny", Reason: reason})
}

// SessionBegan comes before a session's first effect. kind is ask or run. It is sent at once; the function that it
// returns says when it is on disk. So what is recorded next, before that, comes behind it and shares its fsync.
func (w *Writer) SessionBegan(uid int64, session, kind, model, tier string) (recorded func(context.Context) error) {
	detail := kind
	if model != "" {
		detail += " with model " + model
	}
	wait := w.c.Begin(&role.Append{Record: bounded(api.AuditRecord{UID: uid, Session: session, Event: EventSessionBegan, Tier: tier, Detail: detail})})
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, role.Timeout)
		defer cancel()
		p, err := wait(ctx)
		if err == nil {
			_, err = role.Answer[role.Appended](p)
		}
		if err != nil {
			return fmt.Errorf("cannot record %s: %w", EventSessionBegan, err)
		}
		return nil
	}
}

// SessionEnded says why it ended.
func (w *Writer) SessionEnded(ctx context.Context, uid int64, session, reason string) error {
	return w.happened(ctx, api.AuditRecord{UID: uid, Session: session, Event: EventSessionEnded, Reason: reason})
}

// ToolEvent is a tool call as it was decided. Digest is over the exact bytes that were decided on, Detail shows them.
type ToolEvent struct {
	UID      int64
	Session  string
	Tool     string
	Decision string // allow, ask or deny
	Reason   string
	Tier     string
	Digest   string
	Detail   string
}

func (e ToolEvent) record(event string) api.AuditRecord {
	return api.AuditRecord{UID: e.UID, Session: e.Session, Event: event, Tool: e.Tool,
		Decision: e.Decision, Reason: e.Reason, Tier: e.Tier, Digest: e.Digest, Detail: e.Detail}
}

// ToolIntent comes after the decision and before the effect, for calls that are denied too.
func (w *Writer) ToolIntent(ctx context.Context, e ToolEvent) error {
	return w.write(ctx, e.record(EventToolIntent))
}

// ToolResult is how a call ended: with an exit code, or, if Err is not empty, without one.
type ToolResult struct {
	ExitCode int
	Err      string
	Duration time.Duration
}

// ToolOutcome comes after the effect, with the ToolEvent of the intent; its Detail is replaced by the result.
func (w *Writer) ToolOutcome(ctx context.Context, e ToolEvent, r ToolResult) error {
	e.Detail = fmt.Sprintf("exit code %d after %d ms", r.ExitCode, r.Duration.Milliseconds())
	if r.Err != "" {
		e.Detail = fmt.Sprintf("failed after %d ms: %s", r.Duration.Milliseconds(), r.Err)
	}
	return w.happened(ctx, e.record(EventToolOutcome))
}

// ApprovalAsked comes before a person sees the question. a is bound by its digest.
func (w *Writer) ApprovalAsked(ctx context.Context, uid int64, a api.Approval) error {
	return w.write(ctx, api.AuditRecord{UID: uid, Session: a.Session, Event: EventAsked, Tool: a.Tool, Decision: "ask",
		Reason: a.Reason, Digest: a.Digest, Detail: fmt.Sprintf("approval %s, level %s: %s", a.ID, a.Level, a.Summary)})
}

// ApprovalAnswered comes before the answer has any effect. outcome is allow, deny or expired; by says who answered and from where.
func (w *Writer) ApprovalAnswered(ctx context.Context, uid int64, session, id, outcome, by string) error {
	return w.happened(ctx, api.AuditRecord{UID: uid, Session: session, Event: EventAnswered, Decision: outcome, Reason: by, Detail: "approval " + id})
}

// ChangesFound says what review found in a session's folder; c.Digest stands for the exact set.
func (w *Writer) ChangesFound(ctx context.Context, uid int64, session string, c *api.Changes) error {
	return w.happened(ctx, api.AuditRecord{UID: uid, Session: session, Event: EventChanges, Digest: c.Digest,
		Detail: fmt.Sprintf("added %d, modified %d, deleted %d, renamed %d, refused %d",
			len(c.Added), len(c.Modified), len(c.Deleted), len(c.Renamed), len(c.Refused))})
}

// ApplyOutcome is what the client says that it did; it runs with the user's rights, and its word is all there is.
func (w *Writer) ApplyOutcome(ctx context.Context, uid int64, session, digest string, applied, conflicts, failed int) error {
	return w.happened(ctx, api.AuditRecord{UID: uid, Session: session, Event: EventApplyOutcome, Tool: "apply", Digest: digest,
		Detail: fmt.Sprintf("the client reports: applied %d, conflicts %d, failed %d", applied, conflicts, failed)})
}

// RoleDied says that a role ended by itself or was ended because it said what it must not.
func (w *Writer) RoleDied(ctx context.Context, name role.Name, why string) error {
	return w.happened(ctx, api.AuditRecord{UID: daemonUID, Event: EventRoleDied, Tool: string(name), Reason: why})
}

// LeftoversRemoved says how many things of an earlier life were found at the start and removed.
func (w *Writer) LeftoversRemoved(ctx context.Context, n int) error {
	return w.happened(ctx, api.AuditRecord{UID: daemonUID, Event: EventLeftovers, Detail: fmt.Sprint(n)})
}

// Read returns a page of records behind after (-1: from the start); uid -1 means those of all. A page may be empty though
// there is more: go on while Next is not -1.
func (w *Writer) Read(ctx context.Context, after int64, limit int, uid int64) (*role.Records, error) {
	ctx, cancel := context.WithTimeout(ctx, role.Timeout)
	defer cancel()
	a, err := role.Ask[role.Records](ctx, w.c, &role.ReadAudit{After: after, Limit: limit, UID: uid})
	if err != nil {
		return nil, fmt.Errorf("cannot read the audit log: %w", err)
	}
	return a, nil
}

// Prove has the whole log read and hashed again; that may take seconds for each gigabyte, so only ctx bounds it.
func (w *Writer) Prove(ctx context.Context, size int64) (*api.Proof, error) {
	a, err := role.Ask[role.Proof](ctx, w.c, &role.Prove{Size: size})
	if err != nil {
		return nil, fmt.Errorf("cannot prove the audit log: %w", err)
	}
	return &a.Proof, nil
}
