package testollama_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ollama/ollama/api"

	"github.com/closedpaw/closedpaw/internal/testollama"
)

func chat(t *testing.T, s *testollama.Server, r api.ChatRequest) api.Message {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var all api.Message
	done := false
	err = api.NewClient(u, http.DefaultClient).Chat(ctx, &r, func(c api.ChatResponse) error {
		all.Content += c.Message.Content
		all.Thinking += c.Message.Thinking
		all.ToolCalls = append(all.ToolCalls, c.Message.ToolCalls...)
		done = done || c.Done
		return nil
	})
	if err != nil || !done {
		t.Fatalf("done %v, %v", done, err)
	}
	return all
}

func tools(t *testing.T) api.Tools {
	t.Helper()
	var tools api.Tools
	if err := json.Unmarshal([]byte(`[{"type":"function","function":{"name":"shell","description":"runs a command","parameters":{"type":"object","required":["command"],"properties":{"command":{"type":"string"}}}}}]`), &tools); err != nil {
		t.Fatal(err)
	}
	return tools
}

func TestDialogue(t *testing.T) {
	const command = `ls -la | wc -l; echo "done"`
	s := testollama.Start(t, testollama.Scripted{Name: "scripted", Dialogue: [][]string{
		{testollama.Call("shell", map[string]string{"command": command}), "There are three files in it."},
		{"And this is my second answer, to your second message."},
	}})
	messages := []api.Message{{Role: "user", Content: "How many files are there?"}}

	m := chat(t, s, api.ChatRequest{Model: "scripted", Messages: messages, Tools: tools(t)})
	if len(m.ToolCalls) != 1 || m.ToolCalls[0].Function.Name != "shell" {
		t.Fatalf("want a call of shell, got %+v", m)
	}
	if got, _ := m.ToolCalls[0].Function.Arguments.Get("command"); got != command {
		t.Errorf("command is %q, want %q", got, command)
	}
	messages = append(messages, m, api.Message{Role: "tool", Content: "3", ToolName: "shell"})
	m = chat(t, s, api.ChatRequest{Model: "scripted", Messages: messages, Tools: tools(t)})
	if diff := cmp.Diff("There are three files in it.", m.Content); diff != "" {
		t.Error(diff)
	}
	messages = append(messages, m, api.Message{Role: "user", Content: "Really?"})
	m = chat(t, s, api.ChatRequest{Model: "scripted", Messages: messages, Tools: tools(t)})
	if diff := cmp.Diff("And this is my second answer, to your second message.", m.Content); diff != "" {
		t.Error(diff)
	}
}

func TestThinking(t *testing.T) {
	s := testollama.Start(t, testollama.Scripted{Name: "thinker", Thinks: true, Dialogue: [][]string{{"<think>Six times seven.</think>It is forty-two."}}})
	m := chat(t, s, api.ChatRequest{Model: "thinker", Messages: []api.Message{{Role: "user", Content: "6*7?"}}, Think: &api.ThinkValue{Value: true}})
	if diff := cmp.Diff([]string{"Six times seven.", "It is forty-two."}, []string{strings.TrimSpace(m.Thinking), strings.TrimSpace(m.Content)}); diff != "" {
		t.Error(diff)
	}
}

func TestRandomFitsSchema(t *testing.T) {
	s := testollama.Start(t, testollama.Random{Name: "random"})
	for seed := range 5 {
		m := chat(t, s, api.ChatRequest{
			Model: "random", Messages: []api.Message{{Role: "user", Content: "Say something."}},
			Format:  json.RawMessage(`{"type":"object","properties":{"name":{"enum":["shell","read_file"]},"n":{"type":"integer"}},"required":["name","n"]}`),
			Options: map[string]any{"seed": seed, "num_predict": 512},
		})
		var v struct {
			Name string
			N    json.Number
		}
		if err := json.Unmarshal([]byte(m.Content), &v); err != nil || v.Name != "shell" && v.Name != "read_file" {
			t.Errorf("seed %d: %q: %v", seed, m.Content, err)
		}
	}
}
