package ollama_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/closedpaw/closedpaw/daemon/internal/gateway/ollama"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
)

// FuzzAnswer feeds a client whatever a server may say. Whatever it emits must be a chunk that the other side takes.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(piece("a") + `{"message":{"thinking":"x","tool_calls":[{"id":"1","function":{"name":"shell","arguments":{"a":1}}}]},"done":true,"eval_count":3}` + "\n"))
	f.Add([]byte(`{"error":"e"}` + "\n"))
	var said atomic.Pointer[[]byte]
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/tags", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(okTags)) })
	mux.HandleFunc("POST /api/chat", func(w http.ResponseWriter, _ *http.Request) { w.Write(*said.Load()) })
	s := httptest.NewServer(mux)
	f.Cleanup(s.Close)
	p, err := ollama.New(s.URL, 2*time.Second)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		said.Store(&answer)
		var all []model.Chunk
		done, err := p.Chat(context.Background(), "m", question("go"), func(c model.Chunk) error {
			all = append(all, c)
			return nil
		})
		if err == nil {
			all = append(all, model.Chunk{Done: &done})
		}
		for _, c := range all {
			b, err := model.EncodeChunk(c)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := model.ParseChunk(b); err != nil {
				t.Errorf("%q: %v", b, err)
			}
		}
	})
}
