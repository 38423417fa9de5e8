// Package agent is the main of role agent: the loop between a model and its tools, one process a request.
//
// It has no file and no network: a stream to the gateway, on which it may ask the one model that control chose, and a
// connection to control, which decides on every tool call. All that passes through it is untrusted, so it decides
// nothing: it keeps the conversation within bounds, gives each call an id, and takes the control tokens of chat formats out of
// what reaches the model (model.Escape), so that a file or a web page cannot speak as somebody else. A model that takes
// this role over can ask for tools and say things to the person, which it could before.
package agent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/socket"
)

// Bounds of one conversation.
const (
	MaxConversation = 4 << 20 // bytes of all that was said, with arguments and results
	MaxAnswer       = 4 << 20 // bytes of one answer, with thinking and arguments
	maxCalls        = 32      // tool calls of one answer; more are answered with an error
)

// agent is the state of the role. One goroutine owns it.
type agent struct {
	control *role.Conn
	inbox   chan role.Packet // from control; closed when control is gone
	err     error            // why; set before inbox is closed
	stream  net.Conn
	answers *model.Reader
	broken  bool // the stream cannot be used any more
	conv    conversation
}

// Serve has one conversation with control and returns nil when control is gone.
func Serve(control *role.Conn) error {
	first, err := control.Recv()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	begin, ok := first.Msg.(*role.Converse)
	if !ok {
		first.Close()
		return fmt.Errorf("%w: %T before the conversation", role.ErrNotPermitted, first.Msg)
	}
	c, err := net.FileConn(first.Files[0])
	first.Close()
	if err != nil {
		return fmt.Errorf("cannot take over the stream to the gateway: %w", err)
	}
	defer c.Close()
	stream, err := socket.Wrap(c)
	if err != nil {
		return fmt.Errorf("cannot take over the stream to the gateway: %w", err)
	}
	a := &agent{control: control, inbox: make(chan role.Packet, 8), stream: stream, answers: model.NewReader(stream), conv: newConversation(begin)}
	done := make(chan struct{})
	defer close(done)
	go a.receive(done)
	for p := range a.inbox {
		p.Close()
		switch m := p.Msg.(type) {
		case *role.Turn:
			a.conv.turn(m)
		case *role.Go:
			over, err := a.work()
			if err == nil {
				err = a.control.Send(0, over)
			}
			if errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) {
				return nil // control is gone: a session was cancelled
			}
			if err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: %T now", role.ErrNotPermitted, m)
		}
	}
	return a.err
}

// receive hands on what control says. When control is gone it closes the stream, which ends an answer on its way.
func (a *agent) receive(done chan struct{}) {
	defer close(a.inbox)
	defer a.stream.Close()
	for {
		p, err := a.control.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				a.err = err
			}
			return
		}
		select {
		case a.inbox <- p:
		case <-done:
			p.Close()
			return
		}
	}
}

// work answers what was said last. An error means that control is gone or broke the rules; what goes wrong with the
// model is told in Over.
func (a *agent) work() (*role.Over, error) {
	if a.conv.pending != nil {
		return nil, fmt.Errorf("%w: go in the middle of a turn", role.ErrNotPermitted)
	}
	for turn := 1; ; turn++ {
		if err := a.conv.err; err != nil {
			return &role.Over{Reason: "error", Error: err}, nil
		}
		ans, err := a.ask()
		if err != nil {
			var e *api.Error
			if errors.As(err, &e) {
				return &role.Over{Reason: "error", Error: e}, nil
			}
			return nil, err
		}
		if err := a.control.Send(0, &role.Said{PromptTokens: ans.done.PromptTokens, OutputTokens: ans.done.OutputTokens}); err != nil {
			return nil, err
		}
		calls := a.conv.answered(ans)
		if len(calls) == 0 && a.conv.err == nil {
			return &role.Over{Reason: "stop"}, nil
		}
		last := turn >= a.conv.maxTurns
		for _, c := range calls {
			r := role.ToolResult{ID: c.ID, Error: true, Text: c.problem}
			switch {
			case last:
				r.Text = "this call was not made: the limit of model calls was reached"
			case c.problem == "":
				if r, err = a.call(c); err != nil {
					return nil, err
				}
			}
			a.conv.result(c, r)
		}
		if last {
			return &role.Over{Reason: "max_turns"}, nil
		}
	}
}

// call asks control for a tool call and waits for its result: a person may have to answer first.
func (a *agent) call(c call) (role.ToolResult, error) {
	if err := a.control.Send(0, &role.ToolCall{ID: c.ID, Name: c.Name, Args: c.Args}); err != nil {
		return role.ToolResult{}, err
	}
	p, ok := <-a.inbox
	if !ok {
		if a.err != nil {
			return role.ToolResult{}, a.err
		}
		return role.ToolResult{}, io.EOF
	}
	p.Close()
	r, ok := p.Msg.(*role.ToolResult)
	if !ok || r.ID != c.ID {
		return role.ToolResult{}, fmt.Errorf("%w: %T instead of the result of a tool", role.ErrNotPermitted, p.Msg)
	}
	return *r, nil
}
