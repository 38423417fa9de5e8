package ollama_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/gateway/ollama"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
)

const okTags = `{"models":[{"name":"m:latest","digest":"d","size":1},{"name":"far:120b-cloud","digest":"e"},{"name":"alias:latest","digest":"f","remote_host":"https://example.com"},{"name":"bad \u001b name","digest":"g"}]}`

// upstream is a server that answers /api/chat as the test says; that there is such a misbehaving server is the point.
func upstream(t *testing.T, chat http.HandlerFunc) *httptest.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/tags", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, okTags) })
	mux.HandleFunc("POST /api/show", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"capabilities":["tools"]}`) })
	mux.HandleFunc("POST /api/chat", chat)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func piece(text string) string {
	return fmt.Sprintf(`{"message":{"role":"assistant","content":%q},"done":false}`+"\n", text)
}

func TestHostileServer(t *testing.T) {
	flood := strings.Repeat("x", 1<<20)
	for _, tt := range []struct {
		name string
		chat http.HandlerFunc
		code api.Code
		part string
	}{
		{"cut off", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, piece("a")) }, api.CodeModel, "cut off"},
		{"cut off in a line", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, piece("a")+`{"mess`) }, api.CodeModel, "cut off"},
		{"empty", func(http.ResponseWriter, *http.Request) {}, api.CodeModel, "cut off"},
		{"reset", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, piece("a"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, api.CodeModel, "cut off"},
		{"garbage", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>welcome\n") }, api.CodeModel, "is that really Ollama"},
		{"wrong types", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"message":7}`+"\n") }, api.CodeModel, "cannot understand"},
		{"nameless call", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"message":{"tool_calls":[{"function":{"arguments":{}}}]}}`+"\n")
		}, api.CodeModel, "no name"},
		{"negative count", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"done":true,"eval_count":-1}`+"\n")
		}, api.CodeModel, "negative"},
		{"from elsewhere", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"remote_host":"https://example.com","message":{"content":"a"}}`+"\n")
		}, api.CodeModel, "another machine"},
		{"error in the stream", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, piece("a")+`{"error":"llama runner has crashed"}`+"\n")
		}, api.CodeModel, "llama runner has crashed"},
		{"a line of a gigabyte", func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"message":{"content":"`)
			for range 1024 {
				if _, err := io.WriteString(w, flood); err != nil {
					return
				}
			}
		}, api.CodeModel, "longer than"},
		{"long error", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			io.WriteString(w, `{"error":"`+flood+`"}`)
		}, api.CodeModel, "500"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, api.CodeModel, "307"},
		{"large headers", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", flood) }, api.CodeUnavailable, "cannot reach"},
		{"silent at once", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, api.CodeTimeout, "does not answer"},
		{"silent later", func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, piece("a"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, api.CodeTimeout, "does not answer"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// A server sees the end of a request only after it has read its body.
			s := upstream(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				tt.chat(w, r)
			})
			p := provider(t, s.URL, 500*time.Millisecond)
			start := time.Now()
			got, err := chat(t.Context(), p, "m", question("go"))
			wantError(t, err, tt.code, tt.part)
			if len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if d := time.Since(start); d > 5*time.Second || len(got.text) > 1000 {
				t.Errorf("took %v, %d bytes", d, len(got.text))
			}
		})
	}
}

func TestCancelClosesUpstream(t *testing.T) {
	gone := make(chan time.Time, 1)
	s := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, piece("a"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		gone <- time.Now()
	})
	p := provider(t, s.URL, 0)
	ctx, cancel := context.WithCancel(t.Context())
	var at time.Time
	_, err := p.Chat(ctx, "m", question("go"), func(model.Chunk) error {
		at = time.Now()
		cancel()
		return nil
	})
	wantError(t, err, api.CodeCancelled, "cancelled")
	select {
	case seen := <-gone:
		t.Logf("the server saw it after %v", seen.Sub(at))
	case <-time.After(5 * time.Second):
		t.Error("the server still answers")
	}
	// The same when whoever is told stops listening.
	wanted := errors.New("enough")
	if _, err := p.Chat(t.Context(), "m", question("go"), func(model.Chunk) error { return wanted }); !errors.Is(err, wanted) {
		t.Error(err)
	}
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the server still answers")
	}
}

func TestConnectionsArePooled(t *testing.T) {
	var opened atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/tags", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, okTags) })
	mux.HandleFunc("POST /api/chat", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, piece("a"))
		w.(http.Flusher).Flush()
		io.WriteString(w, `{"done":true}`+"\n")
	})
	s := httptest.NewUnstartedServer(mux)
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	p := provider(t, s.URL, 0)
	for range 20 {
		if _, err := chat(t.Context(), p, "m", question("go")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	if n := opened.Load(); n > 3 {
		t.Errorf("%d connections for 20 answers", n)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := chat(t.Context(), p, "m", question("go")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestCloudModelsAreRefused(t *testing.T) {
	asked := false
	s := upstream(t, func(http.ResponseWriter, *http.Request) { asked = true })
	p := provider(t, s.URL, 0)
	models, err := p.Models(t.Context())
	if err != nil || len(models) != 1 || models[0].Name != "m:latest" || !models[0].Tools {
		t.Errorf("%+v, %v", models, err)
	}
	for _, name := range []string{"far:120b-cloud", "alias", "alias:latest"} {
		_, err := chat(t.Context(), p, name, question("go"))
		wantError(t, err, api.CodeDenied, "does not run on this machine")
	}
	for _, name := range []string{"far:cloud", "far:120b", "m:cloud", "registry.ollama.ai/library/far:120b-cloud", "m:latest/../x", ""} {
		_, err := chat(t.Context(), p, name, question("go"))
		wantError(t, err, api.CodeNotFound, "has no model")
	}
	if asked {
		t.Error("a cloud model was asked")
	}
}

func TestURL(t *testing.T) {
	for url, ok := range map[string]bool{
		"http://127.0.0.1:11434": true, "http://127.0.0.1:11434/": true, "http://127.9.9.9:1": true, "http://[::1]:11434": true, "http://localhost:11434": true,
		"https://127.0.0.1:11434": false, "http://192.168.0.1:11434": false, "http://example.com": false, "http://localhost.example.com": false,
		"http://0.0.0.0:11434": false, "http://[::]:1": false, "http://[::ffff:127.0.0.1]:1": false, "http://[fe80::1%25lo]:1": false, "http://2130706433/": false,
		"http://u:p@127.0.0.1:1": false, "http://127.0.0.1:1/api": false, "http://127.0.0.1:1?x": false, "http://127.0.0.1:1/#x": false,
		"127.0.0.1:11434": false, "unix:///run/x": false, "": false, "http://": false, "http://127.0.0.1:x": false,
	} {
		p, err := ollama.New(url, 0)
		if ok != (err == nil) || ok != (p != nil) {
			t.Errorf("%q: %v", url, err)
		}
		if !ok {
			wantError(t, err, api.CodeBadRequest, "only a server on this machine")
		}
	}
}

// TestProxyIsIgnored shows that the environment cannot turn a question elsewhere, and that localhost needs no resolver.
func TestProxyIsIgnored(t *testing.T) {
	for _, v := range []string{"http_proxy", "HTTP_PROXY", "ALL_PROXY"} {
		t.Setenv(v, "http://127.0.0.1:1")
	}
	s := upstream(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, piece("a")+`{"done":true}`+"\n") })
	p := provider(t, strings.Replace(s.URL, "127.0.0.1", "localhost", 1), 0)
	if got, err := chat(t.Context(), p, "m", question("go")); err != nil || got.text != "a" {
		t.Errorf("%+v, %v", got, err)
	}
}
