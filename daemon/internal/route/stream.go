package route

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/peer"
	"github.com/closedpaw/closedpaw/daemon/internal/session"
)

// slowClient is how long a client may take to read what is written to it.
const slowClient = time.Minute

// Stream decodes the body strictly and answers with a stream of events. An error after the first event becomes the last one.
func Stream[Req any](f func(r *http.Request, c guard.Caller, in Req, out session.Sink) error) Handler {
	return func(w http.ResponseWriter, r *http.Request, c guard.Caller) error {
		in, err := decode[Req](w, r)
		if err != nil {
			return err
		}
		s := &sink{w: w, rc: http.NewResponseController(w)}
		if err = f(r, c, in, s); err == nil {
			return nil
		}
		if !s.open {
			return err
		}
		_ = s.Send(api.Event{Type: api.EventError, Error: Explain(err)}, false) // the client may be gone
		return nil
	}
}

// sink writes events as Server-Sent Events and flushes when no other is ready.
type sink struct {
	mu   sync.Mutex
	w    http.ResponseWriter
	rc   *http.ResponseController
	open bool
	buf  []byte
}

// Send implements session.Sink.
func (s *sink) Send(e api.Event, more bool) error {
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("cannot encode an event: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.open {
		s.open = true
		s.w.Header().Set("Content-Type", "text/event-stream")
		s.w.Header().Set("Cache-Control", "no-store")
	}
	s.buf = append(append(append(s.buf[:0], "data: "...), b...), "\n\n"...)
	if err := s.rc.SetWriteDeadline(time.Now().Add(slowClient)); err != nil {
		return err
	}
	if _, err := s.w.Write(s.buf); err != nil {
		return fmt.Errorf("cannot reach the client: %w", err)
	}
	if more {
		return nil
	}
	if err := s.rc.Flush(); err != nil {
		return fmt.Errorf("cannot reach the client: %w", err)
	}
	return nil
}

// Upgrade leaves HTTP, so that descriptors can pass, and gives the connection to f, which must not keep it.
func Upgrade(f func(r *http.Request, c guard.Caller, u *net.UnixConn) error) Handler {
	return func(w http.ResponseWriter, r *http.Request, c guard.Caller) error {
		if r.Header.Get("Upgrade") != api.UpgradeProtocol || r.ContentLength > 0 {
			return &api.Error{Code: api.CodeBadRequest, Message: "this needs an upgrade to " + api.UpgradeProtocol}
		}
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return fmt.Errorf("cannot upgrade: %w", err)
		}
		defer conn.Close()
		p, ok := conn.(*peer.Conn)
		if !ok || rw.Reader.Buffered() > 0 || p.SetDeadline(time.Now().Add(slowClient)) != nil {
			return nil // what was sent before the 101 has lost its descriptors; there is no way to answer any more
		}
		const head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + api.UpgradeProtocol + "\r\n\r\n"
		if _, err := p.Write([]byte(head)); err != nil {
			return nil
		}
		if err := f(r, c, p.UnixConn); err != nil {
			if b, err := json.Marshal(api.Handover{Error: Explain(err)}); err == nil {
				_, _ = p.Write(append(b, '\n')) // the client may be gone
			}
		}
		return nil
	}
}
