package session

import (
	"fmt"
	"strings"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
)

// transcript puts the pieces of what was relayed together to the turns of a record.
type transcript struct {
	rec     *Record
	said    strings.Builder
	calls   []api.ToolCall
	results []api.Turn
	size    int // of all
}

// grow counts n more bytes.
func (t *transcript) grow(n int) error {
	if t.size += n + 64; t.size > maxTold {
		return &api.Error{Code: api.CodeModel, Message: fmt.Sprintf("stopped: what was said and done is longer than %d MiB", maxTold>>20), Hint: "ask for less"}
	}
	return nil
}

// text is a piece of the model's answer.
func (t *transcript) text(s string) error {
	t.next()
	if t.said.Len()+len(s) > maxAnswer {
		return &api.Error{Code: api.CodeModel, Message: fmt.Sprintf("stopped: the answer is longer than %d bytes", maxAnswer), Hint: "ask for less"}
	}
	if t.size += len(s); t.size > maxTold { // pieces are many and small: no more than their bytes count
		return t.grow(0)
	}
	t.said.WriteString(s)
	return nil
}

// result is what the newest call came to.
func (t *transcript) result(c api.ToolCall, text string) {
	t.results = append(t.results, api.Turn{Role: "tool", Text: text, Label: api.LabelWorld, Tool: c.Name, CallID: c.ID, Time: time.Now().UTC()})
}

// next is called when something of an answer arrives: after results it is the next answer.
func (t *transcript) next() {
	if len(t.results) > 0 {
		t.step()
	}
}

// step writes the answer, with its calls and their results, into the record.
func (t *transcript) step() {
	if t.said.Len() > 0 || len(t.calls) > 0 {
		t.rec.Turns = append(t.rec.Turns, api.Turn{Role: "assistant", Text: t.said.String(), ToolCalls: t.calls, Time: time.Now().UTC()})
	}
	t.rec.Turns = append(t.rec.Turns, t.results...)
	t.said.Reset()
	t.calls, t.results = nil, nil
}
