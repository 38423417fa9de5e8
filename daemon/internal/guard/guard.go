// Package guard is the one decision: every request of a client, and every effect that a model or a person wants, passes
// through it, and nothing reaches an effect another way.
//
// For an effect the order is labels → policy → approval → audit of the intent → permit; the effect itself demands the
// permit, and afterwards its outcome is audited. Deny is the zero value everywhere. What cannot be audited does not
// happen. The package carries nothing out.
package guard

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/approval"
	"github.com/closedpaw/closedpaw/daemon/internal/audit"
	"github.com/closedpaw/closedpaw/daemon/internal/peer"
	"github.com/closedpaw/closedpaw/policy"
)

// ErrNotFound stands for what is another user's as well: nobody learns what others have.
var ErrNotFound = errors.New("not found")

// Denied says that policy or a person said no.
type Denied struct {
	Reason   string // a sentence
	Hint     string
	ByPerson bool // who was asked, and knows
}

func (d *Denied) Error() string { return d.Reason }

// Guard decides. It is safe for concurrent use.
type Guard struct {
	policy *policy.Bundle
	audit  *audit.Writer
	broker *approval.Broker
	people func(uid uint32) bool
	tier   string
	nos    nos
}

// maxNos bounds the refused requests of one user that are recorded in an hour: the log is never cut, and whoever may not
// even use the daemon must not fill the disk with it.
const maxNos = 600

// ErrTooMany means that a request was refused without a look at it.
var ErrTooMany = errors.New("too many requests of this user were refused")

// nos counts refused requests of this hour by user.
type nos struct {
	mu   sync.Mutex
	hour int64
	n    map[uint32]int
}

func (n *nos) take(uid uint32) (left int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if h := time.Now().Unix() / 3600; h != n.hour || n.n == nil {
		n.hour, n.n = h, map[uint32]int{}
	}
	if n.n[uid] <= maxNos {
		n.n[uid]++
	}
	return maxNos - n.n[uid]
}

// New returns a Guard. people says whose uids are persons'; tier is the sandbox's, for policy and audit.
func New(p *policy.Bundle, a *audit.Writer, b *approval.Broker, people func(uid uint32) bool, tier string) *Guard {
	return &Guard{policy: p, audit: a, broker: b, people: people, tier: tier}
}

// Caller is a client whose request was let through. Only Admit makes one.
type Caller struct {
	id peer.Identity
}

// UID is the caller's user.
func (c Caller) UID() uint32 { return c.id.UID }

// By names the caller for the audit.
func (c Caller) By() string { return fmt.Sprintf("uid %d, pid %d", c.id.UID, c.id.PID) }

// Sees says whether the caller may see what owner has: its own things, and root everything.
func (c Caller) Sees(owner uint32) bool { return c.id.UID == owner || c.id.UID == 0 }

// Admit decides on a request of a client. Requests are answered at once, so a policy that wants to ask a person about
// one denies it.
func (g *Guard) Admit(ctx context.Context, id peer.Identity, action policy.Action, r policy.Resource) (Caller, error) {
	d := g.policy.Decide(policy.Request{User: g.user(id.UID), Action: action, Resource: r, Context: policy.Context{Tier: g.tier}})
	if d.Effect == policy.Allow {
		return Caller{id}, nil
	}
	reason := d.Reason
	switch left := g.nos.take(g.counted(id.UID)); {
	case left < 0:
		return Caller{}, ErrTooMany
	case left == 0:
		reason += "; further ones of this hour are not recorded"
	}
	if err := g.audit.RequestDenied(ctx, int64(id.UID), string(action), reason); err != nil {
		return Caller{}, fmt.Errorf("cannot record the request: %w", err)
	}
	return Caller{}, &Denied{Reason: fmt.Sprintf("policy does not let uid %d do this (%s): %s", id.UID, action, d.Reason),
		Hint: "an administrator can change the policy, and sign it again with: closedpawd -sign"}
}

// counted is the user whose refusals these are: those of all who are no person count together, as one person can be
// many of them by /etc/subuid.
func (g *Guard) counted(uid uint32) uint32 {
	if uid == 0 || g.people(uid) {
		return uid
	}
	return 1<<32 - 1
}

// May says whether a caller that was let through may do more than that. It is no request of its own: a no is not recorded.
func (g *Guard) May(c Caller, action policy.Action, r policy.Resource) bool {
	d := g.policy.Decide(policy.Request{User: g.user(c.UID()), Action: action, Resource: r, Context: policy.Context{Tier: g.tier}})
	return d.Effect == policy.Allow
}

func (g *Guard) user(uid uint32) policy.User {
	return policy.User{UID: uid, Person: g.people(uid)}
}

// Effect is one that somebody wants.
type Effect struct {
	UID      uint32
	Session  string
	Action   policy.Action
	Resource policy.Resource
	Tool     string // for people and the audit: a tool's name, "model" or "apply"
	Summary  string // one sentence: what will happen
	Detail   string // the exact bytes as a person can read them
	Exact    []byte // the exact bytes

	Label       policy.Label // of what the session has seen
	Interactive bool
	Requested   bool  // the person gave the order explicitly
	MemoryBytes int64 // of a sandbox

	Opened func(api.Approval) // a question was opened
	Closed func(api.Approval) // it was closed
}

// Permit lets one effect happen once, for exactly the bytes that were decided on. Its zero value permits nothing.
type Permit struct {
	g        *Guard
	e        *Effect
	digest   [sha256.Size]byte
	decision string
	used     bool
	start    time.Time
}

// Decision is what policy said: allow or ask.
func (p *Permit) Decision() string { return p.decision }

// Use is called by the effect itself, right before it happens.
func (p *Permit) Use(exact []byte) error {
	switch {
	case p == nil || p.g == nil:
		return errors.New("cannot act without a permit")
	case p.used:
		return errors.New("cannot act twice on one permit")
	case sha256.Sum256(exact) != p.digest:
		return errors.New("cannot act: these are not the bytes that were decided on")
	}
	p.used, p.start = true, time.Now()
	return nil
}

// Done records how the effect went.
func (p *Permit) Done(ctx context.Context, exit int, err error) error {
	r := audit.ToolResult{ExitCode: exit}
	if p.used {
		r.Duration = time.Since(p.start)
	}
	if err != nil {
		r.Err = err.Error()
	}
	return p.g.audit.ToolOutcome(context.WithoutCancel(ctx), p.event(""), r)
}

func (p *Permit) event(reason string) audit.ToolEvent {
	return audit.ToolEvent{UID: int64(p.e.UID), Session: p.e.Session, Tool: p.e.Tool, Decision: p.decision, Reason: reason, Tier: p.g.tier,
		Digest: hex.EncodeToString(p.digest[:]), Detail: p.e.Detail}
}

// Permit decides on an effect. It waits where policy wants a person's answer. A *Denied error is a no, anything else a
// failure; both mean that the effect must not happen.
func (g *Guard) Permit(ctx context.Context, e Effect) (*Permit, error) {
	p := &Permit{g: g, e: &e, digest: sha256.Sum256(e.Exact)}
	d := g.policy.Decide(policy.Request{User: g.user(e.UID), Action: e.Action, Resource: e.Resource, Context: policy.Context{
		Tier: g.tier, Interactive: e.Interactive, World: e.Label.World, Private: e.Label.Private, Requested: e.Requested, MemoryBytes: e.MemoryBytes}})
	p.decision = d.Effect.String()
	reason := d.Reason
	var denied error
	switch d.Effect {
	case policy.Allow:
	case policy.Ask:
		by, err := g.ask(ctx, p, d)
		if err != nil {
			denied = err
		}
		reason = by
	default:
		denied = &Denied{Reason: "policy does not allow it: " + d.Reason, Hint: "an administrator can change the policy, and sign it again with: closedpawd -sign"}
	}
	if denied != nil {
		p.decision = policy.Deny.String()
		reason = denied.Error()
	}
	// Before the effect; and a refusal is recorded too, even if the client has gone away.
	if err := g.audit.ToolIntent(context.WithoutCancel(ctx), p.event(reason)); err != nil {
		return nil, fmt.Errorf("cannot act without a record: %w", err)
	}
	if denied != nil {
		return nil, denied
	}
	return p, nil
}

// ask puts the effect to its owner and returns who allowed it.
func (g *Guard) ask(ctx context.Context, p *Permit, d policy.Decision) (by string, err error) {
	e := p.e
	q := approval.Question{UID: e.UID, Session: e.Session, Tool: e.Tool, Summary: e.Summary, Detail: e.Detail, Reason: d.Reason,
		Level: string(d.Level), Digest: hex.EncodeToString(p.digest[:])}
	var notRecorded error
	q.Record = func(a api.Approval) error {
		notRecorded = g.audit.ApprovalAsked(ctx, int64(e.UID), a)
		return notRecorded
	}
	a, ans, err := g.broker.Ask(ctx, q, func(a api.Approval) {
		if e.Opened != nil {
			e.Opened(a)
		}
	})
	if a.ID != "" {
		rec := g.audit.ApprovalAnswered(context.WithoutCancel(ctx), int64(e.UID), e.Session, a.ID, ans.Outcome, ans.By)
		notRecorded = errors.Join(notRecorded, rec)
		if e.Closed != nil {
			e.Closed(a)
		}
	}
	switch {
	case notRecorded != nil:
		return "", fmt.Errorf("cannot act without a record: %w", notRecorded)
	case errors.Is(err, approval.ErrTooMany):
		return "", &Denied{Reason: err.Error(), Hint: "answer them first: closedpawctl pending"}
	case err != nil:
		return "", err
	case ans.Outcome == approval.Allow:
		return "allowed by " + ans.By, nil
	case ans.Outcome == approval.Expired:
		return "", &Denied{Reason: "nobody answered the question in time", Hint: "ask again, and answer with: closedpawctl approve ID"}
	}
	return "", &Denied{Reason: "the person said no", ByPerson: true}
}

// Answer gives a person's answer to a question of theirs.
func (g *Guard) Answer(c Caller, id string, a api.Answer) (api.Approval, error) {
	out, err := g.broker.Answer(c.UID(), id, a, c.By())
	if errors.Is(err, approval.ErrNotYours) && c.UID() != 0 {
		return out, approval.ErrNotFound
	}
	return out, err
}
