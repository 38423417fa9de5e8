package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/closedpaw/closedpaw/client"
	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/screen"
)

// app is what the commands share.
type app struct {
	socket   string
	client   *client.Client
	in       *os.File
	out      *os.File
	err      *os.File
	began    bool // the arguments were good and the command's work has begun
	terminal atomic.Pointer[terminal]
}

const longHelp = `closedpawctl talks to ClosedPaw: an AI assistant that works in a sandbox and changes
nothing of yours before you have seen it and said yes.

Exit codes of all commands but run:
  0    all went well
  1    an error
  2    wrong usage
  3    closedpawd cannot be reached
  4    policy or a person denied something that was asked for
  5    it took longer than --timeout
  130  interrupted

run passes the exit code of its command through (0-255); 125 means that ClosedPaw itself
could not do it, wrong usage and a timeout among the reasons, and 130 also that it was
interrupted.`

// start runs a command line and returns the exit code.
func start(args []string) int {
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go a.watchSignals(cancel)

	root := a.root()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !a.began {
		err = usage("%w (see: %s --help)", err, cmd.CommandPath())
	}
	if a.client != nil {
		a.client.Close()
	}
	a.report(err)
	return exitCode(err, cmd.Name() == "run" && cmd.Parent() == root)
}

// watchSignals cancels the command at the first signal: its request ends, and with it all that the daemon does for it.
// The second ends the program at once.
func (a *app) watchSignals(cancel context.CancelCauseFunc) {
	c := make(chan os.Signal, 2)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	<-c
	cancel(errInterrupted)
	<-c
	if t := a.terminal.Load(); t != nil {
		t.restore()
	}
	os.Exit(exitInterrupted)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "closedpawctl",
		Short:         "an AI assistant that cannot touch your machine",
		Long:          longHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmd.ValidateFlagGroups(); err != nil { // cobra does it later
				return err
			}
			a.began = true
			a.client = client.New(a.socket)
			return nil
		},
	}
	socket := os.Getenv("CLOSEDPAW_SOCKET")
	if socket == "" {
		socket = api.DefaultSocket
	}
	root.PersistentFlags().StringVar(&a.socket, "socket", socket, "the daemon's `SOCKET`; CLOSEDPAW_SOCKET says it too")
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.AddCommand(a.askCommand(), a.runCommand(), a.statusCommand(), a.doctorCommand(), a.pendingCommand(),
		a.approveCommand(), a.denyCommand(), a.sessionCommand(), a.auditCommand(), a.modelsCommand(), a.versionCommand(),
		a.manCommand())
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" { // cobra's own shows its help, whatever it was asked for
			c.Args = cobra.NoArgs
			c.RunE = func(*cobra.Command, []string) error { return usage("name the shell: bash, zsh, fish or powershell") }
		}
	}
	return root
}

// report prints the one line that an error is.
func (a *app) report(err error) {
	if err == nil || errors.As(err, new(exitStatus)) {
		return
	}
	a.say("%v", err)
}

// say prints one line for the person, neutralised.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.err, "closedpawctl: %s\n", screen.Line(fmt.Sprintf(format, args...)))
}
