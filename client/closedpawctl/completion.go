package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/closedpaw/closedpaw/client"
	"github.com/closedpaw/closedpaw/client/screen"
)

// completionTime bounds how long a person waits for TAB.
const completionTime = time.Second

// completed asks the daemon for candidates; without it there are none. The shell shows them: they are ids and names
// with a description, and cobra's scripts take a line and a tab each for a separator, which neutralising removes.
func (a *app) completed(cmd *cobra.Command, list func(context.Context, *client.Client) ([]cobra.Completion, error)) ([]cobra.Completion, cobra.ShellCompDirective) {
	ctx, stop := context.WithTimeout(context.Background(), completionTime)
	defer stop()
	found, err := list(ctx, client.New(a.socket))
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeModels(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.completed(cmd, func(ctx context.Context, c *client.Client) (out []cobra.Completion, err error) {
		models, err := c.Models(ctx)
		for _, m := range models {
			out = append(out, candidate(m.Name, m.Provider))
		}
		return out, err
	})
}

func (a *app) completeSessions(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.completed(cmd, func(ctx context.Context, c *client.Client) (out []cobra.Completion, err error) {
		sessions, err := c.Sessions(ctx)
		for _, s := range sessions {
			out = append(out, candidate(s.ID, cut(s.Title, 50)))
		}
		return out, err
	})
}

func (a *app) completeQuestions(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return a.completed(cmd, func(ctx context.Context, c *client.Client) (out []cobra.Completion, err error) {
		all, err := c.Approvals(ctx)
		for _, q := range all {
			if q.Outcome == "" {
				out = append(out, candidate(q.ID, cut(q.Summary, 50)))
			}
		}
		return out, err
	})
}

func candidate(name, about string) cobra.Completion {
	return cobra.CompletionWithDesc(screen.Line(name), screen.Line(about))
}
