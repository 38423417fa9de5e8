package agent

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// conversation is what the model is told. Its texts are escaped (see model.Escape); control's are not: what goes out to
// control in arguments is unescaped, what comes in is escaped.
type conversation struct {
	system   string
	tools    []model.Tool
	maxTurns int
	messages []model.Message
	pending  *role.Turn // pieces of one that goes on
	size     int
	err      *api.Error // it has grown too large
}

// call is a tool call of the model, as control is asked for it, or why control is not.
type call struct {
	api.ToolCall
	problem string
}

func newConversation(b *role.Converse) conversation {
	c := conversation{system: model.Escape(b.System), maxTurns: b.MaxTurns}
	for _, t := range b.Tools {
		c.tools = append(c.tools, model.Tool{Name: t.Name, Description: t.Description, Schema: t.Schema})
	}
	return c
}

func (c *conversation) request() model.Request {
	return model.Request{System: c.system, Messages: c.messages, Tools: c.tools}
}

// turn adds a message of control's, or a piece of one.
func (c *conversation) turn(t *role.Turn) {
	if !c.grow(len(t.Text)) {
		c.pending = nil
		return
	}
	if p := c.pending; p != nil {
		p.Text += t.Text
		p.Calls = append(p.Calls, t.Calls...)
		p.More = t.More
		t = p
	}
	if c.pending = t; t.More {
		return
	}
	c.pending = nil
	m := model.Message{Role: t.Role, Text: escapeText(t.Role, t.Text), Tool: model.Escape(t.Tool), CallID: model.Escape(t.CallID)}
	for _, tc := range t.Calls {
		args, err := mapStrings(tc.Args, model.Escape)
		if err != nil {
			args = json.RawMessage("{}")
		}
		if !c.grow(len(args)) {
			return
		}
		m.Calls = append(m.Calls, api.ToolCall{ID: model.Escape(tc.ID), Name: model.Escape(tc.Name), Args: args})
	}
	c.messages = append(c.messages, m)
}

// answered adds what the model said and returns its calls, with ids that nobody else gave.
func (c *conversation) answered(ans *answer) []call {
	m := model.Message{Role: "assistant", Text: escapeText("assistant", ans.text.String())}
	if len(m.Text) == 0 && len(ans.calls) == 0 {
		return nil
	}
	if !c.grow(len(m.Text)) {
		return nil
	}
	var calls []call
	for i, tc := range ans.calls {
		k := call{ToolCall: api.ToolCall{ID: "call_" + strings.ToLower(rand.Text()[:16]), Name: tc.Name}}
		var err error
		switch {
		case i >= maxCalls:
			k.problem = fmt.Sprintf("this call was not made: an answer may have %d", maxCalls)
		case !isToolName(tc.Name):
			k.problem = "this call was not made: there is no tool of that name"
		case len(tc.Args) > role.MaxToolArgs:
			k.problem = fmt.Sprintf("this call was not made: its arguments are longer than %d KiB", role.MaxToolArgs>>10)
		default:
			if k.Args, err = mapStrings(tc.Args, model.Unescape); err != nil {
				k.problem = "this call was not made: its arguments are no JSON object, or too large"
			} else if len(k.Args) > role.MaxToolArgs {
				k.problem = fmt.Sprintf("this call was not made: its arguments are longer than %d KiB", role.MaxToolArgs>>10)
			}
		}
		// What was not made is remembered without what was wrong with it.
		said := api.ToolCall{ID: k.ID, Name: k.Name, Args: json.RawMessage("{}")}
		if k.problem == "" {
			if escaped, err := mapStrings(k.Args, model.Escape); err == nil {
				said.Args = escaped
			}
		} else if !isToolName(k.Name) {
			said.Name, k.Name = "unknown", "unknown"
		}
		if !c.grow(len(said.Args)) {
			return nil
		}
		m.Calls = append(m.Calls, said)
		calls = append(calls, k)
	}
	c.messages = append(c.messages, m)
	return calls
}

// result adds the result of a call.
func (c *conversation) result(k call, r role.ToolResult) {
	if c.grow(len(r.Text)) {
		c.messages = append(c.messages, model.Message{Role: "tool", Text: model.Escape(r.Text), Tool: k.Name, CallID: k.ID, Error: r.Error})
	}
}

// grow counts n more bytes. Once the conversation is too large it stays so.
func (c *conversation) grow(n int) bool {
	if c.size += n + 64; c.size > MaxConversation && c.err == nil {
		c.err = tooLong()
	}
	return c.err == nil
}

func tooLong() *api.Error {
	return &api.Error{Code: api.CodeModel, Message: fmt.Sprintf("the conversation has grown beyond %d MiB", MaxConversation>>20), Hint: "begin a new one, with less attached to it"}
}

// escapeText escapes a text. A model's own may hold what Escape made of something that it was told: that is not
// escaped twice.
func escapeText(role, text string) string {
	if role == "assistant" {
		text = model.Unescape(text)
	}
	return model.Escape(text)
}

func isToolName(s string) bool {
	ok := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-' || r == '.'
	}
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(r rune) bool { return !ok(r) })
}

// mapStrings returns a JSON object with f applied to each string in it, names too. A name that occurs twice is there
// once in the result; numbers keep their digits.
func mapStrings(object json.RawMessage, f func(string) string) (json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(object))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF || v == nil {
		return nil, errors.New("not one object")
	}
	b, err := model.Encode(walk(v, f), model.MaxRequest)
	return bytes.TrimSuffix(b, []byte("\n")), err
}

func walk(v any, f func(string) string) any {
	switch v := v.(type) {
	case string:
		return f(v)
	case []any:
		for i := range v {
			v[i] = walk(v[i], f)
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[f(k)] = walk(e, f)
		}
		return out
	}
	return v
}
