// Command bench measures ClosedPaw against what it is built on, in one run, and prints lines "bench: NAME VALUE".
//
// Absolute times depend on the machine and what else it does; the ratios and differences are what to look at. It needs
// root, the programs that `make build` yields in bin, and a real Ollama (CLOSEDPAW_TEST_OLLAMA).
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/closedpaw/closedpaw/client"
	"github.com/closedpaw/closedpaw/client/api"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "closedpaw-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, part := range []func(context.Context, string) error{appends, tools, way, tokens, flood} {
		if err := part(ctx, dir); err != nil {
			return err
		}
	}
	return nil
}

func report(name, format string, value any) { fmt.Printf("bench: %s "+format+"\n", name, value) }

// daemon is a closedpawd of the bench's own.
type daemon struct {
	cmd *exec.Cmd
	*client.Client
}

func start(ctx context.Context, dir, ollama string) (*daemon, error) {
	if err := os.Mkdir(dir, 0o711); err != nil {
		return nil, err
	}
	bin, err := filepath.Abs("bin/closedpawd")
	if err != nil {
		return nil, err
	}
	d := &daemon{cmd: exec.CommandContext(ctx, bin, "-dev", dir, "-ollama", ollama), Client: client.New(filepath.Join(dir, "run/closedpaw.sock"))}
	d.cmd.Stderr = os.Stderr
	d.cmd.Cancel = func() error { return d.cmd.Process.Signal(syscall.SIGTERM) }
	d.cmd.WaitDelay = 10 * time.Second
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	for range 500 {
		if _, err = d.Status(ctx); err == nil {
			return d, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.stop()
	return nil, fmt.Errorf("cannot start the daemon: %w", err)
}

func (d *daemon) stop() {
	d.Close()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_ = d.cmd.Wait() // however it ends, the bench goes on
}

// ask runs one request to its end and gives each event with the time since it was sent.
func (d *daemon) ask(ctx context.Context, model, prompt string, each func(time.Duration, api.Event)) error {
	begin := time.Now()
	s, err := d.Ask(ctx, api.AskRequest{Parts: []api.Part{{Label: api.LabelUser, Text: prompt}}, Model: model, Apply: "never"})
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		e, err := s.Next()
		if err != nil {
			return err
		}
		each(time.Since(begin), e)
		switch e.Type {
		case api.EventError:
			return e.Error
		case api.EventDone:
			return nil
		}
	}
}

func median(v []time.Duration) time.Duration {
	slices.Sort(v)
	return v[len(v)/2]
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

// tools: a tool call in the sandbox, against bubblewrap.
func tools(ctx context.Context, dir string) error {
	d, err := start(ctx, filepath.Join(dir, "tools"), "http://127.0.0.1:9")
	if err != nil {
		return err
	}
	defer d.stop()
	const n = 15
	var calls []time.Duration
	for range n {
		var from time.Duration
		err := d.ask(ctx, "demo", "run the command: true", func(at time.Duration, e api.Event) {
			switch e.Type {
			case api.EventToolStarted:
				from = at
			case api.EventToolFinished:
				calls = append(calls, at-from)
			}
		})
		if err != nil {
			return err
		}
	}
	own := median(calls)
	report("tool_call_cold_ms", "%.1f", ms(own))
	if bin, err := exec.LookPath("bwrap"); err == nil {
		v, err := timed(ctx, n, bin, "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
			"--unshare-all", "--die-with-parent", "/usr/bin/true")
		if err != nil {
			return err
		}
		report("bwrap.cold_ms", "%.1f", ms(v))
		report("tool_call_cold_to_bwrap", "%.1f", float64(own)/float64(v))
	}
	return nil
}

// timed runs a command n times and returns the median.
func timed(ctx context.Context, n int, name string, args ...string) (time.Duration, error) {
	var v []time.Duration
	for range n {
		begin := time.Now()
		if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%s: %w: %s", name, err, out)
		}
		v = append(v, time.Since(begin))
	}
	return median(v), nil
}
