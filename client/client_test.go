package client_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/closedpaw/closedpaw/client"
	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/clienttest"
)

// TestMain is also the process of another user that lays a trap: TestTrap starts it so.
func TestMain(m *testing.M) {
	if socket := os.Getenv("CLIENT_TEST_TRAP"); socket != "" {
		l, err := net.Listen("unix", socket)
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString("ready\n")
		l.Accept()
		os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestRoutes(t *testing.T) {
	s := clienttest.Start(t)
	c := client.New(s.Socket)
	defer c.Close()
	ctx := t.Context()
	var got []string
	s.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Method+" "+r.URL.RequestURI())
		switch r.URL.Path {
		case "/v1/status", "/v1/sessions/a b", "/v1/approvals/x", "/v1/audit/proof", "/v1/sessions/x/applied", "/v1/sessions/x":
			clienttest.JSON(w, map[string]any{"unknown": 1})
		default:
			w.Write([]byte("[]"))
		}
	})
	_, err1 := c.Status(ctx)
	_, err2 := c.Checks(ctx)
	_, err3 := c.Models(ctx)
	_, err4 := c.Sessions(ctx)
	_, err5 := c.Session(ctx, "a b")
	err6 := c.DeleteSession(ctx, "x")
	err7 := c.Applied(ctx, "x", api.ApplyReport{})
	_, err8 := c.Approvals(ctx)
	_, err9 := c.Approval(ctx, "x")
	_, err10 := c.Answer(ctx, "x", api.Answer{})
	_, err11 := c.Audit(ctx, -1, 10)
	_, err12 := c.Proof(ctx, 0)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9, err10, err11, err12); err != nil {
		t.Fatal(err)
	}
	want := []string{"GET /v1/status", "GET /v1/checks", "GET /v1/models", "GET /v1/sessions", "GET /v1/sessions/a%20b", "DELETE /v1/sessions/x",
		"POST /v1/sessions/x/applied", "GET /v1/approvals", "GET /v1/approvals/x", "POST /v1/approvals/x", "GET /v1/audit?after=-1&limit=10", "POST /v1/audit/proof"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestErrors(t *testing.T) {
	s := clienttest.Start(t)
	c := client.New(s.Socket)
	defer c.Close()
	s.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		clienttest.Error(w, 403, api.Error{Code: api.CodeDenied, Message: "no", Hint: "ask root"})
	})
	s.HandleFunc("GET /v1/checks", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) })
	s.HandleFunc("GET /v1/models", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("{")) })
	s.HandleFunc("GET /v1/sessions", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	s.HandleFunc("GET /v1/approvals", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/v1/status", http.StatusFound) })
	s.HandleFunc("GET /v1/audit", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })

	var e *api.Error
	if _, err := c.Status(t.Context()); !errors.As(err, &e) || e.Code != api.CodeDenied || err.Error() != "no (ask root)" {
		t.Errorf("denied: %v", err)
	}
	if _, err := c.Checks(t.Context()); !errors.As(err, &e) || e.Code != api.CodeInternal || !strings.Contains(e.Message, "502") {
		t.Errorf("no JSON: %v", err)
	}
	if _, err := c.Models(t.Context()); err == nil {
		t.Error("half an answer is no error")
	}
	var u *client.UnreachableError
	if _, err := c.Sessions(t.Context()); !errors.As(err, &u) {
		t.Errorf("hung up: %v", err)
	}
	if _, err := c.Approvals(t.Context()); err == nil {
		t.Error("a redirect was followed")
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, cause)
	defer cancel()
	if _, err := c.Audit(ctx, -1, 1); !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := c.Ask(t.Context(), api.AskRequest{System: strings.Repeat("x", api.MaxBody)}); err == nil || !strings.Contains(err.Error(), "send less") {
		t.Errorf("too long: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	dir := t.TempDir()
	gone := filepath.Join(dir, "gone")
	l, err := net.Listen("unix", gone)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, socket, want string }{
		{"absent", filepath.Join(dir, "absent"), "no such file or directory (start it: systemctl start closedpaw.socket"},
		{"nobody listens", gone, "connection refused (the socket is there and nobody listens"},
		{"a file", file, "connection refused (the socket is there and nobody listens"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for what, call := range map[string]func(*client.Client) error{
				"http": func(c *client.Client) error { _, err := c.Status(t.Context()); return err },
				"upgrade": func(c *client.Client) error {
					f, err := os.Open(dir)
					if err != nil {
						return err
					}
					defer f.Close()
					_, err = c.HandFolder(t.Context(), f)
					return err
				},
			} {
				var u *client.UnreachableError
				if err := call(client.New(c.socket)); !errors.As(err, &u) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// TestTrap has another ordinary user listen: nothing may be sent there.
func TestTrap(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: needs root, to run a process of another user")
	}
	dir, err := os.MkdirTemp("", "cp")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const uid = 54321
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "trap")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bin, self, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(bin)
	cmd.Env = []string{"CLIENT_TEST_TRAP=" + socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	var u *client.UnreachableError
	_, err = client.New(socket).Status(t.Context())
	if !errors.As(err, &u) || !strings.Contains(err.Error(), "uid 54321 listens there, not root") {
		t.Errorf("got %v", err)
	}
}
