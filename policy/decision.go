package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
)

// Effect is what a decision comes to. The zero value is Deny.
type Effect uint8

// The effects, from the narrowest to the widest.
const (
	Deny Effect = iota
	Ask         // a person must allow it, at the decision's Level
	Allow
)

func (e Effect) String() string {
	switch e {
	case Allow:
		return "allow"
	case Ask:
		return "ask"
	}
	return "deny"
}

// Level is what a person must do to allow what policy asks about.
type Level string

// The levels; the names are those of client/api.
const (
	LevelNone         Level = ""             // nothing: policy does not ask
	LevelConfirm      Level = "confirm"      // say yes
	LevelAuthenticate Level = "authenticate" // prove who they are
)

// Decision is the answer to a Request.
type Decision struct {
	Effect   Effect
	Level    Level    // of an Ask
	Policies []string // ids of the policies that decided, sorted; none where no permit matched
	Reason   string   // a short sentence for people
}

// Decide answers r by the bundle's policies. It is denied if a forbid matches, if no permit does, if any policy fails,
// or if r does not fit the schema; allowed if a matching permit has no @approval; else a person is asked, at the weakest
// level among the matching permits. It is safe for concurrent use, and on a nil Bundle, which denies.
func (b *Bundle) Decide(r Request) Decision {
	if b == nil || b.validator == nil {
		return Decision{Reason: "there is no policy"}
	}
	if r.Resource == nil {
		return Decision{Reason: fmt.Sprintf("%q has nothing to act upon", r.Action)}
	}
	req, entities := r.cedar(b.profile)
	if err := b.validator.Request(req); err != nil {
		return Decision{Reason: fmt.Sprintf("%q does not fit the policy schema: %v", r.Action, err)}
	}
	_, diagnostic := cedar.Authorize(b.rules, entities, req)
	return b.rules.weigh(diagnostic)
}

// weigh makes a decision of the policies that matched or failed. Cedar names the forbids alone if there are any.
func (rs rules) weigh(d cedar.Diagnostic) Decision {
	if len(d.Errors) > 0 {
		failed := make([]*rule, len(d.Errors))
		for i, e := range d.Errors {
			failed[i] = rs[e.PolicyID]
		}
		dec := decide(Deny, LevelNone, failed)
		dec.Reason = fmt.Sprintf("policy %s cannot be evaluated", dec.Policies[0])
		return dec
	}
	var forbids, permits, confirm, authenticate []*rule
	for _, reason := range d.Reasons {
		r := rs[reason.PolicyID]
		switch {
		case r.forbid:
			forbids = append(forbids, r)
		case r.level == LevelConfirm:
			confirm = append(confirm, r)
		case r.level == LevelAuthenticate:
			authenticate = append(authenticate, r)
		default:
			permits = append(permits, r)
		}
	}
	switch {
	case len(forbids) > 0:
		return decide(Deny, LevelNone, forbids)
	case len(permits) > 0:
		return decide(Allow, LevelNone, permits)
	case len(confirm) > 0:
		return decide(Ask, LevelConfirm, confirm)
	case len(authenticate) > 0:
		return decide(Ask, LevelAuthenticate, authenticate)
	}
	return Decision{Reason: "no policy permits this"}
}

// decide gives the reason of the first of the deciding rules by id, so that it does not depend on their order.
func decide(e Effect, l Level, by []*rule) Decision {
	slices.SortFunc(by, func(a, b *rule) int { return strings.Compare(a.id, b.id) })
	d := Decision{Effect: e, Level: l, Policies: make([]string, len(by)), Reason: by[0].reason}
	for i, r := range by {
		d.Policies[i] = r.id
	}
	return d
}
