// Package client talks to closedpawd over its UNIX socket.
//
// It guarantees that it speaks only to a daemon that root started (see Client), that a stream which does not end with
// its final event is an error, and that a call ends promptly when its context does. It must never show anything, ask
// anybody or touch the user's files: what it returns comes from strangers, so neutralise it before showing it.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/closedpaw/closedpaw/client/api"
)

// maxAnswer bounds an answer that is no stream.
const maxAnswer = 64 << 20

// Client is a connection pool to one daemon. On each connection the kernel is asked who listens: on Linux that must
// be root, because a socket in a folder that others may write to could be anybody's. Elsewhere no daemon runs and the
// socket can only be forwarded (ssh -L), so there the listener may also be the user.
type Client struct {
	socket string
	http   http.Client
}

// New returns a Client of the daemon that listens on socket.
func New(socket string) *Client {
	c := &Client{socket: socket}
	c.http = http.Client{
		Transport: &http.Transport{
			DialContext:        c.dial,
			DisableCompression: true,
			MaxIdleConns:       2,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status says what runs.
func (c *Client) Status(ctx context.Context) (api.Status, error) {
	return call[api.Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Checks is the daemon's part of doctor.
func (c *Client) Checks(ctx context.Context) ([]api.Check, error) {
	return call[[]api.Check](ctx, c, http.MethodGet, "/v1/checks", nil)
}

// Models lists what `ask -m` takes.
func (c *Client) Models(ctx context.Context) ([]api.Model, error) {
	return call[[]api.Model](ctx, c, http.MethodGet, "/v1/models", nil)
}

// Ask begins a turn of a conversation. Close the stream.
func (c *Client) Ask(ctx context.Context, r api.AskRequest) (*Stream, error) {
	return c.stream(ctx, "/v1/ask", r)
}

// Run runs a command in the sandbox. Close the stream.
func (c *Client) Run(ctx context.Context, r api.RunRequest) (*Stream, error) {
	return c.stream(ctx, "/v1/run", r)
}

// Sessions lists the user's sessions.
func (c *Client) Sessions(ctx context.Context) ([]api.Session, error) {
	return call[[]api.Session](ctx, c, http.MethodGet, "/v1/sessions", nil)
}

// Session returns a session with what was said.
func (c *Client) Session(ctx context.Context, id string) (api.SessionDetail, error) {
	return call[api.SessionDetail](ctx, c, http.MethodGet, "/v1/sessions/"+url.PathEscape(id), nil)
}

// DeleteSession forgets a session; a running one is ended.
func (c *Client) DeleteSession(ctx context.Context, id string) error {
	_, err := call[api.Empty](ctx, c, http.MethodDelete, "/v1/sessions/"+url.PathEscape(id), nil)
	return err
}

// Applied reports what was done with the approved changes of a session.
func (c *Client) Applied(ctx context.Context, id string, r api.ApplyReport) error {
	_, err := call[api.Empty](ctx, c, http.MethodPost, "/v1/sessions/"+url.PathEscape(id)+"/applied", r)
	return err
}

// Approvals lists the user's questions, open and lately closed.
func (c *Client) Approvals(ctx context.Context) ([]api.Approval, error) {
	return call[[]api.Approval](ctx, c, http.MethodGet, "/v1/approvals", nil)
}

// Approval returns one question.
func (c *Client) Approval(ctx context.Context, id string) (api.Approval, error) {
	return call[api.Approval](ctx, c, http.MethodGet, "/v1/approvals/"+url.PathEscape(id), nil)
}

// Answer answers a question.
func (c *Client) Answer(ctx context.Context, id string, a api.Answer) (api.Approval, error) {
	return call[api.Approval](ctx, c, http.MethodPost, "/v1/approvals/"+url.PathEscape(id), a)
}

// Audit returns at most limit records of the log that come after the one with this number; -1 is the start, and an
// empty answer the end.
func (c *Client) Audit(ctx context.Context, after int64, limit int) ([]api.AuditRecord, error) {
	q := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {strconv.Itoa(limit)}}
	return call[[]api.AuditRecord](ctx, c, http.MethodGet, "/v1/audit?"+q.Encode(), nil)
}

// Proof asks for the log's signed checkpoint and for proof that it extends the tree of size records.
func (c *Client) Proof(ctx context.Context, size int64) (api.Proof, error) {
	return call[api.Proof](ctx, c, http.MethodPost, "/v1/audit/proof", api.ProofRequest{Size: size})
}

// call makes one request and decodes its answer. Fields that this client does not know are skipped, so that a newer
// daemon may say more.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var v T
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return v, fmt.Errorf("cannot read the answer of closedpawd: %w", err)
	}
	if len(b) > maxAnswer {
		return v, fmt.Errorf("the answer of closedpawd is larger than %d bytes", maxAnswer)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("cannot understand the answer of closedpawd (is closedpawctl of the same version?): %w", err)
	}
	return v, nil
}

// send makes a request; a status of 400 or more becomes an *api.Error.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		if len(b) > api.MaxBody {
			return nil, fmt.Errorf("the request has %d bytes and may have %d: send less text", len(b), api.MaxBody)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+api.Host+path, r)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.noAnswer(ctx, err)
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, readError(resp)
}

// readError reads the api.Error that a refused request was answered with.
func readError(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	e := new(api.Error)
	if err == nil && json.Unmarshal(b, e) == nil && e.Message != "" {
		return e
	}
	return &api.Error{Code: api.CodeInternal, Message: fmt.Sprintf("closedpawd answered %d and did not say why", resp.StatusCode), Hint: "is it of the same version? see: closedpawctl version"}
}

// noAnswer turns what net/http says about a request without an answer into what a person can use.
func (c *Client) noAnswer(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var u *UnreachableError
	if errors.As(err, &u) {
		return u
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return &UnreachableError{Socket: c.socket, Err: fmt.Errorf("it hung up before it answered: %w", err), Hint: "try again; why may stand in: journalctl -u closedpaw"}
}
