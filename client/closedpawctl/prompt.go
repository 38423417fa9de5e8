package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/closedpaw/closedpaw/client/api"
)

// maxText bounds each piece of a prompt in bytes: what is typed, stdin, and every attached file.
const maxText = 1 << 20

// slowStdin is how long stdin may keep us waiting before we say that we wait for it.
const slowStdin = 2 * time.Second

// prompt makes the parts of a request. Only what the person typed is labelled user: words on the command line, and of
// a stdin that is no terminal the first line.
func (a *app) prompt(ctx context.Context, words, files []string, trustStdin bool) ([]api.Part, error) {
	text := strings.Join(words, " ")
	fromStdin := text == "-"
	var parts []api.Part
	switch {
	case fromStdin:
		stdin, err := a.readStdin(ctx)
		if err != nil {
			return nil, err
		}
		end := strings.IndexByte(stdin, '\n') + 1
		if trustStdin || isTerminal(a.in) || end == 0 {
			end = len(stdin)
		}
		if strings.TrimSpace(stdin) == "" {
			return nil, usage("the prompt on standard input is empty")
		}
		parts = append(parts, api.Part{Label: api.LabelUser, Text: stdin[:end]})
		if strings.TrimSpace(stdin[end:]) != "" { // it is of the prompt, so it has no name of its own
			parts = append(parts, api.Part{Label: api.LabelWorld, Text: stdin[end:]})
		}
	case strings.TrimSpace(text) == "":
		return nil, usage("there is no prompt: give it as words, or - to read it from standard input")
	default:
		if err := isText("the prompt", []byte(text)); err != nil {
			return nil, err
		}
		parts = append(parts, api.Part{Label: api.LabelUser, Text: text})
	}
	for _, name := range files {
		b, err := readFile(ctx, name)
		if err != nil {
			return nil, err
		}
		parts = append(parts, api.Part{Label: api.LabelWorld, Name: strings.ToValidUTF8(filepath.Base(name), "\ufffd"), Text: string(b)})
	}
	if !fromStdin && a.stdinGiven() {
		stdin, err := a.readStdin(ctx)
		if err != nil {
			return nil, err
		}
		if stdin != "" {
			parts = append(parts, api.Part{Label: api.LabelWorld, Name: "stdin", Text: stdin})
		}
	}
	return parts, nil
}

// stdinGiven says that stdin is data: a pipe, a socket or a file, no terminal and not /dev/null.
func (a *app) stdinGiven() bool {
	st, err := a.in.Stat()
	if err != nil {
		return false
	}
	return st.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0 || st.Mode().IsRegular()
}

func (a *app) readStdin(ctx context.Context) (string, error) {
	if isTerminal(a.in) {
		a.say("type the prompt; ctrl-d on a line of its own ends it")
	} else {
		defer time.AfterFunc(slowStdin, func() {
			a.say("reading standard input until it ends (give </dev/null if it is none of the prompt)")
		}).Stop()
	}
	b, err := readText("standard input", &interruptible{ctx, a.in})
	return string(b), err
}

func readFile(ctx context.Context, name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot attach the file: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, fmt.Errorf("cannot attach %s: it is a folder (give it with -w)", name)
	}
	b, err := readText(name, &interruptible{ctx, f})
	if err != nil {
		return nil, fmt.Errorf("cannot attach the file: %w", err)
	}
	return b, nil
}

// interruptible reads what may never come.
type interruptible struct {
	ctx context.Context
	f   *os.File
}

func (r *interruptible) Read(p []byte) (int, error) {
	if err := waitReadable(r.ctx, int(r.f.Fd())); err != nil {
		return 0, err
	}
	return r.f.Read(p)
}

func readText(name string, r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil {
		return nil, err
	}
	return b, isText(name, b)
}

func isText(name string, b []byte) error {
	switch {
	case len(b) > maxText:
		return fmt.Errorf("%s has more than %d KiB (put it into a folder and give that with -w: the assistant then reads what it needs)", name, maxText>>10)
	case !utf8.Valid(b) || bytes.IndexByte(b, 0) >= 0:
		return fmt.Errorf("%s is no UTF-8 text (convert it, or put it into a folder and give that with -w)", name)
	}
	return nil
}
