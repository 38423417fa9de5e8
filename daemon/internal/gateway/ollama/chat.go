package ollama

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
)

// chatRequest is the body of /api/chat. It sets no option: how a model samples, how long its context is and how long
// it stays loaded are its owner's choice.
type chatRequest struct {
	Model    string        `json:"model"`
	Messages []chatMessage `json:"messages"`
	Tools    []chatTool    `json:"tools,omitempty"`
	Stream   bool          `json:"stream"`
}

type chatMessage struct {
	Role       string     `json:"role"`
	Content    string     `json:"content"`
	ToolCalls  []chatCall `json:"tool_calls,omitempty"`
	ToolName   string     `json:"tool_name,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitempty"`
}

type chatCall struct {
	ID       string `json:"id,omitempty"`
	Function struct {
		Name      string          `json:"name"`
		Arguments json.RawMessage `json:"arguments"`
	} `json:"function"`
}

type chatTool struct {
	Type     string `json:"type"`
	Function struct {
		Name        string          `json:"name"`
		Description string          `json:"description"`
		Parameters  json.RawMessage `json:"parameters"`
	} `json:"function"`
}

// chatLine is what we read of a line of the answer.
type chatLine struct {
	Error      string `json:"error"`
	RemoteHost string `json:"remote_host"`
	Message    struct {
		Content   string     `json:"content"`
		Thinking  string     `json:"thinking"`
		ToolCalls []chatCall `json:"tool_calls"`
	} `json:"message"`
	Done            bool `json:"done"`
	PromptEvalCount int  `json:"prompt_eval_count"`
	EvalCount       int  `json:"eval_count"`
}

func newChatRequest(name string, r model.Request) chatRequest {
	c := chatRequest{Model: name, Stream: true, Messages: make([]chatMessage, 0, len(r.Messages)+1)}
	if r.System != "" {
		c.Messages = append(c.Messages, chatMessage{Role: "system", Content: r.System})
	}
	for _, m := range r.Messages {
		cm := chatMessage{Role: m.Role, Content: m.Text, ToolName: m.Tool, ToolCallID: m.CallID}
		if m.Error {
			cm.Content = "error: " + m.Text
		}
		for _, call := range m.Calls {
			cc := chatCall{ID: call.ID}
			cc.Function.Name, cc.Function.Arguments = call.Name, call.Args
			cm.ToolCalls = append(cm.ToolCalls, cc)
		}
		c.Messages = append(c.Messages, cm)
	}
	for _, t := range r.Tools {
		ct := chatTool{Type: "function"}
		ct.Function.Name, ct.Function.Description, ct.Function.Parameters = t.Name, t.Description, t.Schema
		c.Tools = append(c.Tools, ct)
	}
	return c
}

// Chat implements model.Provider. The end of ctx cancels the request at once: Ollama then stops.
func (p *Provider) Chat(ctx context.Context, name string, r model.Request, emit func(model.Chunk) error) (model.Done, error) {
	name, err := p.find(ctx, name)
	if err != nil {
		return model.Done{}, err
	}
	body, err := model.Encode(newChatRequest(name, r), 2*model.MaxRequest)
	if err != nil {
		return model.Done{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	silence := time.AfterFunc(p.patience, func() { cancel(errSilent) })
	resp, err := p.send(ctx, http.MethodPost, "/api/chat", name, body) //nolint:bodyclose // closed below, behind the answer
	if err != nil {
		silence.Stop()
		cancel(nil)
		return model.Done{}, err
	}
	out := model.NewJoiner(emit)
	done, err := p.read(ctx, resp.Body, name, out, func() { silence.Reset(p.patience) })
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	if err != nil {
		silence.Stop()
		cancel(nil)
		resp.Body.Close()
		return model.Done{}, err
	}
	// The connection is good for the next request once the answer was read to its end, which nobody waits for.
	go func() {
		silence.Reset(time.Second)
		_, _ = io.CopyN(io.Discard, resp.Body, maxHeader) // if it fails the connection is not used again
		resp.Body.Close()
		silence.Stop()
		cancel(nil)
	}()
	return done, nil
}

func (p *Provider) read(ctx context.Context, body io.Reader, name string, out *model.Joiner, alive func()) (model.Done, error) {
	lines := model.NewReader(body)
	for calls := 0; ; {
		if !lines.Ready() {
			if err := out.Flush(); err != nil {
				return model.Done{}, err
			}
		}
		b, err := lines.Line(maxLine)
		switch {
		case errors.Is(err, model.ErrMalformed):
			return model.Done{}, p.nonsense(err)
		case err != nil && ctx.Err() != nil:
			return model.Done{}, p.unreachable(ctx, err)
		case err != nil:
			return model.Done{}, p.cutOff()
		}
		alive()
		var l chatLine
		if err := json.Unmarshal(b, &l); err != nil {
			return model.Done{}, p.nonsense(err)
		}
		switch {
		case l.Error != "":
			return model.Done{}, p.refused(name, http.StatusOK, l.Error)
		case l.RemoteHost != "":
			return model.Done{}, p.nonsense(errors.New("it comes from another machine"))
		case l.PromptEvalCount < 0 || l.EvalCount < 0:
			return model.Done{}, p.nonsense(errors.New("a count is negative"))
		}
		if l.Message.Thinking != "" {
			if err := out.Put(model.Chunk{Thinking: l.Message.Thinking}); err != nil {
				return model.Done{}, err
			}
		}
		if l.Message.Content != "" {
			if err := out.Put(model.Chunk{Text: l.Message.Content}); err != nil {
				return model.Done{}, err
			}
		}
		for _, c := range l.Message.ToolCalls {
			if c.Function.Name == "" {
				return model.Done{}, p.nonsense(errors.New("a tool call has no name"))
			}
			calls++
			id := c.ID
			if id == "" {
				id = "call_" + strconv.Itoa(calls)
			}
			args := c.Function.Arguments
			if len(args) == 0 {
				args = json.RawMessage("{}")
			}
			if err := out.Put(model.Chunk{Call: &api.ToolCall{ID: id, Name: c.Function.Name, Args: args}}); err != nil {
				return model.Done{}, err
			}
		}
		if l.Done {
			return model.Done{PromptTokens: l.PromptEvalCount, OutputTokens: l.EvalCount}, nil
		}
	}
}
