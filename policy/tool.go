package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// Tool is one that a model is offered, as tools.json has it. It is the Resource of ActionToolCall.
type Tool struct {
	Name        string          `json:"name"`
	Description string          `json:"description"` // the model reads it
	Schema      json.RawMessage `json:"schema"`      // JSON schema of the arguments, an object; compact
	Builtin     bool            `json:"builtin"`     // the daemon has it under this name
	Effect      string          `json:"effect"`      // EffectSandbox
	Output      string          `json:"output"`      // OutputWorld
}

// Labels of tools. There is only the careful one of each: a tool that reaches out of the sandbox, or whose output is
// to be trusted, is not offered yet.
const (
	EffectSandbox = "sandbox" // what it does, it does to the copy of the folder, without a network
	OutputWorld   = "world"   // anybody may have written what it says
)

const (
	maxTools       = 64
	maxDescription = 2000
	maxSchema      = 16 << 10
)

var toolPattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// ParseTools reads tools.json strictly.
func ParseTools(b []byte) ([]Tool, error) {
	var file struct {
		Version int    `json:"version"`
		Tools   []Tool `json:"tools"`
	}
	if err := strict(b, &file); err != nil {
		return nil, err
	}
	if file.Version != 1 {
		return nil, errors.New("version: must be 1")
	}
	if len(file.Tools) > maxTools {
		return nil, fmt.Errorf("tools: there are more than %d", maxTools)
	}
	for i, t := range file.Tools {
		if !toolPattern.MatchString(t.Name) {
			return nil, fmt.Errorf("tools: the name %.80q must be of lower-case letters, digits and _, at most 64", t.Name)
		}
		if slices.ContainsFunc(file.Tools[:i], func(o Tool) bool { return o.Name == t.Name }) {
			return nil, fmt.Errorf("tools: %s stands twice", t.Name)
		}
		if err := t.check(); err != nil {
			return nil, fmt.Errorf("tools: %s: %w", t.Name, err)
		}
		compact := jsontext.Value(t.Schema)
		if err := compact.Compact(); err != nil {
			return nil, fmt.Errorf("tools: %s: schema: %w", t.Name, err)
		}
		file.Tools[i].Schema = json.RawMessage(compact)
	}
	return file.Tools, nil
}

func (t Tool) check() error {
	switch {
	case t.Description == "" || len(t.Description) > maxDescription:
		return fmt.Errorf("description: must have 1 to %d bytes", maxDescription)
	case !t.Builtin:
		return errors.New("builtin: must be true; tools of your own are not offered yet")
	case t.Effect != EffectSandbox:
		return fmt.Errorf("effect: must be %q", EffectSandbox)
	case t.Output != OutputWorld:
		return fmt.Errorf("output: must be %q", OutputWorld)
	case len(t.Schema) > maxSchema:
		return fmt.Errorf("schema: is bigger than %d bytes", maxSchema)
	}
	var schema struct {
		Type       string                     `json:"type"`
		Properties map[string]json.RawMessage `json:"properties"`
	}
	if err := json.Unmarshal(t.Schema, &schema); err != nil || schema.Type != "object" {
		return errors.New(`schema: must be a JSON schema with "type": "object"`)
	}
	return nil
}
