package agent

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
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
	q := model.NewQueue()
	ans := &answer{}
	failed := make(chan error, 1)
	go func() {
		defer q.Close()
		failed <- a.read(ans, q)
	}()
	var sending error
	for chunks := q.Take(); len(chunks) > 0; chunks = q.Take() {
		for _, c := range chunks {
			if sending == nil {
				sending = a.control.Send(0, &role.Delta{Text: c.Text, Thinking: c.Thinking})
			}
		}
		if sending != nil {
			a.stream.Close() // ends read
			q.Close()
		}
	}
	err = <-failed
	if sending != nil {
		return nil, sending
	}
	return ans, err
}

// read reads one answer: text to q, all of it to ans.
func (a *agent) read(ans *answer, q *model.Queue) error {
	for {
		c, err := a.answers.Chunk()
		if err != nil {
			a.broken = true
			if errors.Is(err, model.ErrMalformed) {
				return &api.Error{Code: api.CodeModel, Message: "cannot understand the model's answer: " + model.Short(err.Error(), 300), Hint: "ask again, or choose another model with -m"}
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
			return &api.Error{Code: api.Code(model.Short(string(c.Error.Code), 32)), Message: model.Short(c.Error.Message, 1024), Hint: model.Short(c.Error.Hint, 1024)}
		case c.Done != nil:
			ans.done = *c.Done
			return nil
		case c.Call != nil:
			ans.calls = append(ans.calls, *c.Call)
		default:
			ans.text.WriteString(c.Text)
			if err := q.Put(c); err != nil {
				a.broken = true
				return io.EOF
			}
		}
	}
}

// lost explains a stream that ended in the middle.
func (a *agent) lost() error {
	return &api.Error{Code: api.CodeModel, Message: "the model's answer was cut off: the gateway ended", Hint: "ask again; `journalctl -u closedpaw` may say why it ended"}
}
