package testollama_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"testing"

	"github.com/ollama/ollama/api"

	"github.com/closedpaw/closedpaw/internal/testollama"
)

// TestConstrain shows the monkey: random calls of a tool, by a client that knows nothing of the schema.
func TestConstrain(t *testing.T) {
	s := testollama.Start(t, testollama.Random{Name: "random"})
	u, stop, err := s.Constrain(json.RawMessage(`{"type":"object","properties":{"name":{"const":"shell"},"parameters":{"type":"object","properties":{"command":{"type":"string","pattern":"^[a-z ./*-]{1,40}$"}},"required":["command"]}},"required":["name","parameters"]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	base, err := url.Parse(u)
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]bool{}
	for range 10 {
		var calls []api.ToolCall
		req := api.ChatRequest{Model: "random", Messages: []api.Message{{Role: "user", Content: "Do something."}}, Tools: tools(t)}
		err := api.NewClient(base, http.DefaultClient).Chat(t.Context(), &req, func(c api.ChatResponse) error {
			calls = append(calls, c.Message.ToolCalls...)
			return nil
		})
		if err != nil || len(calls) != 1 || calls[0].Function.Name != "shell" {
			t.Fatalf("%+v, %v", calls, err)
		}
		said[calls[0].Function.Arguments.String()] = true
	}
	if len(said) < 5 {
		t.Errorf("only %d different calls of 10", len(said))
	}
}
