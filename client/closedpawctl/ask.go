package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/closedpaw/closedpaw/client/api"
)

// grace is how much longer than --timeout the client waits: the daemon, which is told the same, says better what hung.
const grace = 2 * time.Second

type askFlags struct {
	model, folder, system, session string
	files                          []string
	again                          bool
	json, streamJSON, noStream     bool
	quiet, trustStdin              bool
	timeout                        time.Duration
	maxTurns                       int
	apply                          string
}

func (a *app) askCommand() *cobra.Command {
	var f askFlags
	cmd := &cobra.Command{
		Use:   "ask [flags] PROMPT... | -",
		Short: "ask the assistant, or give it a job in a folder",
		Long: `ask sends a prompt to the model and writes its answer to stdout. The words are joined by
spaces; "-" reads the prompt from stdin.

What is not yours is marked as such: attached files (-a), data on stdin beside a prompt, and
what follows the first line of a prompt on stdin may have been written by anybody, so it
cannot command the assistant. With --trust-stdin all of a prompt counts as yours; a stdin
that is attached beside a prompt stays what it is.

With -w the assistant works on a copy of the folder. At the end its changes are shown as a
diff, and a question on the terminal decides whether they are applied; without a terminal
they are not.

Exit codes: 0; 1 error; 2 usage; 3 closedpawd cannot be reached; 4 policy or a person denied
something; 5 timeout; 130 interrupted.`,
		Example: `  closedpawctl ask "what does this error mean?" <build.log
  closedpawctl ask -w . "rename the option -x to -y, everywhere"
  closedpawctl ask -c "and now the tests"`,
		RunE: func(cmd *cobra.Command, words []string) error {
			if f.timeout <= 0 && cmd.Flags().Changed("timeout") {
				return usage("--timeout must be longer than nothing, not %s", f.timeout)
			}
			return cannot("ask", a.ask(cmd.Context(), &f, words))
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&f.model, "model", "m", "", "the `MODEL`; see: closedpawctl models")
	fl.StringVarP(&f.folder, "workspace", "w", "", "let it work on a copy of `DIR`")
	fl.StringVarP(&f.system, "system", "s", "", "a `SYSTEM` prompt")
	fl.BoolVarP(&f.again, "continue", "c", false, "continue the newest session")
	fl.StringVar(&f.session, "session", "", "continue the session with this `ID`")
	fl.StringArrayVarP(&f.files, "attach", "a", nil, "attach a text `FILE`, as data (may be repeated)")
	fl.BoolVar(&f.json, "json", false, "write one JSON object at the end")
	fl.BoolVar(&f.streamJSON, "stream-json", false, "write each event as a line of JSON")
	fl.BoolVar(&f.noStream, "no-stream", false, "write the answer when it is complete")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no progress on stderr")
	fl.BoolVar(&f.trustStdin, "trust-stdin", false, "all of the prompt is yours, also what you pasted or piped")
	fl.DurationVar(&f.timeout, "timeout", 0, "give up after this time, for example 90s")
	fl.IntVar(&f.maxTurns, "max-turns", 0, "ask the model at most `N` times (default: the daemon's)")
	fl.StringVar(&f.apply, "apply", "ask", "what to do with changes of the folder: `ask|never`")
	cmd.MarkFlagsMutuallyExclusive("continue", "session")
	cmd.MarkFlagsMutuallyExclusive("json", "stream-json")
	cmd.RegisterFlagCompletionFunc("model", a.completeModels)
	cmd.RegisterFlagCompletionFunc("session", a.completeSessions)
	cmd.RegisterFlagCompletionFunc("apply", cobra.FixedCompletions([]string{"ask", "never"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) ask(ctx context.Context, f *askFlags, words []string) error {
	if f.apply != "ask" && f.apply != "never" {
		return usage("--apply is ask or never, not %q", f.apply)
	}
	if f.maxTurns < 0 {
		return usage("--max-turns cannot be %d", f.maxTurns)
	}
	parts, err := a.prompt(ctx, words, f.files, f.trustStdin)
	if err != nil {
		return err
	}
	ctx, stop := limit(ctx, f.timeout)
	defer stop()
	root, token, err := a.handFolder(ctx, f.folder)
	if err != nil {
		return err
	}
	if root != nil {
		defer root.Close()
	}
	person := a.openTerminal()
	p := a.newProgress(f.quiet, true)
	defer p.close()
	p.working("waiting for the model")
	stream, err := a.client.Ask(ctx, api.AskRequest{
		Parts: parts, Model: f.model, System: f.system, Session: f.session, Continue: f.again, Folder: token,
		Apply: f.apply, MaxTurns: f.maxTurns, TimeoutMS: f.timeout.Milliseconds(), TrustStdin: f.trustStdin,
		Interactive: person != nil,
	})
	if err != nil {
		return err
	}
	t := &turn{app: a, p: p, stream: stream, person: person, root: root, mode: f.apply}
	v := &answerView{app: a, flags: f, turn: t}
	v.sum.init()
	t.arrived, t.each, t.whole = v.arrived, v.event, v.write
	if err := t.follow(ctx); err != nil {
		return errors.Join(err, p.endAnswer())
	}
	if err := v.finish(); err != nil {
		return err
	}
	return t.verdict()
}

// limit bounds ctx by --timeout.
func limit(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, timeout+grace, timeoutError{timeout})
}

// handFolder opens a folder and hands it over; the client needs it later to apply changes. No name is no folder.
func (a *app) handFolder(ctx context.Context, name string) (*os.File, string, error) {
	if name == "" {
		return nil, "", nil
	}
	root, err := os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, "", fmt.Errorf("cannot open the folder: %w", err)
	}
	token, err := a.client.HandFolder(ctx, root)
	if err != nil {
		root.Close()
		return nil, "", err
	}
	return root, token, nil
}

// answerView shows the events of an ask in the form that the flags ask for.
type answerView struct {
	app   *app
	flags *askFlags
	turn  *turn
	text  strings.Builder
	sum   summary
}

// arrived sees each event at once, also those that wait behind a question.
func (v *answerView) arrived(e *api.Event) error {
	if v.flags.streamJSON {
		return v.app.printJSON(e)
	}
	return nil
}

func (v *answerView) event(e *api.Event) error {
	v.sum.add(e)
	p := v.turn.p
	switch e.Type {
	case api.EventText:
		switch {
		case v.flags.streamJSON:
		case v.flags.json || v.flags.noStream:
			v.text.WriteString(e.Text)
		default:
			p.working("")
			return p.answer(e.Text)
		}
	case api.EventThinking:
		p.working("thinking")
	case api.EventToolStarted:
		p.say("%s", toolLine(e.Tool))
		p.working("running it")
	case api.EventToolFinished:
		p.say("%s", toolEnd(e.Tool))
		if e.Tool.Output != "" && !v.flags.quiet {
			p.show(quote(firstLines(e.Tool.Output, outputLines)))
		}
		p.working("waiting for the model")
	case api.EventDone:
		if e.Done.Reason == "max_turns" {
			p.must("the model wanted to go on, but had used its turns (give it more: --max-turns)")
		}
	}
	return nil
}

// finish writes what waits for the end.
func (v *answerView) finish() error {
	if v.flags.json {
		v.sum.Answer = v.text.String()
		v.sum.Changes.Applied = v.turn.applied
		return v.app.printJSON(v.sum)
	}
	return v.write()
}

// write writes what there is of the answer and ends its line.
func (v *answerView) write() error {
	if v.flags.json {
		return nil
	}
	if err := v.turn.p.answer(v.text.String()); err != nil {
		return err
	}
	v.text.Reset()
	return v.turn.p.endAnswer()
}
