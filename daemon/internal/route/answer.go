package route

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/approval"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/peer"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/session"
	"github.com/closedpaw/closedpaw/daemon/internal/wire"
)

// codes maps what can go wrong to what a client is told; the first that fits counts.
var codes = []struct {
	err  error
	code api.Code
	hint string
}{
	{guard.ErrNotFound, api.CodeNotFound, "list what there is with: closedpawctl session list, closedpawctl pending"},
	{guard.ErrTooMany, api.CodeTooMany, "wait an hour; why the first were refused stands in the audit log"},
	{session.ErrNotFound, api.CodeNotFound, "list what there is with: closedpawctl session list"},
	{approval.ErrNotFound, api.CodeNotFound, "list what there is with: closedpawctl pending"},
	{approval.ErrNotYours, api.CodeDenied, "only the user who asked can answer"},
	{approval.ErrAnswered, api.CodeConflict, "list what still waits with: closedpawctl pending"},
	{approval.ErrDigest, api.CodeConflict, "look at the question again and answer it once more"},
	{session.ErrBusy, api.CodeConflict, "wait for it to end, or begin another session"},
	{session.ErrTooMany, api.CodeTooMany, ""},
	{role.ErrGone, api.CodeUnavailable, "the daemon is going to restart; try again in a moment"},
	{peer.ErrUnknown, api.CodeDenied, ""},
}

// status maps codes to HTTP.
var status = map[api.Code]int{
	api.CodeBadRequest: http.StatusBadRequest, api.CodeDenied: http.StatusForbidden, api.CodeNotFound: http.StatusNotFound,
	api.CodeConflict: http.StatusConflict, api.CodeTooMany: http.StatusTooManyRequests, api.CodeUnavailable: http.StatusServiceUnavailable,
	api.CodeModel: http.StatusBadGateway, api.CodeTimeout: http.StatusGatewayTimeout, api.CodeCancelled: 499,
}

// Explain makes any error one for a client.
func Explain(err error) *api.Error {
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	var no *guard.Denied
	if errors.As(err, &no) {
		return &api.Error{Code: api.CodeDenied, Message: no.Reason, Hint: no.Hint}
	}
	var f *role.Failed
	if errors.As(err, &f) {
		return &api.Error{Code: f.Code, Message: err.Error(), Hint: f.Hint}
	}
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		return &api.Error{Code: api.CodeBadRequest, Message: "the request is too long", Hint: "send less at once"}
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return &api.Error{Code: c.code, Message: err.Error(), Hint: c.hint}
		}
	}
	return &api.Error{Code: api.CodeInternal, Message: err.Error(), Hint: "the journal says more: journalctl -u closedpaw"}
}

func fail(w http.ResponseWriter, err error) {
	e := Explain(err)
	code := status[e.Code]
	if code == 0 {
		code = http.StatusInternalServerError
	}
	reply(w, code, e)
}

func reply(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"code":"internal","message":"cannot encode the answer"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) // the client may be gone
}

// Get answers with what f returns.
func Get[Resp any](f func(r *http.Request, c guard.Caller) (Resp, error)) Handler {
	return func(w http.ResponseWriter, r *http.Request, c guard.Caller) error {
		out, err := f(r, c)
		if err == nil {
			reply(w, http.StatusOK, out)
		}
		return err
	}
}

// Post decodes the body strictly and answers with what f returns.
func Post[Req, Resp any](f func(r *http.Request, c guard.Caller, in Req) (Resp, error)) Handler {
	return func(w http.ResponseWriter, r *http.Request, c guard.Caller) error {
		in, err := decode[Req](w, r)
		if err != nil {
			return err
		}
		out, err := f(r, c, in)
		if err == nil {
			reply(w, http.StatusOK, out)
		}
		return err
	}
}

// bodyTime is how long a client may take to send a body.
const bodyTime = 30 * time.Second

func decode[Req any](w http.ResponseWriter, r *http.Request) (in Req, err error) {
	// Lifted afterwards: a connection that stays readable is how the end of the client is seen.
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		return in, err
	}
	if in, err = Decode[Req](r.Body); err != nil {
		return in, err
	}
	return in, rc.SetReadDeadline(time.Time{})
}

// Decode reads one JSON value to its end: known fields, nothing behind it.
func Decode[Req any](body io.Reader) (in Req, err error) {
	b, err := io.ReadAll(body)
	if err == nil {
		err = wire.Decode(b, &in)
	}
	var long *http.MaxBytesError
	if err == nil || errors.As(err, &long) {
		return in, err
	}
	return in, &api.Error{Code: api.CodeBadRequest, Message: "cannot read the request: " + err.Error(), Hint: "client and daemon may be of different versions"}
}
