package agent_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/gateway"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/internal/testollama"
)

// chain runs an agent and a gateway, as their processes do, between control and a server.
func chain(t testing.TB, provider, url, name string) *control {
	t.Helper()
	a, b, err := role.Pair()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := role.NewConn(a, role.Gateway, role.Control)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := role.NewConn(b, role.Control, role.Gateway)
	if err != nil {
		t.Fatal(err)
	}
	go gateway.Serve(theirs)
	gw := role.NewCaller(ours)
	go gw.Run(nil)
	t.Cleanup(func() { gw.Close() })
	mine, agents := pair(t)
	defer mine.Close()
	if _, err := role.Ask[role.OpenedModel](t.Context(), gw, &role.OpenModel{Provider: provider, URL: url, Model: name}, mine); err != nil {
		t.Fatal(err)
	}
	return start(t, agents, converse)
}

// TestFlood prints how many tokens a second go from a server that knows no pause through gateway and agent to control.
func TestFlood(t *testing.T) {
	const n = 100_000
	line := []byte(`{"model":"m","created_at":"2026-01-01T00:00:00.000000000Z","message":{"role":"assistant","content":" word"},"done":false}` + "\n")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/tags", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"models":[{"name":"m:latest","digest":"d"}]}`)
	})
	mux.HandleFunc("POST /api/chat", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		for range n {
			if _, err := w.Write(line); err != nil {
				return
			}
		}
		fmt.Fprintf(w, `{"done":true,"eval_count":%d}`+"\n", n)
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	c := chain(t, "ollama", s.URL, "m")
	begin := time.Now()
	c.say("go")
	deltas, bytes := 0, 0
	for {
		p, err := c.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := p.Msg.(*role.Delta); ok {
			deltas++
			bytes += len(d.Text)
		}
		if o, ok := p.Msg.(*role.Over); ok {
			if o.Reason != "stop" {
				t.Fatalf("%+v", o)
			}
			break
		}
	}
	took := time.Since(begin)
	if bytes != n*len(" word") {
		t.Errorf("%d bytes of %d arrived", bytes, n*len(" word"))
	}
	t.Logf("%.0f tokens/s, %v a token, %d tokens in %d deltas", n/took.Seconds(), took/n, n, deltas)
}

// TestDemoChain has the built-in model run a command and say what came of it.
func TestDemoChain(t *testing.T) {
	c := chain(t, "demo", "", "demo")
	c.say("run the command: echo '</s>'")
	got := c.until(func(tc role.ToolCall) role.ToolResult {
		if tc.Name != "shell" || string(tc.Args) != `{"command":"echo '</s>'"}` {
			t.Errorf("%+v", tc)
		}
		return role.ToolResult{Text: "</s>\n"}
	})
	if got.over.Reason != "stop" || !strings.Contains(got.text, "```\n</s>\n```") || len(got.said) != 2 {
		t.Errorf("%+v", got)
	}
}

// TestRealChain has the real Ollama call a tool and answer, through gateway and agent.
func TestRealChain(t *testing.T) {
	s := testollama.Start(t, testollama.Scripted{Name: "caller", Dialogue: [][]string{{
		testollama.Call("shell", map[string]string{"command": "echo one"}),
		testollama.Call("shell", map[string]string{"command": "echo two"}),
		"Both commands ran, and this is the answer.",
	}}})
	c := chain(t, "ollama", s.URL, "caller")
	c.say("go")
	got := c.until(func(tc role.ToolCall) role.ToolResult {
		return role.ToolResult{Text: strings.Repeat("some output\n", 50)}
	})
	if got.over.Reason != "stop" || got.text != "Both commands ran, and this is the answer." || len(got.said) != 3 || len(got.calls) != 2 ||
		string(got.calls[0].Args) != `{"command":"echo one"}` || string(got.calls[1].Args) != `{"command":"echo two"}` {
		t.Errorf("%+v", got)
	}
	s.Kill()
	c.say("again")
	if got := c.until(nil); got.over.Error == nil || got.over.Error.Code != api.CodeUnavailable || !strings.Contains(got.over.Error.Hint, "ollama serve") {
		t.Errorf("%+v", got.over)
	}
}
