package model_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
)

func TestParseChunk(t *testing.T) {
	for _, tt := range []struct {
		line string
		want model.Chunk
		ok   bool
	}{
		{`{"text":"a"}`, model.Chunk{Text: "a"}, true},
		{`{"thinking":"a"}`, model.Chunk{Thinking: "a"}, true},
		{`{"done":{"prompt_tokens":1,"output_tokens":2}}`, model.Chunk{Done: &model.Done{PromptTokens: 1, OutputTokens: 2}}, true},
		{`{"call":{"id":"1","name":"shell","args":[1]}}`, model.Chunk{Call: &api.ToolCall{ID: "1", Name: "shell", Args: json.RawMessage("[1]")}}, true},
		{`{"error":{"code":"model","message":"m"}}`, model.Chunk{Error: &api.Error{Code: api.CodeModel, Message: "m"}}, true},
		{line: `{}`},
		{line: ``},
		{line: `null`},
		{line: `{"text":""}`},
		{line: `{"text":"a","thinking":"b"}`},
		{line: `{"text":"a","more":1}`},
		{line: `{"text":"a"} {}`},
		{line: `{"text":"a"`},
		{line: `{"done":{"prompt_tokens":-1,"output_tokens":2}}`},
		{line: `{"call":{"id":"1","name":"","args":{}}}`},
		{line: `{"error":{"code":"model","message":""}}`},
	} {
		got, err := model.ParseChunk([]byte(tt.line))
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, model.ErrMalformed) {
			t.Errorf("%s: %v", tt.line, err)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", tt.line, d)
		}
	}
}

func TestParseRequest(t *testing.T) {
	for line, ok := range map[string]bool{
		`{"messages":[{"role":"user","text":"a"}]}`: true,
		`{"messages":null}`:                         true,
		`{"messages":[],"tools":[{"name":"shell","description":"","schema":{}}]}`:                 true,
		`{"messages":[{"role":"assistant","text":"","calls":[{"id":"1","name":"a","args":{}}]}]}`: true,
		`{"messages":[{"role":"system","text":"a"}]}`:                                             false,
		`{"messages":[{"role":"user","text":"a","x":1}]}`:                                         false,
		`{"messages":[{"role":"assistant","text":"","calls":[{"id":"1","name":"a","args":3}]}]}`:  false,
		`{"messages":[],"tools":[{"name":"shell","description":"","schema":"x"}]}`:                false,
		`{"messages":[],"tools":[{"name":"","description":"","schema":{}}]}`:                      false,
		`{"messages":[]}x`:                false,
		`{"model":"other","messages":[]}`: false,
	} {
		if _, err := model.ParseRequest([]byte(line)); (err == nil) != ok {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// endless is a line that never ends, and counts what was read of it.
type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	e.n += len(p)
	return len(p), nil
}

func TestReaderBounds(t *testing.T) {
	e := &endless{}
	if _, err := model.NewReader(e).Chunk(); !errors.Is(err, model.ErrMalformed) {
		t.Errorf("endless line: %v", err)
	}
	if e.n > model.MaxChunk+256<<10 {
		t.Errorf("read %d bytes of a line that was too long", e.n)
	}
	for _, tt := range []struct {
		in   string
		max  int
		want string
		err  error
	}{
		{"abc\n", 3, "abc", nil},
		{"abcd\n", 3, "", model.ErrMalformed},
		{"abc", 3, "", io.ErrUnexpectedEOF},
		{"", 3, "", io.EOF},
		{"\n", 3, "", nil},
		{strings.Repeat("y", 100<<10) + "\n", 100 << 10, strings.Repeat("y", 100<<10), nil},
		{strings.Repeat("y", 100<<10) + "\n", 100<<10 - 1, "", model.ErrMalformed},
		{strings.Repeat("y", 100<<10), 100 << 10, "", io.ErrUnexpectedEOF},
	} {
		got, err := model.NewReader(strings.NewReader(tt.in)).Line(tt.max)
		if string(got) != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%.10q max %d: %.10q, %v", tt.in, tt.max, got, err)
		}
	}
}

func TestEncodeChunkFits(t *testing.T) {
	for name, c := range map[string]model.Chunk{
		"control characters": {Text: strings.Repeat("\x01", model.MaxText)},
		"bad UTF-8":          {Text: strings.Repeat("\xff", model.MaxText)},
		"large arguments":    {Call: &api.ToolCall{Name: "shell", Args: json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)}},
		"large name":         {Call: &api.ToolCall{Name: strings.Repeat("\x02", 1<<20), Args: json.RawMessage(`{}`)}},
		"large error":        {Error: &api.Error{Code: api.CodeModel, Message: strings.Repeat("\x02", 1<<20), Hint: strings.Repeat("\x02", 1<<20)}},
		"markup":             {Call: &api.ToolCall{Name: "write_file", Args: json.RawMessage(`"` + strings.Repeat("<", 128<<10) + `"`)}},
	} {
		b, err := model.EncodeChunk(c)
		if err != nil || len(b) > model.MaxChunk+1 || bytes.IndexByte(b, '\n') != len(b)-1 {
			t.Fatalf("%s: %d bytes, %v", name, len(b), err)
		}
		got, err := model.NewReader(bytes.NewReader(b)).Chunk()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name == "markup" && len(got.Call.Args) != 128<<10+2 {
			t.Errorf("markup grew to %d bytes", len(got.Call.Args))
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"system":"s","messages":[{"role":"user","text":"a"}],"tools":[{"name":"shell","description":"d","schema":{}}]}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := model.ParseRequest(line)
		if err != nil {
			return
		}
		b, err := model.Encode(r, model.MaxRequest)
		if err != nil {
			return
		}
		if _, err := model.ParseRequest(b); err != nil {
			t.Errorf("%q is not read back: %v", b, err)
		}
	})
}

func FuzzParseChunk(f *testing.F) {
	f.Add([]byte(`{"call":{"id":"1","name":"shell","args":{"command":"id"}}}`))
	f.Add([]byte(`{"text":"\u0001<"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		c, err := model.ParseChunk(line)
		if err != nil {
			return
		}
		b, err := model.EncodeChunk(c)
		if err != nil {
			t.Skip()
		}
		if _, err := model.ParseChunk(b); err != nil {
			t.Errorf("%q is not read back: %v", b, err)
		}
	})
}
