package main

import (
	"context"
	"errors"
	"strings"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/screen"
)

// toolApply is the tool of the question whether changes are applied.
const toolApply = "apply"

const (
	outcomeAllow   = "allow"
	outcomeExpired = "expired"
)

// errElsewhere ends a question that was answered by someone else, or that the stream's end has closed.
var errElsewhere = errors.New("answered elsewhere")

func question(q *api.Approval) string {
	if q.Tool == toolApply {
		return "apply these changes?"
	}
	return "allow?"
}

// describe is what the person is shown above a question, neutralised; the last lines are the ones to go by.
func (t *turn) describe(q *api.Approval) string {
	var b strings.Builder
	switch {
	case q.Tool != toolApply || t.changes == nil:
		b.WriteString(detail(q))
	case !t.shown:
		b.WriteString(renderChanges(t.changes, colours(t.person.out)))
		t.shown = true
	}
	b.WriteString(headline(q))
	return b.String()
}

// headline says in a few lines what a question is about.
func headline(q *api.Approval) string {
	s := "closedpawctl: " + screen.Line(q.Summary) + "\n"
	if q.Reason != "" {
		s += "closedpawctl: asked because " + screen.Line(q.Reason) + "\n"
	}
	if q.Level == api.LevelAuthenticate {
		s += "closedpawctl: after a yes you will have to prove that it is you\n"
	}
	return s
}

func detail(q *api.Approval) string {
	if q.Detail == "" {
		return ""
	}
	return quote(q.Detail)
}

// answer sends what the person said.
func (t *turn) answer(ctx context.Context, q *api.Approval, yes bool) error {
	t.answered[q.ID] = true
	_, err := t.app.client.Answer(ctx, q.ID, api.Answer{Allow: yes, Digest: q.Digest})
	var refused *api.Error
	switch {
	case err == nil && yes:
		t.approved = t.approved || q.Tool == toolApply
	case err == nil:
		t.denied = true
	case errors.As(err, &refused):
		// Whoever was faster, or a yes that is not enough: the stream will say how the question was closed.
		t.answered[q.ID] = false
		t.p.must("the answer was not taken: %v", refused)
	default:
		return err
	}
	return nil
}

// nobody deals with a question where there is no terminal.
func (t *turn) nobody(ctx context.Context, q *api.Approval) error {
	if q.Tool != toolApply {
		t.p.show(detail(q) + headline(q))
		t.p.must("waiting for an answer; give it in another terminal: closedpawctl approve %s, or deny %s", q.ID, q.ID)
		return nil
	}
	hint := "do it again where there is one"
	if t.sayYes {
		hint += ", or with --apply=yes"
	}
	t.p.must("not applied: there is no terminal to ask on; %s", hint)
	return t.answer(ctx, q, false)
}

// close notes how a question ended.
func (t *turn) close(q *api.Approval) {
	allowed := q.Outcome == outcomeAllow
	if allowed && q.Tool == toolApply {
		t.approved = true
	}
	if !allowed {
		t.denied = true
	}
	switch {
	case t.answered[q.ID]:
	case allowed:
		t.p.must("answered elsewhere: allowed")
	case q.Outcome == outcomeExpired:
		t.p.must("nobody answered in time: denied")
	default:
		t.p.must("answered elsewhere: denied")
	}
}
