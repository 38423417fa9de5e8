package model_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
)

func TestQueueMerges(t *testing.T) {
	q := model.NewQueue()
	call := &api.ToolCall{Name: "shell"}
	for _, c := range []model.Chunk{{Text: "a"}, {Text: "b"}, {Thinking: "c"}, {Thinking: "d"}, {Text: "e"}, {Call: call}, {Call: call}, {Text: "f"}} {
		if err := q.Put(c); err != nil {
			t.Fatal(err)
		}
	}
	want := []model.Chunk{{Text: "ab"}, {Thinking: "cd"}, {Text: "e"}, {Call: call}, {Call: call}, {Text: "f"}}
	if d := cmp.Diff(want, q.Take()); d != "" {
		t.Error(d)
	}
	q.Put(model.Chunk{Text: strings.Repeat("é", model.MaxText)})
	q.Close()
	n := 0
	for _, c := range q.Take() {
		if len(c.Text) > model.MaxText || strings.Trim(c.Text, "é") != "" {
			t.Errorf("a piece of %d bytes", len(c.Text))
		}
		n += len(c.Text)
	}
	if n != 2*model.MaxText {
		t.Errorf("%d bytes arrived", n)
	}
	if got := q.Take(); got != nil {
		t.Errorf("after the end: %v", got)
	}
	if err := q.Put(model.Chunk{Text: "x"}); !errors.Is(err, model.ErrClosed) {
		t.Error(err)
	}
}

// TestQueueBounds shows that who puts waits while the queue is full, and that closing frees them.
func TestQueueBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := model.NewQueue()
		piece := model.Chunk{Text: strings.Repeat("x", 1000)}
		put, ended := 0, make(chan error)
		go func() {
			for {
				if err := q.Put(piece); err != nil {
					ended <- err
					return
				}
				put++
			}
		}()
		synctest.Wait()
		full := put
		if full < 1000 || full > 1100 {
			t.Errorf("%d KB wait", full)
		}
		q.Take()
		synctest.Wait()
		if put < 2*full-1 {
			t.Errorf("%d KB after the queue was emptied", put)
		}
		q.Close()
		select {
		case <-ended:
		case <-time.After(time.Second):
			t.Error("closing does not free who waits")
		}
	})
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		s          string
		max        int
		head, rest string
	}{
		{"abc", 3, "abc", ""}, {"abc", 2, "ab", "c"}, {"aé", 2, "a", "é"}, {"€€", 4, "€", "€"}, {"\x80\x80\x80\x80\x80\x80\x80", 6, "\x80\x80", "\x80\x80\x80\x80\x80"},
	} {
		head, rest := model.Cut(tt.s, tt.max)
		if head != tt.head || rest != tt.rest {
			t.Errorf("Cut(%q, %d) = %q, %q", tt.s, tt.max, head, rest)
		}
	}
}
