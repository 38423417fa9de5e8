package agent

import (
	"errors"
	"fmt"
	"strings"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/text"
)

// answer is what a model said in one call.
type answer struct {
	text  strings.Builder
	calls []api.ToolCall
	done  model.Done
	size  int // bytes of all, thinking too
}

// ask asks the model and passes on what it says as it says it. An *api.Error is the model's failure, any other that
// control is gone.
func (a *agent) ask() (*answer, error) {
	if a.broken {
		return nil, &api.Error{Code: api.CodeUnavailable, Message: "the connection to the model was closed after an error", Hint: "ask again"}
	}
	line, err := model.Encode(a.conv.request(), model.MaxRequest)
	if err != nil {
		return nil, tooLong()
	}
	if _, err := a.stream.Write(line); err != nil {
		a.broken = true
		return nil, a.lost()
	}
	ans := &answer{}
	var sending error
	out := model.NewJoiner(func(c model.Chunk) error {
		sending = a.control.Send(0, &role.Delta{Text: c.Text, Thinking: c.Thinking})
		return sending
	})
	err = a.read(ans, out)
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	if sending != nil {
		a.broken = true
		a.stream.Close()
		return nil, sending
	}
	return ans, err
}

// read reads one answer: text to out, all of it to ans.
func (a *agent) read(ans *answer, out *model.Joiner) error {
	for {
		if !a.answers.Ready() {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		c, err := a.answers.Chunk()
		if err != nil {
			a.broken = true
			if errors.Is(err, model.ErrMalformed) {
				return &api.Error{Code: api.CodeModel, Message: "cannot understand the model's answer: " + text.Short(err.Error(), 300), Hint: "ask again, or choose another model with -m"}
			}
			return a.lost()
		}
		ans.size += len(c.Text) + len(c.Thinking)
		if c.Call != nil {
			ans.size += len(c.Call.Name) + len(c.Call.Args) + 64
		}
		switch {
		case ans.size > MaxAnswer:
			a.broken = true
			a.stream.Close() // the gateway stops the model
			return &api.Error{Code: api.CodeModel, Message: fmt.Sprintf("the model's answer is longer than %d MiB", MaxAnswer>>20), Hint: "ask again, or choose another model with -m"}
		case c.Error != nil:
			return &api.Error{Code: api.Code(text.Short(string(c.Error.Code), 32)), Message: text.Short(c.Error.Message, 1024), Hint: text.Short(c.Error.Hint, 1024)}
		case c.Done != nil:
			ans.done = *c.Done
			return nil
		case c.Call != nil:
			ans.calls = append(ans.calls, *c.Call)
		default:
			ans.text.WriteString(c.Text)
			if err := out.Put(c); err != nil {
				return err
			}
		}
	}
}

// lost explains a stream that ended in the middle.
func (a *agent) lost() error {
	return &api.Error{Code: api.CodeModel, Message: "the model's answer was cut off: the gateway ended", Hint: "ask again; `journalctl -u closedpaw` may say why it ended"}
}
