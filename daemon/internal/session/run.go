package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/sandbox"
	"github.com/closedpaw/closedpaw/policy"
)

// Bounds of a run's command.
const (
	maxArgs     = 1024
	maxArgBytes = 128 << 10
	minMemory   = 64 << 20 // below it the sandbox's own kernel does not start
)

// Run runs one command in a sandbox, with no model at all; its standard streams are the client's pipes.
func (m *Manager) Run(ctx context.Context, c guard.Caller, r api.RunRequest, out Sink) (err error) {
	if err := checkRun(r); err != nil {
		return err
	}
	stdio, err := m.handovers.take(c.UID(), Stdio, r.Stdio)
	if err != nil {
		return err
	}
	defer closeAll(stdio)
	ctx, cancel := deadline(ctx, r.TimeoutMS, m.commandTime())
	defer cancel()
	defer func() { err = failed(ctx, err) }()
	rec, err := m.Store.New(c.UID(), KindRun, "", title(strings.Join(r.Argv, " ")))
	if err != nil {
		return err
	}
	w, err := m.begin(rec, out)
	if err != nil {
		m.Store.unused(rec.ID)
		return err
	}
	defer func() { w.end(ctx, err) }()
	w.interactive = r.Interactive
	if err := w.takeFolder(c, r.Folder); err != nil {
		return err
	}
	w.saw(policy.Label{Private: w.folder != nil})
	if r.MemoryBytes > 0 {
		w.limits.MemoryBytes = r.MemoryBytes
	}
	began := m.Audit.SessionBegan(int64(rec.UID), rec.ID, KindRun, "", m.Runtime.Tier())
	exact := exactRun(r)
	permit, err := m.Guard.Permit(ctx, guard.Effect{UID: rec.UID, Session: rec.ID, Action: policy.ActionSandboxUse, Resource: policy.Daemon{},
		Tool: "run", Summary: "run a command in the sandbox", Detail: strings.Join(r.Argv, " "), Exact: exact, Label: w.label,
		Interactive: w.interactive, Requested: true, MemoryBytes: w.limits.MemoryBytes, Opened: w.opened, Closed: w.closed})
	if err := errors.Join(err, began(ctx)); err != nil {
		return err
	}
	if err := w.send(api.Event{Type: api.EventSession, Session: &api.SessionEvent{ID: rec.ID, Tier: m.Runtime.Tier()}}); err != nil {
		return err
	}
	status, err := w.execute(ctx, r, permit, exact, stdio)
	if rerr := permit.Done(ctx, status.Code, err); err == nil {
		err = rerr
	}
	if err != nil {
		return err
	}
	if err := w.send(api.Event{Type: api.EventExit, Exit: exit(status, r.Argv[0])}); err != nil {
		return err
	}
	if err := w.settle(ctx, r.Apply, true); err != nil {
		return err
	}
	return w.done("stop")
}

func (w *work) execute(ctx context.Context, r api.RunRequest, permit *guard.Permit, exact []byte, stdio []*os.File) (sandbox.Status, error) {
	box, err := w.sandbox(ctx)
	if err != nil {
		return sandbox.Status{}, err
	}
	if err := permit.Use(exact); err != nil {
		return sandbox.Status{}, err
	}
	p, err := box.Start(ctx, sandbox.Command{Argv: r.Argv, Env: r.Env}, stdio[0], stdio[1], stdio[2])
	closeAll(stdio) // the client sees the end of the output when the command's side alone is left
	if status, none := notStarted(err); none {
		return status, nil
	}
	if err != nil {
		return sandbox.Status{}, w.lost(ctx, err)
	}
	status, err := p.Wait(ctx)
	if err != nil {
		return status, w.lost(ctx, err)
	}
	return status, nil
}

func exit(s sandbox.Status, name string) *api.Exit {
	e := &api.Exit{Code: s.Code, Signal: s.Signal}
	switch {
	case s.NotStarted && s.Code == 127:
		e.Why = fmt.Sprintf("%q is not in the sandbox, which has the host's /usr and the folder given with -w", name)
	case s.NotStarted:
		e.Why = fmt.Sprintf("%q cannot be executed", name)
	}
	return e
}

// notStarted tells a command that cannot be run from a sandbox that failed: as shells do, 127 is "not there" and 126
// "not to be executed".
func notStarted(err error) (sandbox.Status, bool) {
	switch {
	case errors.Is(err, sandbox.ErrNoCommand):
		return sandbox.Status{Code: 127, NotStarted: true}, true
	case errors.Is(err, sandbox.ErrNotExecutable):
		return sandbox.Status{Code: 126, NotStarted: true}, true
	}
	return sandbox.Status{}, false
}

func checkRun(r api.RunRequest) error {
	n := 0
	for _, s := range append(append([]string{}, r.Argv...), r.Env...) {
		if n += len(s) + 1; strings.IndexByte(s, 0) >= 0 {
			return badRequest("an argument has a zero byte")
		}
	}
	switch {
	case len(r.Argv) == 0 || r.Argv[0] == "":
		return badRequest("no command")
	case len(r.Argv)+len(r.Env) > maxArgs || n > maxArgBytes:
		return badRequest("more than %d arguments or %d bytes of them", maxArgs, maxArgBytes)
	case r.Apply != "ask" && r.Apply != "yes" && r.Apply != "never":
		return badRequest("apply is %q, neither ask nor yes nor never", r.Apply)
	case r.MemoryBytes < 0 || r.MemoryBytes > 0 && r.MemoryBytes < minMemory:
		return badRequest("memory of %d bytes is less than %d", r.MemoryBytes, minMemory)
	}
	for _, e := range r.Env {
		if i := strings.IndexByte(e, '='); i <= 0 {
			return badRequest("environment %q is not NAME=VALUE", e)
		}
	}
	return nil
}

// exactRun is what the permit is bound to.
func exactRun(r api.RunRequest) []byte {
	b, err := json.Marshal(struct {
		Argv   []string `json:"argv"`
		Env    []string `json:"env"`
		Memory int64    `json:"memory_bytes"`
	}{r.Argv, r.Env, r.MemoryBytes})
	if err != nil { // strings alone
		panic(err)
	}
	return b
}
