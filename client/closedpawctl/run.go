package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/closedpaw/closedpaw/client/api"
)

type runFlags struct {
	folder, apply, mem string
	timeout            time.Duration
	json               bool
}

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] -- CMD ARG...",
		Short: "run a command in the sandbox, without a model",
		Long: `run runs a command in the sandbox, in a copy of the folder that -w names. Its standard
streams and its exit code (0-255) pass through; what it writes to a terminal is shown with
control sequences made visible.

Exit codes: those of the command; 125 if ClosedPaw itself could not do it: closedpawd cannot
be reached, it was denied, it took longer than --timeout, changes could not be applied, or
the usage was wrong; 130 if it was interrupted. Not to apply changes is no failure.`,
		Example: `  closedpawctl run -w . -- make test
  closedpawctl run -w . --apply=yes --mem 512M -- python3 fix.py`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, argv []string) error {
			if f.timeout <= 0 && cmd.Flags().Changed("timeout") {
				return usage("--timeout must be longer than nothing, not %s", f.timeout)
			}
			return cannot("run it", a.runInSandbox(cmd.Context(), &f, argv))
		},
	}
	fl := cmd.Flags()
	fl.SetInterspersed(false) // what follows the command is its own
	fl.StringVarP(&f.folder, "workspace", "w", "", "let it work on a copy of `DIR`")
	fl.StringVar(&f.apply, "apply", "ask", "what to do with changes of the folder: `ask|yes|never`")
	fl.DurationVar(&f.timeout, "timeout", 0, "end it after this time, for example 90s")
	fl.StringVar(&f.mem, "mem", "", "give it that much memory: `SIZE` like 512M or 2GiB")
	fl.BoolVar(&f.json, "json", false, "write one JSON object at the end, with at most 1 MiB of stdout and of stderr")
	cmd.RegisterFlagCompletionFunc("apply", cobra.FixedCompletions([]string{"ask", "yes", "never"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// runSummary is the JSON form of a run.
type runSummary struct {
	Session   string     `json:"session"`
	ExitCode  int        `json:"exit_code"`
	Stdout    string     `json:"stdout"`
	Stderr    string     `json:"stderr"`
	Truncated bool       `json:"truncated"` // of either
	Changes   runChanges `json:"changes"`
}

type runChanges struct {
	Added    []string      `json:"added"`
	Modified []string      `json:"modified"`
	Deleted  []string      `json:"deleted"`
	Renamed  []runRenamed  `json:"renamed"`
	Refused  []runRefusals `json:"refused"`
	Applied  bool          `json:"applied"`
}

type runRenamed struct {
	From string `json:"from"`
	To   string `json:"to"`
}

type runRefusals struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}

func (a *app) runInSandbox(ctx context.Context, f *runFlags, argv []string) error {
	if f.apply != "ask" && f.apply != "yes" && f.apply != "never" {
		return usage("--apply is ask, yes or never, not %q", f.apply)
	}
	mem, err := parseSize(f.mem)
	if err != nil {
		return err
	}
	ctx, stop := limit(ctx, f.timeout)
	defer stop()
	root, folder, err := a.handFolder(ctx, f.folder)
	if err != nil {
		return err
	}
	if root != nil {
		defer root.Close()
	}
	io, token, err := a.handStdio(ctx, f.json)
	if err != nil {
		return err
	}
	defer io.close()
	io.start()
	person := a.openTerminal()
	p := a.newProgress(false, false) // the command's own output has the terminal
	defer p.close()
	stream, err := a.client.Run(ctx, api.RunRequest{
		Argv: argv, Folder: folder, Stdio: token, Apply: f.apply, TimeoutMS: f.timeout.Milliseconds(), MemoryBytes: mem,
		Interactive: person != nil,
	})
	if err != nil {
		return err
	}
	io.resumeInput()
	t := &turn{app: a, p: p, stream: stream, person: person, root: root, mode: f.apply, sayYes: true}
	t.before, t.after = io.pauseInput, io.resumeInput
	var exit *api.Exit
	t.each = func(e *api.Event) error {
		if e.Type == api.EventExit {
			exit = e.Exit
			io.pauseInput()
			t.before, t.after = nil, nil
			return io.drain(ctx)
		}
		return nil
	}
	if err := t.follow(ctx); err != nil {
		io.abandon()
		return err
	}
	if exit == nil {
		return errors.New("closedpawd did not say how the command ended (see: closedpawctl audit list)")
	}
	if f.json {
		sum := runSummary{Session: t.session, ExitCode: exit.Code, Changes: changesOf(t)}
		sum.Stdout, sum.Stderr, sum.Truncated = io.captured()
		if err := a.printJSON(sum); err != nil {
			return err
		}
	}
	return ending(t, exit, f.timeout)
}

// ending is how the program ends after a command that ended so.
func ending(t *turn, exit *api.Exit, timeout time.Duration) error {
	switch {
	case exit.Why == "timeout" && timeout > 0:
		return timeoutError{timeout}
	case exit.Why == "timeout":
		return errors.New("it took longer than policy allows (give it longer: --timeout)")
	case exit.Code < 0 || exit.Code > 255:
		return fmt.Errorf("closedpawd says that the command ended with code %d, which no command does", exit.Code)
	}
	if exit.Why != "" {
		t.p.must("%s", exit.Why)
	}
	if t.conflicts {
		return exitStatus(exitRun)
	}
	return exitStatus(exit.Code)
}

func changesOf(t *turn) runChanges {
	c := t.changes
	if c == nil {
		c = new(api.Changes)
	}
	out := runChanges{
		Added: paths(c.Added), Modified: paths(c.Modified), Deleted: paths(c.Deleted),
		Renamed: []runRenamed{}, Refused: []runRefusals{}, Applied: t.applied,
	}
	for _, r := range c.Renamed {
		out.Renamed = append(out.Renamed, runRenamed{r.From, r.Path})
	}
	for _, r := range c.Refused {
		out.Refused = append(out.Refused, runRefusals{r.Path, r.Why})
	}
	return out
}

// parseSize reads a number of bytes: 4096, 512M, 2G, 100MiB; K, M and G are powers of 1024.
func parseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	bad := usage("--mem is a size like 512M or 2GiB, not %q", s)
	digits := strings.TrimRight(s, "KMGiBkmgb")
	unit, ok := map[string]int64{"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[strings.TrimSuffix(strings.ToLower(s[len(digits):]), "ib")]
	if !ok || len(digits) > 12 {
		return 0, bad
	}
	var n int64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, bad
		}
		n = n*10 + int64(c-'0')
	}
	if n == 0 || n > (1<<50)/unit {
		return 0, bad
	}
	return n * unit, nil
}

// handStdio makes the three pipes of a command and hands over its ends.
func (a *app) handStdio(ctx context.Context, capture bool) (*stdio, string, error) {
	s := new(stdio)
	var theirs [3]*os.File
	defer func() {
		for _, f := range theirs {
			if f != nil {
				f.Close()
			}
		}
	}()
	var err [3]error
	theirs[0], s.in, err[0] = os.Pipe()
	s.out, theirs[1], err[1] = os.Pipe()
	s.err, theirs[2], err[2] = os.Pipe()
	if e := errors.Join(err[:]...); e != nil {
		s.close()
		return nil, "", fmt.Errorf("cannot make a pipe: %w", e)
	}
	token, e := a.client.HandStdio(ctx, theirs[0], theirs[1], theirs[2])
	if e != nil {
		s.close()
		return nil, "", e
	}
	s.feed = &feeder{from: a.in, to: s.in}
	s.outSink, s.errSink = sink(a.out, capture), sink(a.err, capture)
	return s, token, nil
}
