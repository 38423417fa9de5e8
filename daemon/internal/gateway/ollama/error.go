package ollama

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/text"
)

// errSilent ends an answer in which nothing comes any more.
var errSilent = errors.New("ollama is silent")

// unreachable explains err of a request that was not answered.
func (p *Provider) unreachable(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errSilent), errors.Is(cause, context.DeadlineExceeded):
		return &api.Error{
			Code:    api.CodeTimeout,
			Message: fmt.Sprintf("Ollama at %s does not answer", p.base),
			Hint:    "see what it does with `ollama ps`, or restart it",
		}
	case cause != nil:
		return &api.Error{Code: api.CodeCancelled, Message: "the question was cancelled"}
	}
	return &api.Error{
		Code:    api.CodeUnavailable,
		Message: fmt.Sprintf("cannot reach Ollama at %s: %s", p.base, text.Short(rootText(err), 200)),
		Hint:    "start it with `ollama serve`, or use the built-in model with `-m demo`",
	}
}

// rootText is the innermost error's: the layers above repeat the URL.
func rootText(err error) string {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err.Error()
		}
		err = next
	}
}

// refused explains an answer that is an error; name is the model's that was asked for, if one was.
func (p *Provider) refused(name string, status int, said string) error {
	said = text.Short(said, 300)
	switch {
	case strings.Contains(said, "does not support tools"):
		return &api.Error{
			Code:    api.CodeModel,
			Message: fmt.Sprintf("the model %q cannot call tools", name),
			Hint:    "choose another with -m; `closedpawctl models` shows which can",
		}
	case name != "" && status == http.StatusNotFound:
		return missing(name)
	}
	return &api.Error{
		Code:    api.CodeModel,
		Message: fmt.Sprintf("Ollama at %s failed: %s", p.base, said),
		Hint:    "its log says more: `journalctl -u ollama`, or where `ollama serve` runs",
	}
}

func missing(name string) error {
	name = text.Short(name, 200)
	return &api.Error{
		Code:    api.CodeNotFound,
		Message: fmt.Sprintf("Ollama has no model %q", name),
		Hint:    fmt.Sprintf("get it with `ollama pull %s`, or choose one that `closedpawctl models` lists", name),
	}
}

func (p *Provider) nonsense(err error) error {
	return &api.Error{
		Code:    api.CodeModel,
		Message: fmt.Sprintf("cannot understand the answer of %s: %s", p.base, text.Short(err.Error(), 200)),
		Hint:    "is that really Ollama? `ollama --version` and its OLLAMA_HOST say where it listens",
	}
}

func (p *Provider) cutOff() error {
	return &api.Error{
		Code:    api.CodeModel,
		Message: "the model's answer was cut off",
		Hint:    "Ollama stopped in the middle: see that it runs and has memory enough, then ask again",
	}
}
