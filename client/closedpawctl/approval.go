package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/screen"
)

// pendingQuestion is the JSON form of a question in a list.
type pendingQuestion struct {
	ID      string    `json:"id"`
	Session string    `json:"session"`
	Tool    string    `json:"tool"`
	Summary string    `json:"summary"`
	Level   string    `json:"level"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

func (a *app) pendingCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pending",
		Short: "list the questions that wait for your answer",
		Args:  cobra.NoArgs,
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		open, err := a.openQuestions(cmd.Context())
		if err != nil {
			return cannot("list the questions", err)
		}
		if *asJSON {
			list := []pendingQuestion{}
			for _, q := range open {
				list = append(list, pendingQuestion{q.ID, q.Session, q.Tool, q.Summary, q.Level, q.Created.UTC(), q.Expires.UTC()})
			}
			return a.printJSON(list)
		}
		if len(open) == 0 {
			a.say("nothing waits for your answer")
			return nil
		}
		t := newTable(a.out, "ID", "SESSION", "TOOL", "LEVEL", "EXPIRES", "WHAT")
		for _, q := range open {
			t.row(q.ID, q.Session, q.Tool, q.Level, local(q.Expires), cut(q.Summary, 100))
		}
		return t.flush()
	}
	return cmd
}

// openQuestions returns the questions that are not closed yet.
func (a *app) openQuestions(ctx context.Context) ([]api.Approval, error) {
	all, err := a.client.Approvals(ctx)
	return slices.DeleteFunc(all, func(q api.Approval) bool { return q.Outcome != "" }), err
}

func (a *app) approveCommand() *cobra.Command {
	return a.answerCommand("approve", "allow", "show a question and answer it with yes", true)
}

func (a *app) denyCommand() *cobra.Command {
	return a.answerCommand("deny", "deny", "show a question and answer it with no", false)
}

func (a *app) answerCommand(name, verb, short string, allow bool) *cobra.Command {
	return &cobra.Command{
		Use:   name + " ID",
		Short: short,
		Long: short + `. The start of an ID is enough if it is the only one.

The answer is for exactly what is shown: if that changes before the answer arrives, it counts
for nothing.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completeQuestions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return cannot(verb+" it", a.answer(cmd.Context(), args[0], allow))
		},
	}
}

func (a *app) answer(ctx context.Context, prefix string, allow bool) error {
	open, err := a.openQuestions(ctx)
	if err != nil {
		return err
	}
	q, err := byPrefix(open, func(q api.Approval) string { return q.ID }, prefix, "open question", "closedpawctl pending")
	if err != nil {
		return err
	}
	if q, err = a.client.Approval(ctx, q.ID); err != nil {
		return err
	}
	if _, err := a.err.WriteString(detail(&q) + headline(&q)); err != nil {
		return err // nobody has seen it
	}
	if q, err = a.client.Answer(ctx, q.ID, api.Answer{Allow: allow, Digest: q.Digest}); err != nil {
		return err
	}
	said := map[string]string{outcomeAllow: "allowed", outcomeExpired: "expired"}[q.Outcome]
	if said == "" {
		said = "denied"
	}
	_, err = a.out.WriteString(said + ": " + screen.Line(q.Summary) + "\n")
	if err == nil && allow != (q.Outcome == outcomeAllow) {
		return exitStatus(exitDenied)
	}
	return err
}
