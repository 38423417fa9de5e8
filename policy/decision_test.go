package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/closedpaw/closedpaw/policy"
)

var askStatus = policy.Request{User: policy.User{UID: 1000, Person: true}, Action: policy.ActionStatus, Resource: policy.Daemon{}}

func TestDecide(t *testing.T) {
	const (
		permit       = `@id("permit") permit (principal, action, resource);`
		confirm      = `@id("confirm") @approval("confirm") @reason("say yes") permit (principal, action, resource);`
		authenticate = `@id("authenticate") @approval("authenticate") permit (principal, action, resource);`
		forbid       = `@id("forbid") @reason("it must not be") forbid (principal, action, resource);`
		other        = `@id("other") permit (principal, action, resource) when { context.world };`
		overflow     = `@id("overflow") permit (principal, action, resource) when { principal.uid * 9223372036854775807 > 0 };`
		overflowing  = `@id("overflowing") forbid (principal, action, resource) when { principal.uid * 9223372036854775807 > 0 };`
	)
	deny := policy.Decision{Reason: "no policy permits this"}
	failed := policy.Decision{Policies: []string{"overflow"}, Reason: "policy overflow cannot be evaluated"}
	tests := []struct {
		policies []string
		want     policy.Decision
	}{
		{[]string{other}, deny},
		{[]string{permit}, policy.Decision{Effect: policy.Allow, Policies: []string{"permit"}, Reason: "permit"}},
		{[]string{permit, forbid}, policy.Decision{Policies: []string{"forbid"}, Reason: "it must not be"}},
		{[]string{confirm}, policy.Decision{Effect: policy.Ask, Level: policy.LevelConfirm, Policies: []string{"confirm"}, Reason: "say yes"}},
		{[]string{authenticate}, policy.Decision{Effect: policy.Ask, Level: policy.LevelAuthenticate, Policies: []string{"authenticate"}, Reason: "authenticate"}},
		{[]string{authenticate, confirm}, policy.Decision{Effect: policy.Ask, Level: policy.LevelConfirm, Policies: []string{"confirm"}, Reason: "say yes"}},
		{[]string{authenticate, confirm, permit}, policy.Decision{Effect: policy.Allow, Policies: []string{"permit"}, Reason: "permit"}},
		{[]string{authenticate, confirm, forbid}, policy.Decision{Policies: []string{"forbid"}, Reason: "it must not be"}},
		{[]string{permit, overflow}, failed},
		{[]string{permit, overflowing}, policy.Decision{Policies: []string{"overflowing"}, Reason: "policy overflowing cannot be evaluated"}},
		{[]string{permit, forbid, overflow}, failed},
	}
	for _, test := range tests {
		files := smallFiles()
		files["p.cedar"] = []byte(strings.Join(test.policies, "\n"))
		if diff := cmp.Diff(test.want, load(t, files).Decide(askStatus)); diff != "" {
			t.Errorf("%q: %s", test.policies, diff)
		}
	}
}

// TestOrder: neither the order of policies nor that of files changes a decision; a forbid that matches always denies;
// one more forbid or one permit less never widens.
func TestOrder(t *testing.T) {
	conditions := []string{"true", "false", "context.world", "context.interactive", "principal.root", "principal.person", "context.memory_bytes > 5"}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "n")
		policies, forbids := make([]string, n), 0
		request := askStatus
		request.Context = policy.Context{
			World:       rapid.Bool().Draw(t, "world"),
			Interactive: rapid.Bool().Draw(t, "interactive"),
			MemoryBytes: rapid.Int64Range(0, 10).Draw(t, "memory"),
		}
		holds := map[string]bool{"true": true, "principal.person": true, "context.world": request.Context.World,
			"context.interactive": request.Context.Interactive, "context.memory_bytes > 5": request.Context.MemoryBytes > 5}
		for i := range policies {
			effect := rapid.SampledFrom([]string{"permit", "forbid", `@approval("confirm") permit`, `@approval("authenticate") permit`}).Draw(t, "effect")
			condition := rapid.SampledFrom(conditions).Draw(t, "condition")
			policies[i] = fmt.Sprintf(`@id("p%d") %s (principal, action, resource) when { %s };`, i, effect, condition)
			if effect == "forbid" && holds[condition] {
				forbids++
			}
		}
		decide := func(order []string) policy.Decision {
			files := smallFiles()
			files["p.cedar"] = []byte(`@id("never") permit (principal, action, resource) when { false };`)
			for i, p := range order {
				name := fmt.Sprintf("f%d.cedar", i%3)
				files[name] = append(files[name], p...)
			}
			return load(t, files).Decide(request)
		}
		d := decide(policies)
		if diff := cmp.Diff(d, decide(rapid.Permutation(policies).Draw(t, "order"))); diff != "" {
			t.Fatalf("the order matters: %s", diff)
		}
		if forbids > 0 && d.Effect != policy.Deny {
			t.Fatalf("a forbid matches, but got %+v", d)
		}
		if narrower := decide(append(policies, `@id("no") forbid (principal, action, resource) when { context.world };`)); narrower.Effect > d.Effect {
			t.Fatalf("one more forbid turned %+v into %+v", d, narrower)
		}
		i := rapid.IntRange(0, n-1).Draw(t, "without")
		if fewer := decide(append(append([]string(nil), policies[:i]...), policies[i+1:]...)); !strings.Contains(policies[i], "forbid") && fewer.Effect > d.Effect {
			t.Fatalf("one permit less turned %+v into %+v", d, fewer)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	files := defaultFiles(b)
	var more strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&more, "@id(\"more-%d\") forbid (principal, action == Action::\"tool_call\", resource) when { context.memory_bytes == %d };\n", i, i+1)
	}
	for name, add := range map[string]string{"default": "", "plus1000": more.String()} {
		if add != "" {
			files["more.cedar"] = []byte(add)
		}
		bundle := load(b, files)
		r := askStatus
		r.Action, r.Resource = policy.ActionToolCall, bundle.Tools()[0]
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if bundle.Decide(r).Effect != policy.Allow {
					b.Fatal("not allowed")
				}
			}
		})
	}
}
