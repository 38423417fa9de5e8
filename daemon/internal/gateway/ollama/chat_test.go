package ollama_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/gateway/ollama"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
)

var shellTool = model.Tool{Name: "shell", Description: "runs a command", Schema: json.RawMessage(`{"type":"object","properties":{"command":{"type":"string"}},"required":["command"]}`)}

// said is an answer put together.
type said struct {
	text, thinking string
	pieces         int
	calls          []api.ToolCall
	done           model.Done
}

func chat(ctx context.Context, p *ollama.Provider, name string, r model.Request) (said, error) {
	var s said
	done, err := p.Chat(ctx, name, r, func(c model.Chunk) error {
		s.text += c.Text
		s.thinking += c.Thinking
		s.pieces++
		if c.Call != nil {
			s.calls = append(s.calls, *c.Call)
		}
		return nil
	})
	s.done = done
	return s, err
}

func question(text string, tools ...model.Tool) model.Request {
	return model.Request{System: "be brief", Messages: []model.Message{{Role: "user", Text: text}}, Tools: tools}
}

func provider(t *testing.T, url string, silence time.Duration) *ollama.Provider {
	t.Helper()
	p, err := ollama.New(url, silence)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// wantError checks code and a part of what a person is told, hint included.
func wantError(t *testing.T, err error, code api.Code, part string) {
	t.Helper()
	var e *api.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Error(), part) || e.Hint == "" && code != api.CodeCancelled {
		t.Errorf("error %v, want %s with %q and a hint", err, code, part)
	}
}
