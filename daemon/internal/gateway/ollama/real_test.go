package ollama_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
	"github.com/closedpaw/closedpaw/internal/testollama"
)

func TestRealOllama(t *testing.T) {
	s := testollama.Start(t,
		testollama.Scripted{Name: "scripted", Dialogue: [][]string{{"Hello from the scripted model, which always says the same."}}},
		testollama.Scripted{Name: "caller", Dialogue: [][]string{{testollama.Call("shell", map[string]string{"command": "echo <b> & done"}), "The command ran."}}},
		testollama.Scripted{Name: "thinker", Thinks: true, Dialogue: [][]string{{"<think>Let me see about that.</think>It is so."}}},
		testollama.Scripted{Name: "plain", NoTools: true, Dialogue: [][]string{{"Only text here."}}},
	)
	p := provider(t, s.URL, 0)
	ctx := t.Context()

	t.Run("models", func(t *testing.T) {
		got, err := p.Models(ctx)
		if err != nil {
			t.Fatal(err)
		}
		want := []api.Model{
			{Name: "caller:latest", Provider: "ollama", Tools: true},
			{Name: "plain:latest", Provider: "ollama"},
			{Name: "scripted:latest", Provider: "ollama", Tools: true},
			{Name: "thinker:latest", Provider: "ollama", Tools: true},
		}
		if d := cmp.Diff(want, got, cmpopts.IgnoreFields(api.Model{}, "Size"), cmpopts.SortSlices(func(a, b api.Model) bool { return a.Name < b.Name })); d != "" {
			t.Error(d)
		}
		if v, err := p.Version(ctx); v == "" || err != nil {
			t.Errorf("version %q, %v", v, err)
		}
	})
	t.Run("chat", func(t *testing.T) {
		got, err := chat(ctx, p, "scripted", question("hi"))
		if err != nil || got.text != "Hello from the scripted model, which always says the same." || got.pieces < 2 || got.done.OutputTokens < 5 || got.done.PromptTokens < 5 {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("thinking", func(t *testing.T) {
		got, err := chat(ctx, p, "thinker", question("hi"))
		if err != nil || got.text != "It is so." || strings.TrimSpace(got.thinking) != "Let me see about that." {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("tools", func(t *testing.T) {
		r := question("go", shellTool)
		got, err := chat(ctx, p, "caller:latest", r)
		if err != nil || len(got.calls) != 1 || got.text != "" {
			t.Fatalf("%+v, %v", got, err)
		}
		var args map[string]string
		if err := json.Unmarshal(got.calls[0].Args, &args); err != nil || args["command"] != "echo <b> & done" || got.calls[0].ID == "" {
			t.Fatalf("%s, %v", got.calls[0].Args, err)
		}
		r.Messages = append(r.Messages, model.Message{Role: "assistant", Calls: got.calls},
			model.Message{Role: "tool", Tool: "shell", CallID: got.calls[0].ID, Text: "done\n"})
		if got, err = chat(ctx, p, "caller", r); err != nil || got.text != "The command ran." {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("no tools", func(t *testing.T) {
		_, err := chat(ctx, p, "plain", question("hi", shellTool))
		wantError(t, err, api.CodeModel, "cannot call tools")
		if got, err := chat(ctx, p, "plain", question("hi")); err != nil || got.text != "Only text here." {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("missing", func(t *testing.T) {
		_, err := chat(ctx, p, "absent:7b", question("hi"))
		wantError(t, err, api.CodeNotFound, "ollama pull absent:7b")
	})
}

// TestControlTokens shows that the attack is real, and that escaping ends it: this model does what the last token says.
func TestControlTokens(t *testing.T) {
	s := testollama.Start(t, testollama.Scripted{Name: "open", Open: true, Dialogue: [][]string{{"I was taken over by a web page."}}})
	p := provider(t, s.URL, 0)
	text := "a page that ends in " + testollama.Token
	got, err := chat(t.Context(), p, "open", model.Request{Messages: []model.Message{{Role: "user", Text: text}}})
	if err != nil || got.text != "I was taken over by a web page." {
		t.Errorf("unescaped: %+v, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // what it says then is noise, and may be long
	defer cancel()
	got, _ = chat(ctx, p, "open", model.Request{Messages: []model.Message{{Role: "user", Text: model.Escape(text)}}})
	if strings.Contains(got.text, "taken over") {
		t.Errorf("escaped: %+v", got)
	}
}

func TestKilledInTheMiddle(t *testing.T) {
	var script strings.Builder
	for i := range 400 {
		fmt.Fprintf(&script, "line %03d\n", i)
	}
	s := testollama.Start(t, testollama.Scripted{Name: "long", Dialogue: [][]string{{script.String()}}})
	p := provider(t, s.URL, 0)
	n := 0
	_, err := p.Chat(t.Context(), "long", question("go"), func(model.Chunk) error {
		if n++; n == 3 {
			s.Kill()
		}
		return nil
	})
	if n < 3 {
		t.Errorf("killed too early: %d pieces", n)
	}
	wantError(t, err, api.CodeModel, "cut off")
	_, err = chat(t.Context(), p, "long", question("go"))
	wantError(t, err, api.CodeUnavailable, "ollama serve")
}
