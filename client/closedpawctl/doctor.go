package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/closedpaw/closedpaw/client"
	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/screen"
)

func (a *app) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "say what is there, what is missing, and what mends it",
		Long: `doctor looks at this machine and asks the daemon to look at its own parts. A "problem" keeps
the main job from running; what is "missing" would be used if it were there. The exit code is
0 only if there is no problem, and 3 if closedpawd cannot be reached.`,
		Args: cobra.NoArgs,
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		checks, failed := a.examine(cmd.Context())
		if failed != nil && !errors.As(failed, new(*client.UnreachableError)) {
			return cannot("ask the daemon for its checks", failed)
		}
		if err := a.showChecks(checks, *asJSON); err != nil {
			return err
		}
		if failed != nil {
			return exitStatus(exitUnreachable)
		}
		if slices.ContainsFunc(checks, func(c api.Check) bool { return c.Needed && !c.OK }) {
			return exitStatus(exitError)
		}
		return nil
	}
	return cmd
}

// examine returns the checks of both sides; where both know a name, the daemon knows better.
func (a *app) examine(ctx context.Context) ([]api.Check, error) {
	theirs, err := a.client.Checks(ctx)
	daemon := api.Check{Name: "daemon", OK: err == nil, Needed: true, Detail: "answers at " + a.socket}
	var u *client.UnreachableError
	if errors.As(err, &u) {
		daemon.Detail, daemon.Fix = fmt.Sprintf("cannot be reached at %s: %v", u.Socket, u.Err), u.Hint
	}
	checks := []api.Check{daemon}
	for _, c := range localChecks() {
		if !slices.ContainsFunc(theirs, func(t api.Check) bool { return strings.EqualFold(t.Name, c.Name) }) {
			checks = append(checks, c)
		}
	}
	return append(checks, theirs...), err
}

func (a *app) showChecks(checks []api.Check, asJSON bool) error {
	if asJSON {
		return printList(a, checks)
	}
	t := newTable(a.out)
	for _, c := range checks {
		state := "ok"
		switch {
		case !c.OK && c.Needed:
			state = "problem"
		case !c.OK:
			state = "missing"
		}
		about := screen.Line(c.Detail)
		if c.Fix != "" && !c.OK {
			about += "  → " + screen.Line(c.Fix)
		}
		t.row(state, c.Name, about)
	}
	return t.flush()
}

// exists is a check for one of some files.
func exists(name, detail, fix string, files ...string) api.Check {
	for _, f := range files {
		if _, err := os.Stat(f); err == nil {
			return api.Check{Name: name, OK: true, Detail: f, Fix: fix}
		}
	}
	return api.Check{Name: name, Detail: detail, Fix: fix}
}
