// Package gateway is the main of role gateway: the only process that may reach the network, and so the only one that
// asks a model's server.
//
// Control says which model a stream may ask, an agent asks on it. The gateway holds no conversation, decides nothing
// and knows no other destination than what control named: in this version servers on this machine only. What comes
// from a server, and what an agent sends, is bounded; neither can end the gateway or slow another stream down for long.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/gateway/demo"
	"github.com/closedpaw/closedpaw/daemon/internal/gateway/ollama"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/socket"
	"github.com/closedpaw/closedpaw/daemon/internal/text"
)

// maxServers bounds the servers whose connections are kept.
const maxServers = 4

// gateway is the state of the role.
type gateway struct {
	control *role.Conn
	ctx     context.Context // ends with the role
	wg      sync.WaitGroup

	mu      sync.Mutex
	servers map[string]*ollama.Provider // by URL
}

// Serve answers control until it is gone, then ends all streams.
func Serve(control *role.Conn) error {
	ctx, cancel := context.WithCancel(context.Background())
	g := &gateway{control: control, ctx: ctx, servers: map[string]*ollama.Provider{}}
	defer g.wg.Wait()
	defer cancel()
	for {
		p, err := control.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch m := p.Msg.(type) {
		case *role.ListModels:
			g.wg.Go(func() { g.answer(p.Seq, g.list(m.URL)) })
		case *role.OpenModel:
			g.answer(p.Seq, g.open(m, p.Files[0]))
		default:
			p.Close()
			return fmt.Errorf("%w: %T", role.ErrNotPermitted, m)
		}
	}
}

func (g *gateway) answer(seq uint64, m role.Message) {
	if g.control.Send(seq, m) != nil {
		g.control.Close() // Serve then ends
	}
}

// server returns the provider for a URL; all streams to it share its connections.
func (g *gateway) server(url string) (*ollama.Provider, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.servers[url]; p != nil {
		return p, nil
	}
	p, err := ollama.New(url, 0)
	if err != nil {
		return nil, err
	}
	if len(g.servers) >= maxServers {
		for u, old := range g.servers {
			old.Close()
			delete(g.servers, u)
		}
	}
	g.servers[url] = p
	return p, nil
}

func (g *gateway) list(url string) role.Message {
	models, err := demo.Model{}.Models(g.ctx)
	if err != nil {
		return failed(err)
	}
	out := &role.Models{Models: models}
	p, err := g.server(url)
	if err == nil {
		out.Version, err = p.Version(g.ctx)
	}
	if err == nil {
		models, err = p.Models(g.ctx)
	}
	if err != nil {
		e := problem(err)
		out.Problem, out.Hint = e.Message, e.Hint
		return out
	}
	out.Models = append(out.Models, models...)
	return out
}

func (g *gateway) open(m *role.OpenModel, f *os.File) role.Message {
	defer f.Close() // net.FileConn has its own
	var provider model.Provider
	switch m.Provider {
	case demo.Name:
		provider = demo.Model{}
	case ollama.Name:
		p, err := g.server(m.URL)
		if err != nil {
			return failed(err)
		}
		provider = p
	default:
		return failed(&api.Error{Code: api.CodeBadRequest, Message: fmt.Sprintf("there is no model provider %q", text.Short(m.Provider, 100)), Hint: "providers are ollama and demo"})
	}
	c, err := net.FileConn(f)
	if err != nil {
		return failed(fmt.Errorf("cannot take over a stream: %w", err))
	}
	conn, err := socket.Wrap(c)
	if err != nil {
		c.Close()
		return failed(err)
	}
	g.wg.Go(func() { serveStream(g.ctx, conn, provider, m.Model) })
	return &role.OpenedModel{}
}

// problem is err as a person is told it.
func problem(err error) *api.Error {
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	return &api.Error{Code: api.CodeInternal, Message: text.Short(err.Error(), 300)}
}

func failed(err error) *role.Failed {
	e := problem(err)
	return &role.Failed{Code: e.Code, Text: e.Message, Hint: e.Hint}
}
