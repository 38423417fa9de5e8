package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/screen"
)

func (a *app) sessionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "session",
		Short: "list, show and remove sessions",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usage("say what to do: list, show or rm (see: %s --help)", cmd.CommandPath())
		},
	}
	cmd.AddCommand(a.sessionListCommand(), a.sessionShowCommand(), a.sessionRemoveCommand())
	return cmd
}

func (a *app) sessionListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "list your sessions, the newest last", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		list, err := a.client.Sessions(cmd.Context())
		if err != nil {
			return cannot("list the sessions", err)
		}
		slices.SortStableFunc(list, func(x, y api.Session) int { return x.Created.Compare(y.Created) })
		if *asJSON {
			return printList(a, list)
		}
		t := newTable(a.out, "ID", "KIND", "STATE", "MODEL", "CREATED", "TITLE")
		for _, s := range list {
			t.row(s.ID, s.Kind, s.State, s.Model, local(s.Created), cut(s.Title, 60))
		}
		return t.flush()
	}
	return cmd
}

func (a *app) sessionShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ID", Short: "show what was said in a session", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeSessions,
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := a.findSession(cmd.Context(), args[0])
		if err != nil {
			return cannot("show the session", err)
		}
		d, err := a.client.Session(cmd.Context(), s.ID)
		if err != nil {
			return cannot("show the session", err)
		}
		if *asJSON {
			if d.Turns == nil {
				d.Turns = []api.Turn{}
			}
			return a.printJSON(d)
		}
		_, err = a.out.WriteString(renderSession(&d))
		return err
	}
	return cmd
}

// renderSession shows a conversation, neutralised and indented, so that no turn can pass for another.
func renderSession(d *api.SessionDetail) string {
	var b strings.Builder
	b.WriteString(screen.Line("session "+d.ID+" ("+d.Kind+", "+d.State+") "+d.Model) + "\n")
	for _, t := range d.Turns {
		who := t.Role
		if t.Tool != "" {
			who += " " + t.Tool
		}
		if t.Label != "" && t.Label != api.LabelUser && t.Role == "user" {
			who += ", attached"
		}
		b.WriteString("\n" + screen.Line(who+"  "+local(t.Time)) + "\n")
		if t.Text != "" {
			b.WriteString(quote(t.Text))
		}
		for _, c := range t.ToolCalls {
			b.WriteString("  → " + screen.Line(c.Name+" "+string(c.Args)) + "\n")
		}
	}
	return b.String()
}

func (a *app) sessionRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm ID...", Short: "end and forget sessions", Args: cobra.MinimumNArgs(1), ValidArgsFunction: a.completeSessions,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, prefix := range args {
				s, err := a.findSession(cmd.Context(), prefix)
				if err == nil {
					err = a.client.DeleteSession(cmd.Context(), s.ID)
				}
				if err != nil {
					return cannot("remove the session", err)
				}
			}
			return nil
		},
	}
}

func (a *app) findSession(ctx context.Context, prefix string) (api.Session, error) {
	list, err := a.client.Sessions(ctx)
	if err != nil {
		return api.Session{}, err
	}
	return byPrefix(list, func(s api.Session) string { return s.ID }, prefix, "session", "closedpawctl session list")
}
