// Package testollama runs the real Ollama server for tests and benchmarks, with tiny models whose weights are made on
// the spot: one that says what a script tells it, tool calls included, and one that says random things. Nothing of it
// is a fake of Ollama; only the models are toys. It is no part of the product.
package testollama

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Version is the one of Ollama that is run: later ones have no CPU runner inside the binary.
const Version = "v0.24.0"

// ErrMissing means that there is no Ollama to run.
var ErrMissing = errors.New("no Ollama for tests")

// Model is a Scripted or a Random.
type Model interface {
	name() string
	weights() []byte
	template() string
	parameters() map[string]any
}

// Server is a running Ollama.
type Server struct {
	URL string // http://127.0.0.1:PORT
	PID int
	Dir string // its models, and serve.log

	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	once sync.Once
}

// Find returns the Ollama to run: CLOSEDPAW_TEST_OLLAMA, or what the tools put into the user's cache.
func Find() (string, error) {
	bin := os.Getenv("CLOSEDPAW_TEST_OLLAMA")
	if bin == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrMissing, err)
		}
		bin = filepath.Join(home, ".cache", "closedpaw", "ollama-"+Version)
	}
	if _, err := os.Stat(bin); err != nil {
		return "", fmt.Errorf("%w: %w; name one in CLOSEDPAW_TEST_OLLAMA", ErrMissing, err)
	}
	return bin, nil
}

// Start runs a server with these models until the test ends, in a folder of the test. It skips the test, loudly, only
// where there is no Ollama.
func Start(tb testing.TB, models ...Model) *Server {
	tb.Helper()
	bin, err := Find()
	if err != nil {
		tb.Skipf("SKIPPED, NOT PASSED: %v", err)
	}
	s, err := StartIn(tb.TempDir(), bin, models...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Stop)
	return s
}

// StartIn runs the server bin in the folder dir, with these models.
func StartIn(dir, bin string, models ...Model) (*Server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "serve.log"))
	if err != nil {
		return nil, fmt.Errorf("cannot log Ollama: %w", err)
	}
	defer log.Close()
	host := fmt.Sprintf("127.0.0.1:%d", port)
	cmd := exec.Command(bin, "serve")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "OLLAMA_HOST=" + host,
		"OLLAMA_MODELS=" + filepath.Join(dir, "models"), "OLLAMA_NO_CLOUD=1", "OLLAMA_NUM_PARALLEL=1", "OLLAMA_KEEP_ALIVE=1h"}
	cmd.Stdout, cmd.Stderr = log, log
	s := &Server{URL: "http://" + host, Dir: dir, cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// Pdeathsig follows the thread that forks: this one waits as long as the server lives.
		runtime.LockOSThread()
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // tests kill it
		}
		close(s.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot start Ollama: %w", err)
	}
	s.PID = cmd.Process.Pid
	if err := s.prepare(models); err != nil {
		s.Stop()
		tail, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("%w\n%s", err, tail[max(0, len(tail)-4000):])
	}
	return s, nil
}

func (s *Server) prepare(models []Model) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		err := s.do(ctx, http.MethodGet, "/api/version", nil)
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("ollama does not answer: %w", err)
		case <-s.done:
			return fmt.Errorf("ollama has ended: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	for _, m := range models {
		if err := s.create(ctx, m); err != nil {
			return fmt.Errorf("cannot create the model %s: %w", m.name(), err)
		}
	}
	return nil
}

func (s *Server) create(ctx context.Context, m Model) error {
	w := m.weights()
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(w))
	if err := s.do(ctx, http.MethodPost, "/api/blobs/"+digest, w); err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{
		"model": m.name(), "files": map[string]string{"model.gguf": digest}, "template": m.template(),
		"parameters": m.parameters(), "stream": false,
	})
	if err != nil {
		return err
	}
	return s.do(ctx, http.MethodPost, "/api/create", body)
}

func (s *Server) do(ctx context.Context, method, path string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode >= 300 || strings.Contains(string(b), `"error"`)) {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return err
}

// Kill ends the server and its runners at once, as a crash would, and waits for it.
func (s *Server) Kill() {
	s.once.Do(func() { _ = syscall.Kill(-s.PID, syscall.SIGKILL) }) // it may have ended already
	<-s.done
}

// Stop is Kill: there is nothing to be saved.
func (s *Server) Stop() { s.Kill() }

// Constrain returns the URL of a proxy to the server which adds a JSON schema to each chat request that offers tools,
// so that a Random model answers with random but valid JSON: tool calls, if the schema says
// {"name": …, "parameters": {…}}. Strings need a pattern without braces: Ollama's parser of tool calls counts them
// inside strings too. The schema bounds the length; an answer ends at 256 tokens.
func (s *Server) Constrain(schema json.RawMessage) (proxyURL string, stop func(), err error) {
	target, err := url.Parse(s.URL)
	if err != nil {
		return "", nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	proxy := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		if r.In.URL.Path != "/api/chat" {
			return
		}
		body, err := io.ReadAll(r.In.Body)
		var m map[string]json.RawMessage
		if err == nil && json.Unmarshal(body, &m) == nil && m["tools"] != nil {
			m["format"] = schema
			if b, err := json.Marshal(m); err == nil {
				body = b
			}
		}
		r.Out.Body = io.NopCloser(bytes.NewReader(body))
		r.Out.ContentLength = int64(len(body))
	}}
	srv := &http.Server{Handler: proxy, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }() // until stop
	return "http://" + l.Addr().String(), func() { srv.Close() }, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("cannot find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
