package model

import (
	"errors"
	"sync"
)

// ErrClosed means that a queue takes nothing any more.
var ErrClosed = errors.New("queue is closed")

// maxQueued bounds what waits in a Queue, in bytes of text and arguments.
const maxQueued = 1 << 20

// Queue stands between the goroutine that receives an answer and the one that passes it on. Pieces of text that meet
// in it become one chunk of at most MaxText: so a slow reader is given few large pieces, and a fast one each piece at
// once. Who puts waits while it is full.
type Queue struct {
	mu     sync.Mutex
	change sync.Cond // something was put or taken, or the queue closed
	items  []item
	size   int
	closed bool
}

type item struct {
	Chunk
	text []byte // of Text or Thinking, while it grows
}

// NewQueue returns an empty queue.
func NewQueue() *Queue {
	q := &Queue{}
	q.change.L = &q.mu
	return q
}

// Put adds a chunk. A text may be of any length.
func (q *Queue) Put(c Chunk) error {
	text, thinking := c.Text, c.Thinking != ""
	if thinking {
		text = c.Thinking
	}
	if text == "" {
		n := 64
		if c.Call != nil {
			n += len(c.Call.Name) + len(c.Call.Args)
		}
		return q.put(func() { q.items = append(q.items, item{Chunk: c}) }, n)
	}
	for text != "" {
		var head string
		head, text = Cut(text, MaxText)
		if err := q.put(func() { q.add(head, thinking) }, len(head)); err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) put(add func(), size int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.size > maxQueued && !q.closed {
		q.change.Wait()
	}
	if q.closed {
		return ErrClosed
	}
	if q.size == 0 {
		q.change.Broadcast()
	}
	q.size += size
	add()
	return nil
}

func (q *Queue) add(text string, thinking bool) {
	if n := len(q.items) - 1; n >= 0 {
		last := &q.items[n]
		if len(last.text) > 0 && (last.Thinking != "") == thinking && len(last.text)+len(text) <= MaxText {
			last.text = append(last.text, text...)
			return
		}
	}
	it := item{text: []byte(text)}
	if thinking {
		it.Thinking = text // for now: it says of which kind the text is
	}
	q.items = append(q.items, it)
}

// Take waits for chunks and returns all that there are. It returns none once the queue is closed and empty.
func (q *Queue) Take() []Chunk {
	q.mu.Lock()
	for len(q.items) == 0 && !q.closed {
		q.change.Wait()
	}
	items := q.items
	q.items, q.size = nil, 0
	q.change.Broadcast()
	q.mu.Unlock()
	if len(items) == 0 {
		return nil
	}
	chunks := make([]Chunk, len(items))
	for i, it := range items {
		switch {
		case it.text == nil:
			chunks[i] = it.Chunk
		case it.Thinking != "":
			chunks[i].Thinking = string(it.text)
		default:
			chunks[i].Text = string(it.text)
		}
	}
	return chunks
}

// Close ends the queue: Put fails, Take returns what is left and then none.
func (q *Queue) Close() {
	q.mu.Lock()
	q.closed = true
	q.change.Broadcast()
	q.mu.Unlock()
}
