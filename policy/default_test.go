package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/closedpaw/closedpaw/policy"
)

// TestDefaultPolicy is the default policy as a table: each action, by whom, on whose things. Things are alice's.
func TestDefaultPolicy(t *testing.T) {
	alice := policy.User{UID: 1000, Person: true}
	users := []policy.User{
		alice,
		{UID: 1001, Person: true}, // another user
		{UID: 0},                  // root
		{UID: 33},                 // a system user
	}
	session, approval := policy.Session{ID: "s", Owner: 1000}, policy.Approval{ID: "a", Owner: 1000}
	ollama := policy.Model{Name: "llama3.2", Provider: "ollama", Local: true}
	shell := policy.Tool{Name: "shell", Effect: policy.EffectSandbox}
	tests := []struct {
		action   policy.Action
		resource policy.Resource
		context  policy.Context
		want     string // owner, other user, root, system user: a allow, ? ask, . deny
	}{
		{action: policy.ActionStatus, resource: policy.Daemon{}, want: "aaa."},
		{action: policy.ActionCheck, resource: policy.Daemon{}, want: "aaa."},
		{action: policy.ActionModelList, resource: policy.Daemon{}, want: "aaa."},
		{action: policy.ActionHandover, resource: policy.Daemon{}, want: "aaa."},
		{action: policy.ActionAsk, resource: policy.Daemon{}, want: "aaa."},
		{action: policy.ActionAsk, resource: session, want: "a..."},
		{action: policy.ActionRun, resource: policy.Daemon{}, want: "aaa."},
		{action: policy.ActionSessionList, resource: policy.Daemon{}, want: "aaa."},
		{action: policy.ActionSessionRead, resource: session, want: "a.a."},
		{action: policy.ActionSessionRemove, resource: session, want: "a..."},
		{action: policy.ActionApprovalList, resource: policy.Daemon{}, want: "aaa."},
		{action: policy.ActionApprovalRead, resource: approval, want: "a.a."},
		{action: policy.ActionApprovalAnswer, resource: approval, want: "a..."},
		{action: policy.ActionChangesFetch, resource: session, want: "a..."},
		{action: policy.ActionChangesReport, resource: session, want: "a..."},
		{action: policy.ActionAuditRead, resource: policy.Daemon{}, want: "aaa."},
		{action: policy.ActionAuditReadAll, resource: policy.Daemon{}, want: "..a."},
		{action: policy.ActionAuditProve, resource: policy.Daemon{}, want: "aaa."},

		{action: policy.ActionSandboxUse, resource: policy.Daemon{}, want: "aaa."},
		{action: policy.ActionSandboxUse, resource: policy.Daemon{}, context: policy.Context{MemoryBytes: 1 << 30}, want: "aaa."},
		{action: policy.ActionSandboxUse, resource: policy.Daemon{}, context: policy.Context{MemoryBytes: 1<<30 + 1}, want: "...."},
		{action: policy.ActionModelUse, resource: ollama, want: "aaa."},
		{action: policy.ActionModelUse, resource: policy.Model{Name: "demo", Provider: "demo", Local: true}, want: "aaa."},
		{action: policy.ActionModelUse, resource: policy.Model{Name: "gpt-oss:120b-cloud", Provider: "ollama"}, want: "...."},
		{action: policy.ActionModelUse, resource: policy.Model{Name: "x", Provider: "openai", Local: true}, want: "...."},
		{action: policy.ActionToolCall, resource: shell, want: "aaa."},
		{action: policy.ActionToolCall, resource: shell, context: policy.Context{World: true, Private: true}, want: "aaa."},
		{action: policy.ActionToolCall, resource: policy.Tool{Name: "mail", Effect: "send"}, want: "...."},
		{action: policy.ActionToolCall, resource: policy.Tool{Name: "shell"}, want: "...."},
		{action: policy.ActionChangesApply, resource: session, want: "?..."},
		{action: policy.ActionChangesApply, resource: session, context: policy.Context{World: true, Interactive: true}, want: "?..."},
		{action: policy.ActionChangesApply, resource: session, context: policy.Context{Requested: true}, want: "a..."},

		{action: policy.ActionStatus, resource: session, want: "...."},
		{action: policy.ActionSessionRead, resource: policy.Daemon{}, want: "...."},
		{action: policy.ActionToolCall, resource: policy.Daemon{}, want: "...."},
		{action: "fly", resource: policy.Daemon{}, want: "...."},
		{action: "", resource: policy.Daemon{}, want: "...."},
		{action: policy.ActionStatus, resource: nil, want: "...."},
	}
	b := defaultBundle(t)
	covered := map[policy.Action]bool{}
	for _, test := range tests {
		covered[test.action] = true
		var got strings.Builder
		for _, u := range users {
			d := b.Decide(policy.Request{User: u, Action: test.action, Resource: test.resource, Context: test.context})
			got.WriteByte(".?a"[d.Effect])
			if d.Reason == "" || (d.Effect == policy.Ask) != (d.Level == policy.LevelConfirm) || d.Effect != policy.Deny && len(d.Policies) == 0 {
				t.Errorf("%s by %d: got %+v", test.action, u.UID, d)
			}
		}
		if got.String() != test.want {
			t.Errorf("%s on %+v with %+v: got %q, want %q", test.action, test.resource, test.context, got.String(), test.want)
		}
	}
	for _, a := range policy.Actions() {
		if !covered[a] {
			t.Errorf("the table has no line for %s", a)
		}
	}
}

// TestRootsOwn: root has sessions too.
func TestRootsOwn(t *testing.T) {
	b := defaultBundle(t)
	for _, r := range []policy.Request{
		{Action: policy.ActionSessionRemove, Resource: policy.Session{ID: "s"}},
		{Action: policy.ActionApprovalAnswer, Resource: policy.Approval{ID: "a"}},
	} {
		if d := b.Decide(r); d.Effect != policy.Allow {
			t.Errorf("%s: got %+v", r.Action, d)
		}
	}
}

func TestReasons(t *testing.T) {
	b := defaultBundle(t)
	person := policy.User{UID: 1000, Person: true}
	own, others := policy.Session{ID: "s", Owner: 1000}, policy.Session{ID: "s", Owner: 1001}
	tests := []struct {
		request policy.Request
		want    policy.Decision
	}{
		{
			policy.Request{User: person, Action: policy.ActionChangesApply, Resource: own},
			policy.Decision{Effect: policy.Ask, Level: policy.LevelConfirm, Policies: []string{"apply-asks"}, Reason: "this changes files in your folder"},
		}, {
			policy.Request{User: person, Action: policy.ActionChangesApply, Resource: own, Context: policy.Context{Requested: true}},
			policy.Decision{Effect: policy.Allow, Policies: []string{"apply-was-ordered"}, Reason: "apply-was-ordered"},
		}, {
			policy.Request{User: person, Action: policy.ActionSessionRead, Resource: others},
			policy.Decision{Policies: []string{"sessions-belong-to-their-owner"}, Reason: "this session belongs to another user"},
		}, {
			policy.Request{User: policy.User{UID: 33}, Action: policy.ActionSessionRead, Resource: others},
			policy.Decision{Policies: []string{"only-people-and-root", "sessions-belong-to-their-owner"}, Reason: "only people who log in here, and root, may use ClosedPaw"},
		}, {
			policy.Request{User: person, Action: policy.ActionAuditReadAll, Resource: policy.Daemon{}},
			policy.Decision{Reason: "no policy permits this"},
		},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, b.Decide(test.request)); diff != "" {
			t.Errorf("%s: %s", test.request.Action, diff)
		}
	}
	for _, none := range []*policy.Bundle{nil, {}} {
		if d := none.Decide(tests[0].request); d.Effect != policy.Deny {
			t.Errorf("without a policy: got %+v", d)
		}
	}
	if !slices.IsSorted(b.Decide(tests[3].request).Policies) {
		t.Error("policies are not sorted")
	}
}
