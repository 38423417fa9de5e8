package model

import "github.com/closedpaw/closedpaw/daemon/internal/text"

// MaxText is the most text that one chunk or delta carries: JSON makes at most six bytes of one, so the message stays
// below MaxChunk and role.MaxMessage.
const MaxText = 32 << 10

// Joiner makes one chunk, of at most MaxText, of the pieces of text that are put between two Flushes. Who reads an
// answer flushes before it waits for more: so a piece that comes alone is passed on at once, and what comes faster than
// it can be passed on goes in few large pieces. It starts no goroutine: each hand-over between threads costs more than
// all else that is done for a token.
type Joiner struct {
	emit     func(Chunk) error
	text     []byte // of one kind
	thinking bool
}

// NewJoiner passes chunks on to emit, in order.
func NewJoiner(emit func(Chunk) error) *Joiner { return &Joiner{emit: emit} }

// Put takes a chunk. A text may be of any length; what is no text is passed on at once, behind the text before it.
func (j *Joiner) Put(c Chunk) error {
	rest, thinking := c.Text, c.Thinking != ""
	if thinking {
		rest = c.Thinking
	}
	if rest == "" || thinking != j.thinking || len(j.text)+len(rest) > MaxText {
		if err := j.Flush(); err != nil {
			return err
		}
	}
	if rest == "" {
		return j.emit(c)
	}
	j.thinking = thinking
	for len(rest) > MaxText {
		var head string
		head, rest = text.Cut(rest, MaxText)
		j.text = append(j.text, head...)
		if err := j.Flush(); err != nil {
			return err
		}
	}
	j.text = append(j.text, rest...)
	return nil
}

// Flush passes on the text that was put.
func (j *Joiner) Flush() error {
	if len(j.text) == 0 {
		return nil
	}
	c := Chunk{Text: string(j.text)}
	if j.thinking {
		c = Chunk{Thinking: string(j.text)}
	}
	j.text = j.text[:0]
	return j.emit(c)
}
