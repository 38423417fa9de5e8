// Package tool is what a model can do: the built-in tools, each a command in the session's sandbox.
//
// A tool call becomes an Invocation by strict parsing; what runs is exactly what Bytes says, and it runs only with a
// permit of the guard for those bytes. No tool touches the host: not a path, not a socket, not the daemon's state.
package tool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/sandbox"
	"github.com/closedpaw/closedpaw/daemon/internal/wire"
)

// ErrUnknown means that there is no such tool.
var ErrUnknown = errors.New("no such tool")

// Invocation is one parsed call.
type Invocation struct {
	Name    string
	Shown   string // the command or the path, for people
	Summary string // one sentence: what will happen
	Detail  string // all of it, as a person who is asked reads it
	args    any
	command sandbox.Command
	stdin   []byte
	exact   bool // the output is a file: no gap in its middle
}

// Result is what the model is told.
type Result struct {
	Text   string // at most role.MaxToolResult, valid UTF-8
	Status sandbox.Status
}

type shellArgs struct {
	Command string `json:"command"`
}

type readArgs struct {
	Path string `json:"path"`
}

type writeArgs struct {
	Path    string  `json:"path"`
	Content *string `json:"content"`
}

// Parse makes a model's call an Invocation. Its errors are for the model to read.
func Parse(name string, args json.RawMessage) (*Invocation, error) {
	if len(args) > role.MaxToolArgs {
		return nil, fmt.Errorf("arguments of %d bytes are more than %d", len(args), role.MaxToolArgs)
	}
	switch name {
	case "shell":
		var a shellArgs
		if err := decode(args, &a); err != nil {
			return nil, err
		}
		if a.Command == "" {
			return nil, errors.New(`"command" is missing`)
		}
		return &Invocation{Name: name, Shown: a.Command, Detail: a.Command, Summary: "run a command in the sandbox", args: a,
			command: sandbox.Command{Argv: []string{"/bin/sh", "-c", a.Command}}}, nil
	case "read_file":
		var a readArgs
		if err := decode(args, &a); err != nil {
			return nil, err
		}
		if err := path(a.Path); err != nil {
			return nil, err
		}
		return &Invocation{Name: name, Shown: a.Path, Detail: a.Path, Summary: "read a file in the sandbox", args: a, exact: true,
			command: sandbox.Command{Argv: []string{"/usr/bin/head", "-c", fmt.Sprint(role.MaxToolResult + 1), "--", a.Path}}}, nil
	case "write_file":
		var a writeArgs
		if err := decode(args, &a); err != nil {
			return nil, err
		}
		if err := path(a.Path); err != nil {
			return nil, err
		}
		if a.Content == nil {
			return nil, errors.New(`"content" is missing`)
		}
		const script = `mkdir -p -- "$(dirname -- "$1")" && cat > "$1"`
		return &Invocation{Name: name, Shown: a.Path, Detail: a.Path + "\n" + *a.Content, Summary: "write a file in the sandbox", args: a, stdin: []byte(*a.Content),
			command: sandbox.Command{Argv: []string{"/bin/sh", "-c", script, "sh", a.Path}}}, nil
	}
	return nil, fmt.Errorf("%w: %q", ErrUnknown, name)
}

// Bytes is what is decided on, audited and run: the tool with its arguments as parsed.
func (v *Invocation) Bytes() []byte {
	b, err := json.Marshal(struct {
		Tool string `json:"tool"`
		Args any    `json:"args"`
	}{v.Name, v.args})
	if err != nil { // three structs of strings
		panic(err)
	}
	return b
}

// Run carries the call out in box, for at most limit. The permit must be for exactly this invocation and is used up.
func (v *Invocation) Run(ctx context.Context, permit *guard.Permit, box sandbox.Sandbox, limit time.Duration) (Result, error) {
	if err := permit.Use(v.Bytes()); err != nil {
		return Result{}, err
	}
	out, status, err := collect(ctx, box, v.command, v.stdin, limit)
	if errors.Is(err, errTooLong) {
		return Result{Text: fmt.Sprintf("%s\n[stopped: it ran longer than %s]", out, limit), Status: status}, nil
	}
	if err != nil {
		return Result{}, err
	}
	return Result{Text: v.text(out, status), Status: status}, nil
}

func (v *Invocation) text(out *output, s sandbox.Status) string {
	t := out.String()
	switch {
	case v.exact && s.Code == 0 && out.missing() > 0:
		return valid(string(out.head)) + "\n[truncated]"
	case v.Name == "write_file" && s.Code == 0:
		return fmt.Sprintf("wrote %d bytes to %s", len(v.stdin), v.Shown)
	case s.Code == 0:
		return t
	}
	if t != "" && t[len(t)-1] != '\n' {
		t += "\n"
	}
	return t + "[" + s.String() + "]"
}

func path(p string) error {
	switch {
	case p == "":
		return errors.New(`"path" is missing`)
	case bytes.IndexByte([]byte(p), 0) >= 0:
		return errors.New(`"path" has a zero byte`)
	case len(p) > 4096:
		return errors.New(`"path" is too long`)
	}
	return nil
}

func decode(b []byte, v any) error {
	if err := wire.Decode(b, v); err != nil {
		return fmt.Errorf("bad arguments: %w", err)
	}
	return nil
}
