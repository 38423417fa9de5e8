package model

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/text"
	"github.com/closedpaw/closedpaw/daemon/internal/wire"
)

// ErrMalformed means that the other side of a stream broke its form: whoever reads it must close the stream.
var ErrMalformed = errors.New("malformed message")

// Reader reads the lines of a stream, with a bound on each.
type Reader struct {
	r    *bufio.Reader
	line []byte // of a line longer than r's buffer
}

// NewReader reads from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 64<<10)} }

// Ready says that the next line is there already, whole: reading it does not wait.
func (r *Reader) Ready() bool {
	b, _ := r.r.Peek(r.r.Buffered()) // of what is buffered there is no error
	return bytes.IndexByte(b, '\n') >= 0
}

// Line returns the next line without its end; it is valid until the next call. io.EOF means that the stream ended
// between two lines, io.ErrUnexpectedEOF that it ended within one. No more than max bytes of a line are kept.
func (r *Reader) Line(max int) ([]byte, error) {
	b, err := r.r.ReadSlice('\n')
	if err == nil && len(b) <= max+1 {
		return b[:len(b)-1], nil
	}
	r.line = append(r.line[:0], b...)
	for {
		switch {
		case len(bytes.TrimSuffix(r.line, []byte("\n"))) > max:
			r.line = nil
			return nil, fmt.Errorf("%w: a line is longer than %d bytes", ErrMalformed, max)
		case err == nil:
			return r.line[:len(r.line)-1], nil
		case err == io.EOF && len(r.line) > 0:
			return nil, io.ErrUnexpectedEOF
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
		b, err = r.r.ReadSlice('\n')
		r.line = append(r.line, b...)
	}
}

// Request reads the next request.
func (r *Reader) Request() (Request, error) {
	b, err := r.Line(MaxRequest)
	if err != nil {
		return Request{}, err
	}
	return ParseRequest(b)
}

// Chunk reads the next chunk.
func (r *Reader) Chunk() (Chunk, error) {
	b, err := r.Line(MaxChunk)
	if err != nil {
		return Chunk{}, err
	}
	return ParseChunk(b)
}

// ParseRequest parses one line, strictly.
func ParseRequest(line []byte) (Request, error) {
	var r Request
	if err := wire.Decode(line, &r); err != nil {
		return Request{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	for i, m := range r.Messages {
		if m.Role != "user" && m.Role != "assistant" && m.Role != "tool" {
			return Request{}, fmt.Errorf("%w: message %d has no known role", ErrMalformed, i)
		}
		for _, c := range m.Calls {
			if c.Name == "" || !isObject(c.Args) {
				return Request{}, fmt.Errorf("%w: message %d has a call without a name or arguments", ErrMalformed, i)
			}
		}
	}
	for i, t := range r.Tools {
		if t.Name == "" || !isObject(t.Schema) {
			return Request{}, fmt.Errorf("%w: tool %d has no name or schema", ErrMalformed, i)
		}
	}
	return r, nil
}

// ParseChunk parses one line, strictly. The arguments of a call are any JSON: what a model calls a tool with is not
// the stream's business.
func ParseChunk(line []byte) (Chunk, error) {
	var c Chunk
	if err := wire.Decode(line, &c); err != nil {
		return Chunk{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	set := 0
	for _, b := range []bool{c.Text != "", c.Thinking != "", c.Call != nil, c.Done != nil, c.Error != nil} {
		if b {
			set++
		}
	}
	switch {
	case set != 1:
		return Chunk{}, fmt.Errorf("%w: a chunk with %d fields", ErrMalformed, set)
	case c.Call != nil && c.Call.Name == "":
		return Chunk{}, fmt.Errorf("%w: a call without a name", ErrMalformed)
	case c.Done != nil && (c.Done.PromptTokens < 0 || c.Done.OutputTokens < 0):
		return Chunk{}, fmt.Errorf("%w: a negative count", ErrMalformed)
	case c.Error != nil && c.Error.Message == "":
		return Chunk{}, fmt.Errorf("%w: an error without a message", ErrMalformed)
	}
	return c, nil
}

// Encode returns v as one line, end included, of at most max bytes before the end.
func Encode(v any, max int) ([]byte, error) {
	b, err := wire.Encode(v)
	if err != nil {
		return nil, fmt.Errorf("cannot encode a message: %w", err)
	}
	if len(b) > max {
		return nil, fmt.Errorf("cannot send a message: %d bytes are more than %d", len(b), max)
	}
	return append(b, '\n'), nil
}

// EncodeChunk returns c as a line. Of a call too large for one, only the name is kept, with null for arguments; a
// message of an error is shortened. A text must be at most MaxText.
func EncodeChunk(c Chunk) ([]byte, error) {
	if e := c.Error; e != nil {
		c.Error = &api.Error{Code: e.Code, Message: text.Short(e.Message, 1024), Hint: text.Short(e.Hint, 1024)}
	}
	b, err := Encode(c, MaxChunk)
	if err != nil && c.Call != nil {
		c.Call = &api.ToolCall{ID: text.Short(c.Call.ID, 64), Name: text.Short(c.Call.Name, 1024), Args: json.RawMessage("null")}
		b, err = Encode(c, MaxChunk)
	}
	return b, err
}

func isObject(b json.RawMessage) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && b[0] == '{'
}
