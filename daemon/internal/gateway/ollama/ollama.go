// Package ollama asks the models of an Ollama server on this machine, by its own API.
//
// It speaks to a loopback address only: names are never resolved, no proxy is used, no redirect is followed, and a
// model that Ollama itself would run elsewhere ("cloud" models) is refused, so what is asked stays on the machine. The
// server is not trusted: all that it sends is bounded, in size and in time, and an answer that does not end with
// done:true has failed. It never makes Ollama pull a model.
//
// The requests are our own and not those of github.com/ollama/ollama/api: that client reads its host and a signing key
// from the environment and the user's home, decodes each line of a stream twice, and reads error bodies without a
// bound. Its tests are the real server.
package ollama

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/socket"
	"github.com/closedpaw/closedpaw/daemon/internal/text"
)

// Name is how control calls this provider.
const Name = "ollama"

const (
	maxHeader = 64 << 10
	maxBody   = 4 << 20 // of an answer that is no stream
	maxLine   = 1 << 20 // of a stream
	quick     = 10 * time.Second
	patience  = 10 * time.Minute // a large model on a slow disk, or a long prompt on a slow CPU, says nothing for minutes
)

// Provider asks one server. It is safe for concurrent use.
type Provider struct {
	base     string // without a slash at the end
	client   *http.Client
	patience time.Duration // longest silence within an answer

	mu     sync.Mutex
	models []listed
	listed time.Time       // when models was asked for
	tools  map[string]bool // by digest: the model can call tools
}

// New returns the provider for the server at rawURL, as http://127.0.0.1:11434. Nothing is sent yet. Silence for longer
// than patience in the middle of an answer ends it; 0 means ten minutes.
func New(rawURL string, silence time.Duration) (*Provider, error) {
	if err := checkURL(rawURL); err != nil {
		return nil, err
	}
	if silence == 0 {
		silence = patience
	}
	return &Provider{
		base:     strings.TrimSuffix(rawURL, "/"),
		patience: silence,
		tools:    map[string]bool{},
		client: &http.Client{
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					c, err := dial(ctx, network, address)
					if err != nil {
						return nil, err
					}
					return socket.Wrap(c)
				},
				MaxIdleConnsPerHost:    16,
				IdleConnTimeout:        5 * time.Minute,
				MaxResponseHeaderBytes: maxHeader,
				DisableCompression:     true,
				ReadBufferSize:         64 << 10,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Close drops idle connections.
func (p *Provider) Close() { p.client.CloseIdleConnections() }

func checkURL(raw string) error {
	bad := func(why string) error {
		return &api.Error{
			Code:    api.CodeBadRequest,
			Message: fmt.Sprintf("cannot use %q as Ollama's URL: %s", text.Short(raw, 200), why),
			Hint:    "only a server on this machine is asked, as http://127.0.0.1:11434",
		}
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return bad("it is no URL")
	case u.Scheme != "http":
		return bad("it does not begin with http://")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return bad("it has more than a host and a port")
	}
	if u.Hostname() == "localhost" {
		return nil
	}
	a, err := netip.ParseAddr(u.Hostname())
	if err != nil || !loopback(a) {
		return bad("its host is not 127.0.0.1, [::1] or localhost")
	}
	return nil
}

func loopback(a netip.Addr) bool {
	return a.Zone() == "" && (a.Is4() && a.IsLoopback() || a == netip.IPv6Loopback())
}

// dial reaches loopback only, whatever it is asked for; localhost means both of its addresses, without a resolver.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		if ap, err := netip.ParseAddrPort(address); err != nil || !loopback(ap.Addr()) {
			return fmt.Errorf("cannot dial %s: not on this machine", address)
		}
		return nil
	}}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if host != "localhost" {
		return d.DialContext(ctx, network, address)
	}
	c, err := d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		if c6, err6 := d.DialContext(ctx, network, net.JoinHostPort("::1", port)); err6 == nil {
			return c6, nil
		}
	}
	return c, err
}

// send sends a request; any answer but 200 is an error. The caller closes the body.
func (p *Provider) send(ctx context.Context, method, path, name string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.base+path, strings.NewReader(string(body)))
	if err != nil {
		return nil, fmt.Errorf("cannot make a request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "closedpaw")
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, p.unreachable(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxHeader))
	var said struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(b, &said) != nil || said.Error == "" {
		said.Error = resp.Status
	}
	return nil, p.refused(name, resp.StatusCode, said.Error)
}

// ask sends a request and decodes the whole answer into v. Fields that it does not know are Ollama's business.
func (p *Provider) ask(ctx context.Context, method, path string, body []byte, v any) error {
	ctx, cancel := context.WithTimeout(ctx, quick)
	defer cancel()
	resp, err := p.send(ctx, method, path, "", body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return p.unreachable(ctx, err)
	case len(b) > maxBody:
		return p.nonsense(errors.New("it is too long"))
	}
	if err := json.Unmarshal(b, v); err != nil {
		return p.nonsense(err)
	}
	return nil
}
