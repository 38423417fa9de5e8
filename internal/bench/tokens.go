package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/internal/testollama"
)

// words is how long the scripted model's answer is.
const words = 200

// tokens: the time to the first token and from token to token, through ClosedPaw against Ollama alone, in turns.
func tokens(ctx context.Context, dir string) error {
	bin, err := testollama.Find()
	if err != nil {
		return err
	}
	answer := ""
	for i := range words {
		answer += fmt.Sprintf("word%d ", i)
	}
	models := filepath.Join(dir, "ollama")
	if err := os.Mkdir(models, 0o755); err != nil {
		return err
	}
	s, err := testollama.StartIn(models, bin, testollama.Scripted{Name: "bench", Dialogue: [][]string{{answer}}})
	if err != nil {
		return err
	}
	defer s.Stop()
	body, err := capture(ctx, filepath.Join(dir, "capture"), "bench")
	if err != nil {
		return err
	}
	d, err := start(ctx, filepath.Join(dir, "tokens"), s.URL)
	if err != nil {
		return err
	}
	defer d.stop()
	var first, firstAlone, each, eachAlone []time.Duration
	const rounds, warm = 31, 3
	for i := range rounds + warm {
		a, b, n, err := through(ctx, d, "bench")
		if err != nil {
			return err
		}
		c, e, m, err := alone(ctx, s.URL, body)
		if err != nil {
			return err
		}
		if n == 0 || m == 0 {
			return fmt.Errorf("the model said nothing: %d and %d pieces", n, m)
		}
		time.Sleep(20 * time.Millisecond) // what follows an answer is not what precedes the next
		if i >= warm {
			first, each, firstAlone, eachAlone = append(first, a), append(each, b), append(firstAlone, c), append(eachAlone, e)
		}
	}
	f, fa, t, ta := median(first), median(firstAlone), median(each), median(eachAlone)
	report("first_token_ms", "%.2f", ms(f))
	report("first_token_ollama_alone_ms", "%.2f", ms(fa))
	report("first_token_more_ms", "%.2f", ms(f-fa))
	report("first_token_ratio", "%.3f", float64(f)/float64(fa))
	report("token_us", "%.1f", ms(t)*1000)
	report("token_ollama_alone_us", "%.1f", ms(ta)*1000)
	report("token_more_us", "%.1f", ms(t-ta)*1000)
	report("token_ratio", "%.3f", float64(t)/float64(ta))
	return nil
}

// through asks ClosedPaw: when the first piece came, how long each further one took, and how many there were.
func through(ctx context.Context, d *daemon, model string) (first, each time.Duration, n int, err error) {
	var last time.Duration
	err = d.ask(ctx, model, "say it", func(at time.Duration, e api.Event) {
		if e.Type != api.EventText {
			return
		}
		if n++; n == 1 {
			first = at
		}
		last = at
	})
	if err == nil && n > 1 {
		each = (last - first) / words
	}
	return first, each, n, err
}

// capture is the request that ClosedPaw makes of Ollama, so that both are asked the very same.
func capture(ctx context.Context, dir, model string) (body []byte, err error) {
	url, stop, err := speak(model, func(w http.ResponseWriter, r *http.Request) {
		body, err = io.ReadAll(r.Body)
		fmt.Fprint(w, `{"message":{"role":"assistant","content":"."},"done":true,"done_reason":"stop"}`+"\n")
	})
	if err != nil {
		return nil, err
	}
	defer stop()
	d, derr := start(ctx, dir, url)
	if derr != nil {
		return nil, derr
	}
	defer d.stop()
	if _, _, _, err := through(ctx, d, model); err != nil {
		return nil, err
	}
	return body, err
}

// speak serves what a client of Ollama asks before it chats, and chat.
func speak(model string, chat http.HandlerFunc) (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/chat", chat)
	mux.HandleFunc("/api/tags", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"models":[{"name":%q,"model":%q,"digest":"0","size":1}]}`, model+":latest", model+":latest")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"capabilities":["tools"],"version":"0"}`)
	})
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: mux}
	go func() { _ = srv.Serve(l) }() // until stop
	return "http://" + l.Addr().String(), func() { srv.Close() }, nil
}

// alone asks Ollama itself.
func alone(ctx context.Context, url string, body []byte) (first, each time.Duration, n int, err error) {
	begin := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/api/chat", bytes.NewReader(body))
	if err != nil {
		return 0, 0, 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, 0, err
	}
	defer res.Body.Close()
	var last time.Duration
	for sc := bufio.NewScanner(res.Body); sc.Scan(); {
		var line struct {
			Message struct{ Content string }
			Done    bool
			Error   string
		}
		if err := json.Unmarshal(sc.Bytes(), &line); err != nil {
			return 0, 0, 0, err
		}
		if line.Error != "" {
			return 0, 0, 0, errors.New(line.Error)
		}
		if line.Message.Content != "" {
			if n++; n == 1 {
				first = time.Since(begin)
			}
			last = time.Since(begin)
		}
		if line.Done {
			return first, (last - first) / words, n, nil
		}
	}
	return 0, 0, 0, errors.New("the answer of Ollama was cut off")
}

// flood: how many tokens a second go through when the model is no limit: a server that speaks Ollama's stream and has
// its answer ready.
func flood(ctx context.Context, dir string) error {
	const n = 100_000
	answer := []byte(strings.Repeat(`{"model":"flood","message":{"role":"assistant","content":" word"},"done":false}`+"\n", n) +
		`{"model":"flood","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}` + "\n")
	url, stop, err := speak("flood", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer) })
	if err != nil {
		return err
	}
	defer stop()
	d, err := start(ctx, filepath.Join(dir, "flood"), url)
	if err != nil {
		return err
	}
	defer d.stop()
	var rate, bare []time.Duration
	for range 5 {
		begin, got := time.Now(), 0
		err := d.ask(ctx, "flood", "say it", func(_ time.Duration, e api.Event) { got += len(e.Text) })
		if err != nil {
			return err
		}
		if got != n*len(" word") {
			return fmt.Errorf("%d bytes of text arrived", got)
		}
		rate = append(rate, time.Since(begin))
		begin = time.Now()
		if _, _, m, err := alone(ctx, url, []byte(`{}`)); err != nil || m != n {
			return fmt.Errorf("%d tokens: %w", m, err)
		}
		bare = append(bare, time.Since(begin))
	}
	r, b := n/median(rate).Seconds(), n/median(bare).Seconds()
	report("flood_tokens_per_s", "%.0f", r)
	report("flood_tokens_alone_per_s", "%.0f", b)
	report("flood_ratio", "%.2f", r/b)
	return nil
}

// way: the time to the first token where the answer is one that is ready: what the way through the house costs by itself.
func way(ctx context.Context, dir string) error {
	url, stop, err := speak("ready", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"message":{"role":"assistant","content":"yes"},"done":false}`+"\n"+`{"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}`+"\n")
	})
	if err != nil {
		return err
	}
	defer stop()
	d, err := start(ctx, filepath.Join(dir, "way"), url)
	if err != nil {
		return err
	}
	defer d.stop()
	var first, firstAlone []time.Duration
	for range 51 {
		a, _, _, err := through(ctx, d, "ready")
		if err != nil {
			return err
		}
		b, _, _, err := alone(ctx, url, []byte(`{}`))
		if err != nil {
			return err
		}
		first, firstAlone = append(first, a), append(firstAlone, b)
		time.Sleep(20 * time.Millisecond) // what follows an answer is not what precedes the next
	}
	f, fa := median(first), median(firstAlone)
	report("way_first_token_ms", "%.2f", ms(f))
	report("way_first_token_more_ms", "%.2f", ms(f-fa))
	return nil
}
