package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man", Short: "write the manual page, for packagers", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return writeManual(a.out, cmd.Root())
		},
	}
}

// writeManual writes one page, in man(7), for the whole program.
func writeManual(w io.Writer, root *cobra.Command) error {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH CLOSEDPAWCTL 1\n.SH NAME\nclosedpawctl \\- %s\n", roff(root.Short))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B closedpawctl\nCOMMAND [FLAGS] [ARGUMENTS]\n.SH DESCRIPTION\n.nf\n%s\n.fi\n", roff(root.Long))
	b.WriteString(".SH FLAGS OF ALL COMMANDS\n")
	writeFlags(&b, root.PersistentFlags())
	b.WriteString(".SH COMMANDS\n")
	writeCommands(&b, root)
	b.WriteString(".SH ENVIRONMENT\n.TP\n.B CLOSEDPAW_SOCKET\nthe socket of closedpawd, unless \\-\\-socket says otherwise\n" +
		".TP\n.B NO_COLOR\nno colours in a diff\n.TP\n.B XDG_STATE_HOME\nwhere the verified state of audit logs is remembered, in closedpaw\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func writeCommands(b *strings.Builder, parent *cobra.Command) {
	for _, c := range parent.Commands() {
		if c.Hidden || c.Name() == "help" {
			continue
		}
		if c.HasSubCommands() && c.Name() != "completion" {
			writeCommands(b, c)
			continue
		}
		about := c.Long
		if about == "" || c.Name() == "completion" {
			about = c.Short
		}
		fmt.Fprintf(b, ".SS %s\n.nf\n%s\n.fi\n", roff(strings.TrimPrefix(c.UseLine(), "closedpawctl ")), roff(about))
		if c.Example != "" {
			fmt.Fprintf(b, ".PP\nExamples:\n.nf\n%s\n.fi\n", roff(c.Example))
		}
		writeFlags(b, c.LocalNonPersistentFlags())
	}
}

func writeFlags(b *strings.Builder, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		name, about := pflag.UnquoteUsage(f)
		b.WriteString(".TP\n.B ")
		if f.Shorthand != "" {
			b.WriteString(roff("-"+f.Shorthand) + ", ")
		}
		b.WriteString(roff(strings.TrimSpace("--"+f.Name+" "+name)) + "\n" + roff(about) + "\n")
	})
}

// roff quotes text for man(7).
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") || strings.HasPrefix(l, "'") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
