package control

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// hostTime is how long what the launcher found is good for.
const hostTime = 5 * time.Second

// host keeps what the launcher found: it starts a process for each look, on the one thread that starts sandboxes for all.
type host struct {
	one  sync.Mutex // one asks at a time
	last []api.Check
	when time.Time
}

func (h *host) checks(ctx context.Context, launcher *role.Caller) ([]api.Check, error) {
	h.one.Lock()
	defer h.one.Unlock()
	if h.last == nil || time.Since(h.when) > hostTime {
		// Not given up with the client that asks: else the next one would ask again at once.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), role.Timeout)
		defer cancel()
		a, err := role.Ask[role.CheckedHost](ctx, launcher, &role.CheckHost{})
		if err != nil {
			return nil, err
		}
		h.last, h.when = a.Checks, time.Now()
	}
	return slices.Clone(h.last), nil
}

// checks is the daemon's part of doctor: what a client cannot see.
func (d *daemon) checks(r *http.Request, _ guard.Caller) ([]api.Check, error) {
	ctx := r.Context()
	out, err := d.host.checks(ctx, d.launcher)
	if err != nil {
		return nil, err
	}
	p := d.bundle.Profile()
	out = append(out, api.Check{Name: "policy", OK: true, Needed: true,
		Detail: fmt.Sprintf("serial %d, asks for tier %s or stronger, %d tools", d.bundle.Serial(), p.Tier, len(d.bundle.Tools()))})
	log := api.Check{Name: "audit log", OK: true, Needed: true}
	if page, err := d.audit.Read(ctx, -1, 1, -1); err != nil {
		log.OK, log.Detail, log.Fix = false, err.Error(), "look at the journal: journalctl -u closedpaw"
	} else {
		log.Detail = fmt.Sprintf("%d records; check them with: closedpawctl audit verify", page.Size)
	}
	out = append(out, log)
	m, err := d.sessions.Models(ctx)
	if err != nil {
		return nil, err
	}
	ollama := api.Check{Name: "Ollama", OK: m.Problem == "", Detail: m.Problem, Fix: m.Hint}
	tools := api.Check{Name: "models", Fix: "pull one that can call tools, for example: ollama pull qwen3"}
	n := 0
	for _, o := range m.Models {
		if o.Provider == "ollama" && o.Tools {
			n++
		}
	}
	if m.Problem == "" {
		ollama.Detail = fmt.Sprintf("version %s at %s", m.Version, d.config.Ollama)
	}
	tools.OK = n > 0
	tools.Detail = fmt.Sprintf("%d of Ollama's can call tools; the built-in one is there: -m demo", n)
	if tools.OK {
		tools.Fix = ""
	}
	return append(out, ollama, tools), nil
}
