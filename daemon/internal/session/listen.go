package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/audit"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/sandbox"
	"github.com/closedpaw/closedpaw/daemon/internal/text"
	"github.com/closedpaw/closedpaw/daemon/internal/tool"
	"github.com/closedpaw/closedpaw/policy"
)

// maxAnswer bounds what is kept of one answer of a model.
const maxAnswer = 4 << 20

// maxTold bounds what is kept of one turn with all its calls and results, maxCalls the calls of one answer: twice and
// once what the agent itself keeps to.
const (
	maxTold  = 8 << 20
	maxCalls = 32
)

// listen relays what the agent says until it is over. The transcript is made of what was relayed: the agent's own word
// on what it said, or on what a tool answered, is never asked for.
func (w *work) listen(ctx context.Context, ag *agent) (reason string, err error) {
	t := &transcript{rec: w.rec}
	defer t.step()
	stop := context.AfterFunc(ctx, func() { ag.conn.Close() }) // ends Recv
	defer stop()
	for {
		p, err := ag.conn.Recv()
		if ctx.Err() != nil {
			p.Close()
			return "", ctx.Err()
		}
		if errors.Is(err, io.EOF) {
			err = errors.New("it has ended")
		}
		if err != nil {
			return "", agentFailed(err.Error())
		}
		switch m := p.Msg.(type) {
		case *role.Delta:
			if err := t.text(m.Text); err != nil {
				return "", err
			}
			if err := w.delta(m); err != nil {
				return "", err
			}
		case *role.ToolCall:
			// The agent keeps to its bounds; one that was taken over does not.
			if w.usage.ToolCalls >= w.turns*maxCalls {
				return "", agentFailed("it asks for more tool calls than its turns can have")
			}
			if err := t.grow(len(m.ID) + len(m.Name) + len(m.Args)); err != nil {
				return "", err
			}
			call := api.ToolCall{ID: m.ID, Name: m.Name, Args: m.Args}
			t.calls = append(t.calls, call)
			res, err := w.call(ctx, call)
			if err != nil {
				return "", err
			}
			if err := t.grow(len(res.Text)); err != nil {
				return "", err
			}
			t.result(call, res.Text)
			if err := ag.conn.Send(0, res); err != nil {
				return "", err
			}
		case *role.Said:
			t.next()
			w.usage.PromptTokens += max(m.PromptTokens, 0)
			w.usage.OutputTokens += max(m.OutputTokens, 0)
			w.usage.ModelCalls++
		case *role.Over:
			if m.Error != nil {
				return "", m.Error
			}
			if m.Reason != "stop" && m.Reason != "max_turns" {
				return "", fmt.Errorf("the agent stopped for no known reason: %q", m.Reason)
			}
			return m.Reason, nil
		default:
			return "", fmt.Errorf("%w: %T", role.ErrNotPermitted, m)
		}
	}
}

func (w *work) delta(m *role.Delta) error {
	if m.Thinking != "" {
		if err := w.out.Send(api.Event{Type: api.EventThinking, Text: m.Thinking}, m.Text != ""); err != nil {
			return err
		}
	}
	if m.Text != "" {
		return w.send(api.Event{Type: api.EventText, Text: m.Text})
	}
	return nil
}

// call decides on one tool call and carries it out. What went wrong is for the model to read; an error of its own
// ends the work.
func (w *work) call(ctx context.Context, c api.ToolCall) (*role.ToolResult, error) {
	w.usage.ToolCalls++
	ev := &api.ToolEvent{ID: c.ID, Name: c.Name}
	start := time.Now()
	res, err := w.act(ctx, c, ev)
	if err != nil {
		return nil, err
	}
	ev.DurationMS = time.Since(start).Milliseconds()
	ev.Shown = ""
	ev.Output, _ = text.Cut(res.Text, 8<<10)
	res.ID = c.ID
	return res, w.send(api.Event{Type: api.EventToolFinished, Tool: ev})
}

func (w *work) act(ctx context.Context, c api.ToolCall, ev *api.ToolEvent) (*role.ToolResult, error) {
	inv, err := tool.Parse(c.Name, c.Args)
	if err != nil {
		ev.Denied, ev.Decision = err.Error(), policy.Deny.String()
		if err := w.refused(ctx, c, err); err != nil {
			return nil, err
		}
		return &role.ToolResult{Text: "error: " + err.Error(), Error: true}, w.send(api.Event{Type: api.EventToolStarted, Tool: ev})
	}
	ev.Shown, _ = text.Cut(inv.Shown, 4<<10)
	permit, err := w.m.Guard.Permit(ctx, guard.Effect{UID: w.rec.UID, Session: w.rec.ID, Action: policy.ActionToolCall, Resource: w.labelled(c.Name),
		Tool: c.Name, Summary: inv.Summary, Detail: inv.Detail, Exact: inv.Bytes(), Label: w.label, Interactive: w.interactive,
		MemoryBytes: w.limits.MemoryBytes, Opened: w.opened, Closed: w.closed})
	var no *guard.Denied
	if errors.As(err, &no) {
		w.denied++
		ev.Denied, ev.Decision = no.Reason, policy.Deny.String()
		return &role.ToolResult{Text: "denied: " + no.Reason, Error: true}, w.send(api.Event{Type: api.EventToolStarted, Tool: ev})
	}
	if err != nil {
		return nil, err
	}
	ev.Decision = permit.Decision()
	if err := w.send(api.Event{Type: api.EventToolStarted, Tool: ev}); err != nil {
		return nil, err
	}
	box, err := w.sandbox(ctx)
	if err != nil {
		return nil, errors.Join(err, permit.Done(ctx, 0, err))
	}
	// From here on the session has seen what anybody may have written, and the person's own files.
	w.saw(policy.Label{World: true, Private: w.folder != nil})
	res, err := inv.Run(ctx, permit, box, w.m.commandTime())
	if err != nil {
		return nil, errors.Join(w.lost(ctx, err), permit.Done(ctx, 0, err))
	}
	ev.ExitCode = &res.Status.Code
	return &role.ToolResult{Text: res.Text, Error: res.Status.Code != 0}, permit.Done(ctx, res.Status.Code, nil)
}

// refused records a call that is none.
func (w *work) refused(ctx context.Context, c api.ToolCall, why error) error {
	return w.m.Audit.ToolIntent(ctx, audit.ToolEvent{UID: int64(w.rec.UID), Session: w.rec.ID, Tool: c.Name, Tier: w.m.Runtime.Tier(),
		Decision: policy.Deny.String(), Reason: why.Error(), Detail: string(c.Args)})
}

// lost explains a sandbox that ended under its command; other errors stay as they are.
func (w *work) lost(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case !errors.Is(err, sandbox.ErrEnded):
		return err
	}
	return &api.Error{Code: api.CodeUnavailable, Message: "the sandbox ended while a command ran in it",
		Hint: fmt.Sprintf("it may have used more memory than its %d MiB; nothing of it was applied", w.limits.MemoryBytes>>20)}
}

// labelled is what the signed policy says of a tool; of one that it does not know, nothing.
func (w *work) labelled(name string) policy.Tool {
	for _, t := range w.m.Tools {
		if t.Name == name {
			return t
		}
	}
	return policy.Tool{Name: name, Effect: "unknown"}
}
