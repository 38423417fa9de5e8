package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/closedpaw/closedpaw/client/api"
)

// Errors of a stream.
var (
	ErrCutOff   = errors.New("the stream of closedpawd ended before its last event: it, or a part of it, died; see: closedpawctl status")
	ErrProtocol = errors.New("closedpawd sent what is no event; is closedpawctl of the same version?")
)

// maxEvent bounds one event: a change set is the largest.
const maxEvent = 32 << 20

// Stream is what a request is answered with, event by event.
type Stream struct {
	ctx  context.Context
	body io.ReadCloser
	r    *bufio.Reader
	long []byte
	end  error // set once nothing more will come
}

func (c *Client) stream(ctx context.Context, path string, body any) (*Stream, error) {
	resp, err := c.send(ctx, http.MethodPost, path, body)
	if err != nil {
		return nil, err
	}
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t != "text/event-stream" {
		resp.Body.Close()
		return nil, fmt.Errorf("%w (a stream was due, not %q)", ErrProtocol, t)
	}
	return NewStream(ctx, resp.Body), nil
}

// NewStream reads events from body.
func NewStream(ctx context.Context, body io.ReadCloser) *Stream {
	return &Stream{ctx: ctx, body: body, r: bufio.NewReaderSize(body, 64<<10)}
}

// Next returns the next event. After the final one (done or error) it returns io.EOF; a stream that ends before that
// gives ErrCutOff, one whose context ended the context's cause.
func (s *Stream) Next() (api.Event, error) {
	if s.end != nil {
		return api.Event{}, s.end
	}
	e, err := s.next()
	if err != nil {
		if cause := context.Cause(s.ctx); cause != nil {
			err = cause
		}
		s.end = err
		return api.Event{}, err
	}
	if e.Type == api.EventDone || e.Type == api.EventError {
		s.end = io.EOF
	}
	return e, nil
}

// Close ends the request: the daemon stops what is still going on.
func (s *Stream) Close() error { return s.body.Close() }

func (s *Stream) next() (api.Event, error) {
	var e api.Event
	for {
		line, err := s.line()
		if err != nil {
			return e, err
		}
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		switch {
		case len(line) == 0 || line[0] == ':':
			continue
		case !ok:
			return e, ErrProtocol
		}
		if err := json.Unmarshal(data, &e); err != nil {
			return e, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if !complete(&e) {
			return e, fmt.Errorf("%w: an event %q without its content", ErrProtocol, e.Type)
		}
		// An event counts only with the empty line after it: a cut one must not pass for the last.
		if line, err = s.line(); err != nil {
			return e, err
		}
		if len(line) != 0 {
			return e, ErrProtocol
		}
		return e, nil
	}
}

// complete says that the field which belongs to the type is there, so that nobody else has to look. Types that this
// client does not know pass.
func complete(e *api.Event) bool {
	switch e.Type {
	case "":
		return false
	case api.EventSession:
		return e.Session != nil
	case api.EventToolStarted, api.EventToolFinished:
		return e.Tool != nil
	case api.EventApproval, api.EventAnswered:
		return e.Approval != nil
	case api.EventExit:
		return e.Exit != nil
	case api.EventChanges:
		return e.Changes != nil
	case api.EventApply:
		return e.Apply != nil
	case api.EventUsage:
		return e.Usage != nil
	case api.EventError:
		return e.Error != nil
	case api.EventDone:
		return e.Done != nil
	}
	return true
}

// line returns the next line without its end; it is valid until the next call.
func (s *Stream) line() ([]byte, error) {
	s.long = s.long[:0]
	for {
		b, err := s.r.ReadSlice('\n')
		switch {
		case err == nil && len(s.long) == 0:
			return b[:len(b)-1], nil
		case err == nil:
			s.long = append(s.long, b[:len(b)-1]...)
			return s.long, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, fmt.Errorf("%w (%w)", ErrCutOff, err)
		case len(s.long)+len(b) > maxEvent:
			return nil, fmt.Errorf("%w: an event is larger than %d bytes", ErrProtocol, maxEvent)
		}
		s.long = append(s.long, b...)
	}
}
