// Package demo is the model that is built in, to show what ClosedPaw does where no language model is at hand. It is
// no language model and says so: it understands a handful of requests, letter by letter, and answers the same always.
// It has no network, no state and no access to anything; like every model it can only ask for tools.
//
// Only the first line of the person's last message is read as a request: what is attached behind it is never.
package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
	"github.com/closedpaw/closedpaw/daemon/internal/text"
)

// Name is that of the provider and of its only model.
const Name = "demo"

// Model implements model.Provider.
type Model struct{}

// Models implements model.Provider.
func (Model) Models(context.Context) ([]api.Model, error) {
	return []api.Model{{Name: Name, Provider: Name, Tools: true}}, nil
}

// reply is what the model says next: a tool call, or else a text.
type reply struct {
	tool string
	args map[string]string
	text string
}

func say(format string, a ...any) reply { return reply{text: fmt.Sprintf(format, a...)} }

// request is one kind of what the model understands.
type request struct {
	form  string // for people
	tools []string
	parse func(line string) (task, bool)
}

// task is a request as understood. Given the results of the calls made so far it says what comes next.
type task func(results []model.Message) reply

// Chat implements model.Provider.
func (Model) Chat(ctx context.Context, name string, r model.Request, emit func(model.Chunk) error) (model.Done, error) {
	if name != Name {
		return model.Done{}, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("there is no built-in model %q", text.Short(name, 100)), Hint: "the built-in model is called demo"}
	}
	var done model.Done
	for _, m := range r.Messages {
		done.PromptTokens += len(strings.Fields(m.Text))
	}
	next := respond(r)
	if next.tool != "" {
		// The text of the conversation was escaped; the agent takes that out of arguments again.
		for k, v := range next.args {
			next.args[k] = model.Escape(v)
		}
		args, err := model.Encode(next.args, model.MaxRequest)
		if err != nil {
			return model.Done{}, err
		}
		done.OutputTokens = 1
		return done, emit(model.Chunk{Call: &api.ToolCall{ID: "call_1", Name: next.tool, Args: json.RawMessage(args)}})
	}
	for _, word := range strings.SplitAfter(next.text, " ") {
		if err := ctx.Err(); err != nil {
			return model.Done{}, err
		}
		if word == "" {
			continue
		}
		done.OutputTokens++
		if err := emit(model.Chunk{Text: word}); err != nil {
			return model.Done{}, err
		}
	}
	return done, nil
}

func respond(r model.Request) reply {
	last := -1
	for i, m := range r.Messages {
		if m.Role == "user" {
			last = i
		}
	}
	if last < 0 {
		return say("%s", help())
	}
	line, _, _ := strings.Cut(strings.TrimSpace(model.Unescape(r.Messages[last].Text)), "\n")
	line = strings.TrimSpace(line)
	var results []model.Message
	for _, m := range r.Messages[last:] {
		if m.Role == "tool" {
			m.Text = model.Unescape(m.Text)
			results = append(results, m)
		}
	}
	for _, req := range requests {
		t, ok := req.parse(line)
		if !ok {
			continue
		}
		for _, tool := range req.tools {
			if !has(r.Tools, tool) {
				return say("I would need the tool %s for that, and was not given it.", tool)
			}
		}
		return t(results)
	}
	return say("%s", help())
}

func has(tools []model.Tool, name string) bool {
	for _, t := range tools {
		if t.Name == name {
			return true
		}
	}
	return false
}

func help() string {
	var b strings.Builder
	b.WriteString("I am demo, a small program inside ClosedPaw and not a language model: I understand only a few requests, word by word.\n\n")
	for _, r := range requests {
		fmt.Fprintf(&b, "  %s\n", r.form)
	}
	b.WriteString("\nFor anything else, run a real model: `closedpawctl models` lists what there is, and `ask -m NAME` takes one.\n")
	return b.String()
}

// after returns what follows prefix in s, without regard to case.
func after(s, prefix string) (rest string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}

// cut is strings.Cut without regard to the case of sep, which is ASCII.
func cut(s, sep string) (before, rest string, ok bool) {
	for i := range s {
		if rest, ok := after(s[i:], sep); ok {
			return s[:i], rest, true
		}
	}
	return s, "", false
}
