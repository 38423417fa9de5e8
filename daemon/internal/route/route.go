// Package route is the one entry for clients: a table of methods, paths, policy actions and handlers.
//
// No request reaches a handler but through the table: a peer that the kernel does not name, an Origin or a Referer, a
// foreign Host, a body that is too long, an unknown field or trailing bytes are refused before, and so is whatever
// policy does not allow. Handlers decide nothing.
package route

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/peer"
	"github.com/closedpaw/closedpaw/policy"
)

// Handler carries out a request that was let through. An error that it returns is told to the client, unless it has
// begun to answer.
type Handler func(w http.ResponseWriter, r *http.Request, c guard.Caller) error

// Route is one line of the table.
type Route struct {
	Pattern string // "GET /v1/sessions/{id}", as http.ServeMux has it
	Action  policy.Action
	On      On
	Handler Handler
}

// Line makes one line of the table.
func Line(pattern string, a policy.Action, on On, h Handler) Route {
	return Route{Pattern: pattern, Action: a, On: on, Handler: h}
}

// On says what kind of resource a route's action is about.
type On int

// The resources: the daemon as a whole, or what the path's {id} names.
const (
	Daemon On = iota
	Session
	Approval
)

// Owners finds whose a thing is.
type Owners interface {
	SessionOwner(id string) (uint32, error)
	ApprovalOwner(id string) (uint32, error)
}

// Mux serves the table.
type Mux struct {
	mux    *http.ServeMux
	guard  *guard.Guard
	owners Owners
}

// New makes a Mux of the table. A route without an action or a handler is a programming error.
func New(g *guard.Guard, o Owners, table []Route) *Mux {
	m := &Mux{mux: http.NewServeMux(), guard: g, owners: o}
	for _, rt := range table {
		if rt.Action == "" || rt.Handler == nil {
			panic(fmt.Sprintf("route %s has no action or no handler", rt.Pattern))
		}
		m.mux.HandleFunc(rt.Pattern, func(w http.ResponseWriter, r *http.Request) { m.serve(rt, w, r) })
	}
	m.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, &api.Error{Code: api.CodeNotFound, Message: "there is no " + r.Method + " " + r.URL.Path, Hint: "client and daemon may be of different versions"})
	})
	return m
}

// ServeHTTP implements http.Handler.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A browser that was lured here sends these; our own clients never do.
	if r.Header.Get("Origin") != "" || r.Header.Get("Referer") != "" || r.Host != api.Host {
		fail(w, &api.Error{Code: api.CodeBadRequest, Message: "refused: this is not for browsers", Hint: "use closedpawctl"})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, api.MaxBody)
	m.mux.ServeHTTP(w, r)
}

func (m *Mux) serve(rt Route, w http.ResponseWriter, r *http.Request) {
	c, err := m.admit(r.Context(), rt, r.PathValue("id"))
	if err == nil {
		err = rt.Handler(w, r, c)
	}
	if err != nil {
		fail(w, err)
	}
}

func (m *Mux) admit(ctx context.Context, rt Route, id string) (guard.Caller, error) {
	who, err := peer.From(ctx)
	if err != nil {
		return guard.Caller{}, err
	}
	var res policy.Resource = policy.Daemon{}
	var owner uint32
	switch rt.On {
	case Session:
		owner, err = m.owners.SessionOwner(id)
		res = policy.Session{ID: id, Owner: owner}
	case Approval:
		owner, err = m.owners.ApprovalOwner(id)
		res = policy.Approval{ID: id, Owner: owner}
	}
	if err != nil {
		return guard.Caller{}, err
	}
	c, err := m.guard.Admit(ctx, who, rt.Action, res)
	var no *guard.Denied
	if rt.On != Daemon && who.UID != owner && who.UID != 0 && (errors.As(err, &no) || errors.Is(err, guard.ErrTooMany)) {
		err = guard.ErrNotFound // nobody learns what others have
	}
	return c, err
}
