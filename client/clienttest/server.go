// Package clienttest plays a daemon for tests of clients: a real HTTP server on a UNIX socket whose answers are scripted.
//
// It checks what the daemon checks of every request (Host, Origin, Referer) and does nothing for real: tests of what
// ClosedPaw does run against closedpawd.
package clienttest

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
)

// Server is a scripted daemon.
type Server struct {
	*http.ServeMux
	Socket string

	t      testing.TB
	mu     sync.Mutex
	handed map[string][]*os.File
}

// Start serves until the test ends. A client trusts only a socket of root's, so without root the test is skipped.
func Start(t testing.TB) *Server {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: needs root, as a client trusts only a socket on which root listens")
	}
	dir, err := os.MkdirTemp("", "cp") // a short path: a socket's may have 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{ServeMux: http.NewServeMux(), Socket: filepath.Join(dir, "s"), t: t, handed: map[string][]*os.File{}}
	l, err := net.Listen("unix", s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(s.Socket, 0o666); err != nil {
		t.Fatal(err)
	}
	s.HandleFunc("POST /v1/handover", s.handover)
	srv := &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(l) }() // it ends with the test
	t.Cleanup(func() {
		srv.Close()
		os.RemoveAll(dir)
		for _, files := range s.handed {
			for _, f := range files {
				f.Close()
			}
		}
	})
	return s
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if r.Host != api.Host || r.Header.Get("Origin") != "" || r.Header.Get("Referer") != "" {
		s.t.Errorf("a request with Host %q, Origin %q, Referer %q", r.Host, r.Header.Get("Origin"), r.Header.Get("Referer"))
	}
	s.ServeMux.ServeHTTP(w, r)
}

// JSON answers with v.
func JSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	encode(w, v)
}

// Error answers with e.
func Error(w http.ResponseWriter, status int, e api.Error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encode(w, e)
}

func encode(w io.Writer, v any) {
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// Send writes events of a stream and flushes.
func Send(w http.ResponseWriter, events ...api.Event) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, e := range events {
		b, err := json.Marshal(e)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(w, "data: %s\n\n", b)
	}
	w.(http.Flusher).Flush()
}

// Handed returns the descriptors that were handed over under a token.
func (s *Server) Handed(token string) []*os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handed[token]
}

// Upgrade leaves HTTP. The caller closes the connection.
func Upgrade(w http.ResponseWriter) (*net.UnixConn, error) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	u := conn.(*net.UnixConn)
	_, err = u.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + api.UpgradeProtocol + "\r\n\r\n"))
	return u, err
}

// SendFile sends an approved file as the daemon does.
func SendFile(u *net.UnixConn, f *os.File) error {
	_, _, err := u.WriteMsgUnix([]byte("F"), unix.UnixRights(int(f.Fd())), nil)
	return err
}

func (s *Server) handover(w http.ResponseWriter, r *http.Request) {
	kind := r.URL.Query().Get("kind")
	u, err := Upgrade(w)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer u.Close()
	b, oob := make([]byte, 2), make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := u.ReadMsgUnix(b, oob)
	if err != nil || n != 1 || b[0] != 'D' {
		s.t.Errorf("handover of kind %q: %q, %v", kind, b[:n], err)
		return
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		s.t.Error(err)
		return
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			s.t.Error(err)
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), kind))
		}
	}
	s.mu.Lock()
	token := fmt.Sprintf("%s-%d", kind, len(s.handed))
	s.handed[token] = files
	s.mu.Unlock()
	encode(u, api.Handover{Token: token})
}
