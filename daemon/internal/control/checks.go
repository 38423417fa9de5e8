package control

import (
	"fmt"
	"net/http"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// checks is the daemon's part of doctor: what a client cannot see.
func (d *daemon) checks(r *http.Request, _ guard.Caller) ([]api.Check, error) {
	ctx := r.Context()
	host, err := role.Ask[role.CheckedHost](ctx, d.launcher, &role.CheckHost{})
	if err != nil {
		return nil, err
	}
	out := host.Checks
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
	models, version, problem, err := d.sessions.Models(ctx)
	if err != nil {
		return nil, err
	}
	ollama := api.Check{Name: "Ollama", OK: problem == "", Detail: problem, Fix: "start it with: ollama serve"}
	tools := api.Check{Name: "models", Fix: "pull one that can call tools, for example: ollama pull qwen3"}
	n := 0
	for _, m := range models {
		if m.Provider == "ollama" && m.Tools {
			n++
		}
	}
	if problem == "" {
		ollama.Detail, ollama.Fix = fmt.Sprintf("version %s at %s", version, d.config.Ollama), ""
	}
	tools.OK = n > 0
	tools.Detail = fmt.Sprintf("%d of Ollama's can call tools; the built-in one is there: -m demo", n)
	if tools.OK {
		tools.Fix = ""
	}
	return append(out, ollama, tools), nil
}
