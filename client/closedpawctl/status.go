package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/spf13/cobra"
)

func (a *app) statusCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "status", Short: "say what runs", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.client.Status(cmd.Context())
		if err != nil {
			return cannot("ask for the status", err)
		}
		if *asJSON {
			return a.printJSON(s)
		}
		mode := "system"
		if s.Dev {
			mode = "dev"
		}
		t := newTable(a.out)
		t.row("version", s.Version)
		t.row("running", "since "+local(s.Since)+", pid "+strconv.Itoa(s.PID)+", mode "+mode)
		t.row("sandbox", s.Tier)
		t.row("policy", "serial "+strconv.FormatUint(s.PolicySerial, 10))
		t.row("sessions", strconv.Itoa(s.Sessions)+" running")
		t.row("questions", strconv.Itoa(s.Pending)+" waiting")
		t.row("audit", count(int(s.AuditSize), "record"))
		t.row("ollama", s.Ollama)
		return t.flush()
	}
	return cmd
}

func (a *app) modelsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "models", Short: "list the models that ask -m takes", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		list, err := a.client.Models(cmd.Context())
		if err != nil {
			return cannot("list the models", err)
		}
		if *asJSON {
			return printList(a, list)
		}
		t := newTable(a.out, "NAME", "PROVIDER", "SIZE", "TOOLS", "DEFAULT")
		for _, m := range list {
			t.row(m.Name, m.Provider, size(m.Size), yesNo(m.Tools), yesNo(m.Default))
		}
		return t.flush()
	}
	return cmd
}

func size(n int64) string {
	switch {
	case n <= 0:
		return "-"
	case n < 1<<20:
		return strconv.FormatInt((n+1023)>>10, 10) + " KiB"
	case n < 1<<30:
		return strconv.FormatInt(n>>20, 10) + " MiB"
	}
	return strconv.FormatFloat(float64(n)/(1<<30), 'f', 1, 64) + " GiB"
}

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "say which versions run", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := struct {
			Client string `json:"client"`
			Daemon string `json:"daemon"` // empty: it cannot be reached
			Go     string `json:"go"`
		}{Client: ownVersion(), Daemon: a.daemonVersion(cmd.Context()), Go: runtime.Version()}
		if *asJSON {
			return a.printJSON(v)
		}
		t := newTable(a.out)
		t.row("closedpawctl", v.Client)
		if v.Daemon == "" {
			v.Daemon = "cannot be reached"
		}
		t.row("closedpawd", v.Daemon)
		t.row("go", v.Go)
		return t.flush()
	}
	return cmd
}

func (a *app) daemonVersion(ctx context.Context) string {
	s, err := a.client.Status(ctx)
	if err != nil {
		return ""
	}
	return s.Version
}

// version is set by the linker: -X main.version=V.
var version string

// ownVersion is what the linker was told, or else what the go command knows: a tag, or the commit and its time.
func ownVersion() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "unknown"
}
