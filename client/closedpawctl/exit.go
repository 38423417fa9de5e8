package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/closedpaw/closedpaw/client"
	"github.com/closedpaw/closedpaw/client/api"
)

// The exit codes; the long help explains them.
const (
	exitError       = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitDenied      = 4
	exitTimeout     = 5
	exitRun         = 125 // run: it was not the command that failed
	exitInterrupted = 130
)

var errInterrupted = errors.New("interrupted")

// exitStatus ends the program with a code; what there is to say was said.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// usageError is the caller's mistake.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// timeoutError means that --timeout is over.
type timeoutError struct{ after time.Duration }

func (e timeoutError) Error() string {
	return fmt.Sprintf("it took longer than %s (give it longer: --timeout)", e.after)
}

// exitCode is the one place that maps errors to codes.
func exitCode(err error, run bool) int {
	if err == nil {
		return 0
	}
	var status exitStatus
	switch {
	case errors.As(err, &status):
		return int(status)
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case run:
		return exitRun
	case errors.As(err, new(usageError)):
		return exitUsage
	case errors.As(err, new(timeoutError)):
		return exitTimeout
	case errors.As(err, new(*client.UnreachableError)):
		return exitUnreachable
	}
	var e *api.Error
	if errors.As(err, &e) {
		switch e.Code {
		case api.CodeDenied:
			return exitDenied
		case api.CodeTimeout:
			return exitTimeout
		case api.CodeCancelled:
			return exitInterrupted
		}
	}
	return exitError
}

// cannot says what failed, unless the error says so itself or is none of a failure.
func cannot(do string, err error) error {
	if err == nil || strings.HasPrefix(err.Error(), "cannot ") || errors.Is(err, errInterrupted) || errors.As(err, new(exitStatus)) || errors.As(err, new(usageError)) {
		return err
	}
	return fmt.Errorf("cannot %s: %w", do, err)
}
