package gateway_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/gateway"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// start runs a gateway and returns control's side of it.
func start(t *testing.T) *role.Caller {
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
	ended := make(chan error, 1)
	go func() { ended <- gateway.Serve(theirs) }()
	c := role.NewCaller(ours)
	go c.Run(nil)
	t.Cleanup(func() {
		c.Close()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the gateway ended with %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the gateway does not end")
		}
	})
	return c
}

// stream is an agent's end.
type stream struct {
	net.Conn
	*model.Reader
}

func open(t *testing.T, c *role.Caller, m *role.OpenModel) (*stream, error) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := os.NewFile(uintptr(p[0]), "mine"), os.NewFile(uintptr(p[1]), "theirs")
	defer mine.Close()
	defer theirs.Close()
	if _, err := role.Ask[role.OpenedModel](t.Context(), c, m, theirs); err != nil {
		return nil, err
	}
	conn, err := net.FileConn(mine)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &stream{conn, model.NewReader(conn)}, nil
}

func (s *stream) ask(t *testing.T, text string, tools ...model.Tool) {
	t.Helper()
	b, err := model.Encode(model.Request{Messages: []model.Message{{Role: "user", Text: text}}, Tools: tools}, model.MaxRequest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(b); err != nil {
		t.Fatal(err)
	}
}

// answer reads up to Done or Error.
func (s *stream) answer(t *testing.T) (text string, last model.Chunk) {
	t.Helper()
	for {
		c, err := s.Chunk()
		if err != nil {
			t.Fatal(err)
		}
		if text += c.Text; c.Done != nil || c.Error != nil {
			return text, c
		}
	}
}

// server speaks Ollama's stream; chat gets the answer to write to.
func server(t *testing.T, chat func(w http.ResponseWriter, r *http.Request)) string {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/tags", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"models":[{"name":"m:latest","digest":"d","capabilities":["completion","tools"]}]}`)
	})
	mux.HandleFunc("GET /api/version", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"version":"1.2.3"}`) })
	mux.HandleFunc("POST /api/chat", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		chat(w, r)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

func say(w http.ResponseWriter, texts ...string) {
	for _, s := range texts {
		fmt.Fprintf(w, `{"message":{"content":%q},"done":false}`+"\n", s)
		w.(http.Flusher).Flush()
	}
}

const end = `{"done":true,"prompt_eval_count":3,"eval_count":4}` + "\n"

func TestAnswers(t *testing.T) {
	c := start(t)
	url := server(t, func(w http.ResponseWriter, _ *http.Request) {
		say(w, "a ", "b ", "c")
		io.WriteString(w, end)
	})
	ollama, err := open(t, c, &role.OpenModel{Provider: "ollama", URL: url, Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	demo, err := open(t, c, &role.OpenModel{Provider: "demo", Model: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		ollama.ask(t, "go")
		demo.ask(t, "what are you?")
		if text, last := ollama.answer(t); text != "a b c" || last.Done == nil || *last.Done != (model.Done{PromptTokens: 3, OutputTokens: 4}) {
			t.Errorf("ollama: %q, %+v", text, last)
		}
		if text, last := demo.answer(t); !strings.Contains(text, "not a language model") || last.Done == nil {
			t.Errorf("demo: %q, %+v", text, last)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	c := start(t)
	for _, m := range []*role.OpenModel{
		{Provider: "ollama", URL: "http://192.0.2.1:11434", Model: "m"},
		{Provider: "ollama", URL: "https://127.0.0.1", Model: "m"},
		{Provider: "openai", Model: "m"},
		{Provider: "", Model: "m"},
	} {
		_, err := open(t, c, m)
		var f *role.Failed
		if !errors.As(err, &f) || f.Code != api.CodeBadRequest || f.Hint == "" {
			t.Errorf("%+v: %v", m, err)
		}
	}
}

func TestListModels(t *testing.T) {
	c := start(t)
	url := server(t, nil)
	m, err := role.Ask[role.Models](t.Context(), c, &role.ListModels{URL: url})
	if err != nil || m.Problem != "" || m.Version != "1.2.3" || len(m.Models) != 2 || m.Models[0].Name != "demo" || m.Models[1].Name != "m:latest" || !m.Models[1].Tools {
		t.Errorf("%+v, %v", m, err)
	}
	m, err = role.Ask[role.Models](t.Context(), c, &role.ListModels{URL: "http://127.0.0.1:1"})
	if err != nil || !strings.Contains(m.Problem+m.Hint, "ollama serve") || len(m.Models) != 1 {
		t.Errorf("not running: %+v, %v", m, err)
	}
	m, err = role.Ask[role.Models](t.Context(), c, &role.ListModels{URL: "http://example.com"})
	if err != nil || !strings.Contains(m.Problem+m.Hint, "127.0.0.1") || len(m.Models) != 1 {
		t.Errorf("elsewhere: %+v, %v", m, err)
	}
}

// TestClosedStreamEndsRequest shows that the model stops as soon as the agent is gone, though it says nothing.
func TestClosedStreamEndsRequest(t *testing.T) {
	c := start(t)
	asked, gone := make(chan bool, 1), make(chan bool, 1)
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- true
		<-r.Context().Done()
		gone <- true
	})
	s, err := open(t, c, &role.OpenModel{Provider: "ollama", URL: url, Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	s.ask(t, "go")
	<-asked
	start := time.Now()
	s.Close()
	select {
	case <-gone:
		t.Logf("cancelled after %v", time.Since(start))
	case <-time.After(5 * time.Second):
		t.Error("the request goes on")
	}
}

// TestAgentThatDoesNotRead shows that such a stream stops its own server only, and ends with its agent.
func TestAgentThatDoesNotRead(t *testing.T) {
	c := start(t)
	stopped := make(chan int, 1)
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		line, n := []byte(`{"message":{"content":"`+strings.Repeat("x", 1000)+`"},"done":false}`+"\n"), 0
		for r.Context().Err() == nil {
			m, err := w.Write(line)
			if n += m; err != nil {
				break
			}
		}
		stopped <- n
	})
	deaf, err := open(t, c, &role.OpenModel{Provider: "ollama", URL: url, Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	deaf.ask(t, "go")
	time.Sleep(200 * time.Millisecond)
	other, err := open(t, c, &role.OpenModel{Provider: "demo", Model: "demo"})
	if err != nil {
		t.Fatal(err)
	}
	other.ask(t, "hello")
	if _, last := other.answer(t); last.Done == nil {
		t.Errorf("%+v", last)
	}
	deaf.Close()
	select {
	case n := <-stopped:
		if n > 64<<20 {
			t.Errorf("the server could send %d bytes", n)
		}
	case <-time.After(5 * time.Second):
		t.Error("the request goes on")
	}
}

func TestBadRequests(t *testing.T) {
	c := start(t)
	for name, in := range map[string]string{
		"garbage":         "hello\n",
		"another model":   `{"model":"x","messages":[]}` + "\n",
		"trailing":        `{"messages":[]}{}` + "\n",
		"a line too long": `{"system":"` + strings.Repeat("x", model.MaxRequest) + `"}` + "\n",
	} {
		s, err := open(t, c, &role.OpenModel{Provider: "demo", Model: "demo"})
		if err != nil {
			t.Fatal(err)
		}
		go io.WriteString(s, in)
		if ch, err := s.Chunk(); err != nil || ch.Error == nil {
			t.Errorf("%s: %+v, %v", name, ch, err)
		}
		if _, err := s.Chunk(); err == nil {
			t.Errorf("%s: the stream goes on", name)
		}
	}
}

// TestFirstTokenIsNotHeld shows that one token goes through at once, though no other follows.
func TestFirstTokenIsNotHeld(t *testing.T) {
	c := start(t)
	next := make(chan string)
	url := server(t, func(w http.ResponseWriter, r *http.Request) {
		for s := range next {
			say(w, s)
		}
		io.WriteString(w, end)
	})
	s, err := open(t, c, &role.OpenModel{Provider: "ollama", URL: url, Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	s.ask(t, "go")
	var all time.Duration
	const n = 200
	for i := range n {
		want := fmt.Sprintf("token %d", i)
		begin := time.Now()
		next <- want
		if ch, err := s.Chunk(); err != nil || ch.Text != want {
			t.Fatalf("%+v, %v", ch, err)
		}
		all += time.Since(begin)
	}
	close(next)
	t.Logf("%v a token from the server's handler to the agent", all/n)
}

func TestLargeArguments(t *testing.T) {
	c := start(t)
	url := server(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, n := range []int{100 << 10, 500 << 10} {
			args, _ := json.Marshal(map[string]string{"content": strings.Repeat("x", n)})
			fmt.Fprintf(w, `{"message":{"tool_calls":[{"function":{"name":"write_file","arguments":%s}}]}}`+"\n", args)
		}
		io.WriteString(w, end)
	})
	s, err := open(t, c, &role.OpenModel{Provider: "ollama", URL: url, Model: "m"})
	if err != nil {
		t.Fatal(err)
	}
	s.ask(t, "go")
	if ch, err := s.Chunk(); err != nil || ch.Call == nil || len(ch.Call.Args) < 100<<10 {
		t.Errorf("%v", err)
	}
	if ch, err := s.Chunk(); err != nil || ch.Call == nil || string(ch.Call.Args) != "null" {
		t.Errorf("%.100v, %v", ch, err)
	}
	if _, last := s.answer(t); last.Done == nil {
		t.Errorf("%+v", last)
	}
}
