package route_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/guard/guardtest"
	"github.com/closedpaw/closedpaw/daemon/internal/peer"
	"github.com/closedpaw/closedpaw/daemon/internal/peer/peertest"
	"github.com/closedpaw/closedpaw/daemon/internal/route"
	"github.com/closedpaw/closedpaw/daemon/internal/session"
	"github.com/closedpaw/closedpaw/policy"
)

type things struct{}

// SessionOwner: "mine" is uid 1000's.
func (things) SessionOwner(id string) (uint32, error) {
	if id != "mine" {
		return 0, session.ErrNotFound
	}
	return 1000, nil
}

func (things) ApprovalOwner(string) (uint32, error) { return 1000, nil }

// serve returns the socket of a mux with one route of each kind.
func serve(t *testing.T) string {
	t.Helper()
	h := guardtest.New(t)
	mux := route.New(h.Guard, things{}, []route.Route{
		route.Line("GET /v1/status", policy.ActionStatus, route.Daemon, route.Get(func(_ *http.Request, c guard.Caller) (uint32, error) { return c.UID(), nil })),
		route.Line("POST /v1/proof", policy.ActionAuditProve, route.Daemon, route.Post(func(_ *http.Request, _ guard.Caller, in api.ProofRequest) (int64, error) { return in.Size, nil })),
		route.Line("GET /v1/sessions/{id}", policy.ActionSessionRead, route.Session, route.Get(func(r *http.Request, _ guard.Caller) (string, error) { return r.PathValue("id"), nil })),
		route.Line("DELETE /v1/sessions/{id}", policy.ActionSessionRemove, route.Session, route.Get(func(r *http.Request, _ guard.Caller) (string, error) { return "removed", nil })),
		route.Line("POST /v1/ask", policy.ActionAsk, route.Daemon, route.Stream(func(_ *http.Request, _ guard.Caller, in api.AskRequest, out session.Sink) error {
			if in.Model == "none" {
				return &api.Error{Code: api.CodeModel, Message: "no such model"}
			}
			if err := out.Send(api.Event{Type: api.EventText, Text: "a\nb"}, true); err != nil {
				return err
			}
			return errors.New("it broke")
		})),
		route.Line("POST /v1/handover", policy.ActionHandover, route.Daemon, route.Upgrade(func(_ *http.Request, _ guard.Caller, u *net.UnixConn) error {
			b := make([]byte, 1)
			if _, err := u.Read(b); err != nil {
				return err
			}
			_, err := fmt.Fprintf(u, "got %s\n", b)
			return err
		})),
	})
	// Not t.TempDir: other users must reach it.
	dir, err := os.MkdirTemp("", "route")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	sock := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: sock, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o711), os.Chmod(sock, 0o666)); err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux, ConnContext: peer.ConnContext}
	go srv.Serve(peer.Listen(l, 8, func(uint32) bool { return true }))
	t.Cleanup(func() { srv.Close() })
	return sock
}

// say sends raw bytes as uid and returns the status and the body.
func say(t *testing.T, sock string, uid uint32, request string) (int, string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED, NOT PASSED: needs root, to connect as other users")
	}
	c, err := peertest.Dial(uid, sock)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	go io.WriteString(c, request)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(b))
}

func request(method, path, body string, headers ...string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: closedpaw\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n%s", method, path, len(body),
		strings.Join(append(headers, ""), "\r\n"), body)
}

func TestWhoMayDoWhat(t *testing.T) {
	sock := serve(t)
	for _, c := range []struct {
		uid          uint32
		method, path string
		want         int
	}{
		{1000, "GET", "/v1/status", 200},
		{0, "GET", "/v1/status", 200},
		{33, "GET", "/v1/status", 403},
		{65534, "GET", "/v1/status", 403},
		{1000, "GET", "/v1/sessions/mine", 200},
		{0, "GET", "/v1/sessions/mine", 200},
		{1001, "GET", "/v1/sessions/mine", 404},
		{33, "GET", "/v1/sessions/mine", 404},
		{1000, "GET", "/v1/sessions/none", 404},
		{1000, "DELETE", "/v1/sessions/mine", 200},
		{0, "DELETE", "/v1/sessions/mine", 403},
		{1001, "DELETE", "/v1/sessions/mine", 404},
		{1000, "GET", "/v1/nothing", 404},
		{1000, "PUT", "/v1/status", 404},
		{1000, "GET", "/v1/sessions/../status", 404},
	} {
		code, body := say(t, sock, c.uid, request(c.method, c.path, ""))
		if code != c.want && !(c.want == 404 && (code == 405 || code == 301 || code == 307)) {
			t.Errorf("uid %d: %s %s: %d %s, want %d", c.uid, c.method, c.path, code, body, c.want)
		}
		if code >= 400 && code != 405 {
			var e api.Error
			if err := json.Unmarshal([]byte(body), &e); err != nil || e.Message == "" {
				t.Errorf("uid %d: %s %s: the error is %q", c.uid, c.method, c.path, body)
			}
		}
	}
}

func TestNotForBrowsers(t *testing.T) {
	sock := serve(t)
	for _, h := range []string{"Origin: null", "Origin: http://closedpaw", "Referer: http://evil.example/"} {
		if code, body := say(t, sock, 1000, request("GET", "/v1/status", "", h)); code != 400 || !strings.Contains(body, "browsers") {
			t.Errorf("%s: %d %s", h, code, body)
		}
	}
	for _, host := range []string{"localhost", "evil.example", "closedpaw.evil.example", "closedpaw:80"} {
		r := strings.Replace(request("GET", "/v1/status", ""), "Host: closedpaw", "Host: "+host, 1)
		if code, _ := say(t, sock, 1000, r); code != 400 {
			t.Errorf("host %s: %d", host, code)
		}
	}
}

func TestBodies(t *testing.T) {
	sock := serve(t)
	for body, want := range map[string]int{
		`{"size":3}`:                 200,
		`{"size":3} {}`:              400,
		`{"size":3}x`:                400,
		`{"size":3,"more":1}`:        400,
		`{"size":"3"}`:               400,
		`{`:                          400,
		``:                           400,
		`null`:                       200, // the zero value: nothing was asked for
		strings.Repeat("[", 100_000): 400,
		`{"size":` + strings.Repeat(" ", api.MaxBody) + `3}`: 400,
	} {
		if code, out := say(t, sock, 1000, request("POST", "/v1/proof", body)); code != want {
			t.Errorf("%.40q: %d %s, want %d", body, code, out, want)
		}
	}
}

func TestStreams(t *testing.T) {
	sock := serve(t)
	code, body := say(t, sock, 1000, request("POST", "/v1/ask", `{"parts":[],"apply":"ask","interactive":false}`))
	want := `data: {"type":"text","text":"a\nb"}` + "\n\n" + `data: {"type":"error","error":{"code":"internal","message":"it broke"`
	if code != 200 || !strings.HasPrefix(body, want) {
		t.Errorf("%d %s", code, body)
	}
	code, body = say(t, sock, 1000, request("POST", "/v1/ask", `{"parts":[],"model":"none","apply":"ask","interactive":false}`))
	if code != 502 || !strings.Contains(body, "no such model") {
		t.Errorf("an error before the first event: %d %s", code, body)
	}
}

func TestUpgrade(t *testing.T) {
	sock := serve(t)
	if code, _ := say(t, sock, 1000, request("POST", "/v1/handover", "")); code != 400 {
		t.Errorf("without the header: %d", code)
	}
	c, err := peertest.Dial(1000, sock)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, "POST /v1/handover HTTP/1.1\r\nHost: closedpaw\r\nConnection: Upgrade\r\nUpgrade: closedpaw-fd\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v %v", res, err)
	}
	io.WriteString(c, "D")
	if line, err := r.ReadString('\n'); line != "got D\n" {
		t.Errorf("%q %v", line, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"parts":[{"label":"user","text":"x"}],"apply":"ask","interactive":true}`)
	f.Fuzz(func(t *testing.T, s string) {
		if in, err := route.Decode[api.AskRequest](strings.NewReader(s)); err == nil {
			if _, err := json.Marshal(in); err != nil {
				t.Error(err)
			}
		}
	})
}
