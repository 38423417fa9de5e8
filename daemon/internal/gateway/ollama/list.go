package ollama

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/text"
)

const (
	maxModels = 500
	maxName   = 256
	fresh     = time.Minute // how long a list is good for
)

// listed is a model as /api/tags has it.
type listed struct {
	Name         string   `json:"name"`
	Size         int64    `json:"size"`
	Digest       string   `json:"digest"`
	RemoteModel  string   `json:"remote_model"`
	RemoteHost   string   `json:"remote_host"`
	Capabilities []string `json:"capabilities"` // newer servers say it here
}

// cloud says whether Ollama would send what is asked to another machine.
func (l listed) cloud() bool {
	_, tag, _ := strings.Cut(strings.ToLower(l.Name), ":")
	return l.RemoteHost != "" || l.RemoteModel != "" || tag == "cloud" || strings.HasSuffix(tag, "-cloud")
}

// isName holds for what Ollama takes as a name; other text is none, and could be anything.
func isName(s string) bool {
	ok := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.:/@", r)
	}
	return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, func(r rune) bool { return !ok(r) })
}

// Version asks the server for its version.
func (p *Provider) Version(ctx context.Context) (string, error) {
	var v struct {
		Version string `json:"version"`
	}
	err := p.ask(ctx, http.MethodGet, "/api/version", nil, &v)
	return text.Short(v.Version, 100), err
}

// Models lists the models that run on this machine. Cloud models are left out.
func (p *Provider) Models(ctx context.Context) ([]api.Model, error) {
	all, err := p.list(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(slices.Clone(all), listed.cloud)
	out := make([]api.Model, len(all))
	var wg sync.WaitGroup
	turn := make(chan struct{}, 4)
	for i, l := range all {
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			out[i] = api.Model{Name: l.Name, Provider: Name, Size: l.Size, Tools: p.canCallTools(ctx, l)}
		})
	}
	wg.Wait()
	return out, nil
}

func (p *Provider) list(ctx context.Context) ([]listed, error) {
	var tags struct {
		Models []listed `json:"models"`
	}
	if err := p.ask(ctx, http.MethodGet, "/api/tags", nil, &tags); err != nil {
		return nil, err
	}
	all := slices.DeleteFunc(tags.Models, func(l listed) bool { return !isName(l.Name) })
	all = all[:min(len(all), maxModels)]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.models, p.listed = all, time.Now()
	return all, nil
}

// canCallTools is false where the server does not say so.
func (p *Provider) canCallTools(ctx context.Context, l listed) bool {
	if len(l.Capabilities) > 0 {
		return slices.Contains(l.Capabilities, "tools")
	}
	p.mu.Lock()
	can, known := p.tools[l.Digest]
	p.mu.Unlock()
	if known {
		return can
	}
	body, err := json.Marshal(map[string]string{"model": l.Name})
	if err != nil {
		return false
	}
	var show struct {
		Capabilities []string `json:"capabilities"`
	}
	if err := p.ask(ctx, http.MethodPost, "/api/show", body, &show); err != nil {
		return false
	}
	can = slices.Contains(show.Capabilities, "tools")
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.tools) >= maxModels {
		clear(p.tools)
	}
	p.tools[l.Digest] = can
	return can
}

// find returns the server's own name of a model that it has and runs itself. Only what is in the list is asked for:
// other names can make Ollama turn to a machine elsewhere.
func (p *Provider) find(ctx context.Context, name string) (string, error) {
	p.mu.Lock()
	all, at := p.models, p.listed
	p.mu.Unlock()
	l, ok := match(all, name)
	if !ok || time.Since(at) > fresh {
		all, err := p.list(ctx)
		if err != nil {
			return "", err
		}
		if l, ok = match(all, name); !ok {
			return "", missing(name)
		}
	}
	if l.cloud() {
		return "", &api.Error{
			Code:    api.CodeDenied,
			Message: fmt.Sprintf("the model %q does not run on this machine: Ollama would send the conversation to its cloud", l.Name),
			Hint:    "choose one that `closedpawctl models` lists",
		}
	}
	return l.Name, nil
}

func match(all []listed, name string) (listed, bool) {
	i := slices.IndexFunc(all, func(l listed) bool {
		return strings.EqualFold(l.Name, name) || strings.EqualFold(l.Name, name+":latest")
	})
	if i < 0 {
		return listed{}, false
	}
	return all[i], true
}
