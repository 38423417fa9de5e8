package policy_test

import (
	"slices"
	"testing"

	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
	"github.com/google/go-cmp/cmp"

	"github.com/closedpaw/closedpaw/policy"
)

func resolve(t *testing.T) *resolved.Schema {
	t.Helper()
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(policy.Schema())); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSchemaActions(t *testing.T) {
	var got []policy.Action
	for uid := range resolve(t).Actions {
		got = append(got, policy.Action(uid.ID))
	}
	slices.Sort(got)
	want := policy.Actions()
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestRequestsConform: whatever is asked about fits the schema, entities and all.
func TestRequestsConform(t *testing.T) {
	r := resolve(t)
	v := validate.New(r)
	resources := map[string]policy.Resource{
		"Daemon":   policy.Daemon{},
		"Session":  policy.Session{ID: "s\x00\"", Owner: 1<<32 - 1},
		"Approval": policy.Approval{},
		"Model":    policy.Model{Name: "a:b/c", Provider: "ollama"},
		"Tool":     policy.Tool{Name: "shell", Effect: "sandbox"},
	}
	for uid, a := range r.Actions {
		for _, kind := range a.AppliesTo.Resources {
			req, entities := policy.Request{
				User:     policy.User{UID: 1<<32 - 1},
				Action:   policy.Action(uid.ID),
				Resource: resources[string(kind)],
				Context:  policy.Context{Tier: "gvisor", MemoryBytes: -1},
			}.Cedar(policy.Profile{})
			if err := v.Request(req); err != nil {
				t.Errorf("%s: %v", uid.ID, err)
			}
			if err := v.Entities(entities); err != nil {
				t.Errorf("%s: %v", uid.ID, err)
			}
		}
	}
}
