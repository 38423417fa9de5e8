// Package sandbox runs commands that nobody trusts, in a machine of their own.
//
// A Runtime gives single-use sandboxes of one isolation tier. A sandbox has no network, none of the person's files but
// a copy-on-write view of one folder at [Workspace], and no way out but the descriptors that a command is given. It is
// never used by two sessions. The package asks the launcher for what needs root and speaks with the sandbox's own
// control interface for the rest; it opens no path of the host.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// Workspace is where a sandbox sees the folder; commands start there.
const Workspace = "/workspace"

// ErrEnded means that the sandbox is not there any more.
var ErrEnded = errors.New("the sandbox has ended")

// Errors of Sandbox.Start that are the command's fault, not the sandbox's.
var (
	ErrNoCommand     = errors.New("no such command in the sandbox")
	ErrNotExecutable = errors.New("the command cannot be executed")
)

// Limits bound one sandbox.
type Limits struct {
	MemoryBytes int64 // of all its processes together where a cgroup can say so, else of each
	Processes   int64
	UpperBytes  int64 // of all that it writes in the workspace
}

// Folder is what a client handed over.
type Folder struct {
	Dir   *os.File
	Owner uint32 // the client's uid, which the launcher compares with the folder's
}

// Runtime makes sandboxes of one tier.
type Runtime interface {
	Tier() string
	// Create starts a sandbox. A nil folder gives it an empty workspace that nobody looks at afterwards.
	Create(ctx context.Context, f *Folder, l Limits) (Sandbox, error)
}

// Sandbox is one that runs. Its methods are safe for concurrent use.
type Sandbox interface {
	// Start runs a command. The files become its 0, 1 and 2 and stay the caller's.
	Start(ctx context.Context, c Command, stdin, stdout, stderr *os.File) (Process, error)
	// Kill ends all its processes for good; the layers stay for Review.
	Kill(ctx context.Context) error
	// Review starts the role that looks at what a killed sandbox did to its folder; the caller runs and closes it.
	Review(ctx context.Context) (*role.Caller, error)
	// Remove ends it and leaves nothing behind.
	Remove(ctx context.Context) error
	// Gone is closed when the sandbox ended, by Kill or by itself.
	Gone() <-chan struct{}
}

// Command is what to run, as the sandbox's ordinary user.
type Command struct {
	Argv []string
	Env  []string // NAME=VALUE, added to the sandbox's own
}

// Process is a started command.
type Process interface {
	Wait(ctx context.Context) (Status, error)
	Kill(ctx context.Context) error
}

// Status is how a command ended.
type Status struct {
	Code       int // 0–255; 128 + Signal where a signal ended it
	Signal     int
	NotStarted bool // there was nothing to run; Code is 126 or 127, as shells have it
}

// StatusOf reads a wait status as Linux makes it.
func StatusOf(ws syscall.WaitStatus) Status {
	if ws.Signaled() {
		return Status{Code: 128 + int(ws.Signal()), Signal: int(ws.Signal())}
	}
	return Status{Code: ws.ExitStatus()}
}

func (s Status) String() string {
	if s.Signal != 0 {
		return fmt.Sprintf("ended by signal %d (%s)", s.Signal, syscall.Signal(s.Signal))
	}
	return fmt.Sprintf("exit code %d", s.Code)
}
