package guard_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/audit"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/guard/guardtest"
	"github.com/closedpaw/closedpaw/daemon/internal/peer"
	"github.com/closedpaw/closedpaw/policy"
)

func effect() guard.Effect {
	return guard.Effect{UID: 1000, Session: "s", Action: policy.ActionToolCall, Resource: policy.Tool{Name: "shell", Effect: "sandbox"},
		Tool: "shell", Summary: "run a command", Detail: "true", Exact: []byte("true")}
}

func events(t *testing.T, h *guardtest.House) (out []string) {
	t.Helper()
	page, err := h.Audit.Read(t.Context(), -1, 100, -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range page.Records {
		out = append(out, r.Event+" "+r.Decision)
	}
	return out
}

func TestPermitIsForTheseBytesOnce(t *testing.T) {
	h := guardtest.New(t)
	p, err := h.Permit(t.Context(), effect())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Use([]byte("false")); err == nil {
		t.Error("it served for other bytes")
	}
	if err := p.Use([]byte("true")); err != nil {
		t.Error(err)
	}
	if err := p.Use([]byte("true")); err == nil {
		t.Error("it served twice")
	}
	var none *guard.Permit
	if none.Use([]byte("true")) == nil || (&guard.Permit{}).Use([]byte("true")) == nil {
		t.Error("a permit that nobody gave serves")
	}
}

func TestIntentIsOnDiskBeforeThePermit(t *testing.T) {
	h := guardtest.New(t)
	if _, err := h.Permit(t.Context(), effect()); err != nil {
		t.Fatal(err)
	}
	if got := events(t, h); len(got) != 1 || got[0] != audit.EventToolIntent+" allow" {
		t.Errorf("the log says %q", got)
	}
}

// No audit, no effect: and no request either.
func TestWithoutAuditNothingHappens(t *testing.T) {
	h := guardtest.New(t)
	h.Log.Close()
	var no *guard.Denied
	if _, err := h.Permit(t.Context(), effect()); err == nil || errors.As(err, &no) {
		t.Errorf("error %v, want a failure to record", err)
	}
	id := peer.Identity{UID: 33}
	if _, err := h.Admit(t.Context(), id, policy.ActionStatus, policy.Daemon{}); err == nil || errors.As(err, &no) {
		t.Errorf("error %v, want a failure to record", err)
	}
}

// Who may not even use the daemon must not fill the disk with refusals; others are not hurt by that.
func TestRefusalsAreBounded(t *testing.T) {
	h := guardtest.New(t)
	admit := func(uid uint32) error {
		_, err := h.Admit(t.Context(), peer.Identity{UID: uid}, policy.ActionStatus, policy.Daemon{})
		return err
	}
	for range 2000 {
		if admit(33) == nil {
			t.Fatal("it was let in")
		}
	}
	page, err := h.Audit.Read(t.Context(), -1, 1, -1)
	if err != nil || page.Size > 1200 { // an hour may have begun in between
		t.Errorf("the log has %d records, %v", page.Size, err)
	}
	if err := admit(33); !errors.Is(err, guard.ErrTooMany) {
		t.Errorf("error %v", err)
	}
	if err := admit(1000); err != nil {
		t.Errorf("another user: %v", err)
	}
}

func asking() guard.Effect {
	e := effect()
	e.Action, e.Resource, e.Tool = policy.ActionChangesApply, policy.Session{ID: "s", Owner: 1000}, "apply"
	return e
}

func TestAsking(t *testing.T) {
	for name, c := range map[string]struct {
		answer  func(h *guardtest.House, a api.Approval) error
		allowed bool
		says    string
	}{
		"yes": {func(h *guardtest.House, a api.Approval) error {
			_, err := h.Broker.Answer(1000, a.ID, api.Answer{Allow: true, Digest: a.Digest}, "test")
			return err
		}, true, ""},
		"no": {func(h *guardtest.House, a api.Approval) error {
			_, err := h.Broker.Answer(1000, a.ID, api.Answer{Digest: a.Digest}, "test")
			return err
		}, false, "the person said no"},
	} {
		t.Run(name, func(t *testing.T) {
			h := guardtest.New(t)
			e := asking()
			var closed string
			e.Opened = func(a api.Approval) {
				if a.Reason == "" || a.Digest == "" || a.Detail != "true" {
					t.Errorf("the question is %+v", a)
				}
				go func() {
					if err := c.answer(h, a); err != nil {
						t.Error(err)
					}
				}()
			}
			e.Closed = func(a api.Approval) { closed = a.Outcome }
			p, err := h.Permit(t.Context(), e)
			var no *guard.Denied
			if (err == nil) != c.allowed || err != nil && (!errors.As(err, &no) || no.Reason != c.says) {
				t.Errorf("permit %v, error %v", p, err)
			}
			if closed == "" {
				t.Error("nobody was told that the question is closed")
			}
			want := map[bool]string{true: "ask", false: "deny"}[c.allowed]
			got := events(t, h)
			if len(got) != 3 || got[0] != audit.EventAsked+" ask" || !strings.HasPrefix(got[1], audit.EventAnswered) || got[2] != audit.EventToolIntent+" "+want {
				t.Errorf("the log says %q", got)
			}
		})
	}
}

func TestSessionThatEndsIsNoYes(t *testing.T) {
	h := guardtest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	e := asking()
	e.Opened = func(api.Approval) { cancel() }
	if p, err := h.Permit(ctx, e); err == nil {
		t.Errorf("permit %v", p)
	}
	if got := events(t, h); len(got) != 3 || got[2] != audit.EventToolIntent+" deny" {
		t.Errorf("the log says %q", got)
	}
}

func TestDenials(t *testing.T) {
	h := guardtest.New(t)
	cloud := effect()
	cloud.Action, cloud.Resource = policy.ActionModelUse, policy.Model{Name: "m", Provider: "elsewhere"}
	unknown := effect()
	unknown.Resource = policy.Tool{Name: "launch", Effect: "unknown"}
	memory := effect()
	memory.Action, memory.Resource, memory.MemoryBytes = policy.ActionSandboxUse, policy.Daemon{}, 1<<50
	system := effect()
	system.UID = 33
	others := asking()
	others.Resource = policy.Session{ID: "s", Owner: 1001}
	for name, e := range map[string]guard.Effect{"a model elsewhere": cloud, "an unknown tool": unknown, "too much memory": memory,
		"a system user": system, "another's session": others} {
		var no *guard.Denied
		if _, err := h.Permit(t.Context(), e); !errors.As(err, &no) || no.Reason == "" {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if got := events(t, h); len(got) != 5 {
		t.Errorf("the log says %q", got)
	}
}

// Nobody is asked what could not be done whatever the answer.
func TestWithoutAuditNobodyIsAsked(t *testing.T) {
	h := guardtest.New(t)
	h.Log.Close()
	e := asking()
	e.Opened = func(api.Approval) { t.Error("somebody was asked") }
	var no *guard.Denied
	if _, err := h.Permit(t.Context(), e); err == nil || errors.As(err, &no) {
		t.Errorf("error %v, want a failure to record", err)
	}
	if open := h.Broker.Open(func(uint32) bool { return true }); len(open) > 0 {
		t.Errorf("open: %+v", open)
	}
}
