package session

import (
	"context"
	"strings"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// Providers of models.
const (
	providerOllama = "ollama"
	providerDemo   = "demo" // also its only model's name
)

// Models lists what can be asked; the one that is taken when nobody names one is marked.
func (m *Manager) Models(ctx context.Context) (*role.Models, error) {
	ctx, cancel := context.WithTimeout(ctx, role.Timeout)
	defer cancel()
	a, err := role.Ask[role.Models](ctx, m.Gateway, &role.ListModels{URL: m.Ollama})
	if err != nil {
		return nil, err
	}
	chosen := m.choose(a.Models)
	for i := range a.Models {
		a.Models[i].Default = a.Models[i].Name == chosen
	}
	return a, nil
}

// local says that what the model is told stays on this machine: Ollama forwards to others what is named so.
func local(provider, name string) bool {
	return provider == providerDemo || !strings.HasSuffix(name, "-cloud") && !strings.HasSuffix(name, ":cloud")
}

// choose is what is asked when nobody names a model; "" if there is none that fits.
func (m *Manager) choose(list []api.Model) string {
	if m.Model != "" {
		return m.Model
	}
	for _, o := range list {
		if o.Provider == providerOllama && o.Tools {
			return o.Name
		}
	}
	return ""
}

// resolve finds the model that was asked for, and who has it.
func (m *Manager) resolve(ctx context.Context, name string) (model, provider string, err error) {
	if name == "" {
		name = m.Model
	}
	if name == "" {
		a, err := m.Models(ctx)
		if err != nil {
			return "", "", err
		}
		if name = m.choose(a.Models); name == "" {
			why, hint := a.Problem, a.Hint
			if why == "" {
				why, hint = "Ollama has no model that can call tools", "pull one, name one with -m, or try the built-in one with: -m demo"
			}
			return "", "", &api.Error{Code: api.CodeModel, Message: "no model to ask: " + why, Hint: hint}
		}
	}
	if name == providerDemo {
		return name, providerDemo, nil
	}
	return name, providerOllama, nil
}
