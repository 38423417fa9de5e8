package model_test

import (
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
)

func TestJoinerMerges(t *testing.T) {
	var got []model.Chunk
	j := model.NewJoiner(func(c model.Chunk) error {
		got = append(got, c)
		return nil
	})
	call := &api.ToolCall{Name: "shell"}
	for _, c := range []model.Chunk{{Text: "a"}, {Text: "b"}, {Thinking: "c"}, {Thinking: "d"}, {Text: "e"}, {Call: call}, {Call: call}, {Text: "f"}} {
		if err := j.Put(c); err != nil {
			t.Fatal(err)
		}
	}
	want := []model.Chunk{{Text: "ab"}, {Thinking: "cd"}, {Text: "e"}, {Call: call}, {Call: call}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for range 2 {
		if err := j.Flush(); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(append(want, model.Chunk{Text: "f"}), got); d != "" {
			t.Error(d)
		}
	}
}

func TestJoinerBounds(t *testing.T) {
	for _, text := range []string{strings.Repeat("é", model.MaxText), strings.Repeat("é", model.MaxText/2), "é" + strings.Repeat("é", model.MaxText/2), "é"} {
		var all strings.Builder
		j := model.NewJoiner(func(c model.Chunk) error {
			if len(c.Text) > model.MaxText || strings.Trim(c.Text, "é") != "" {
				t.Errorf("a piece of %d bytes", len(c.Text))
			}
			all.WriteString(c.Text)
			return nil
		})
		for range 3 {
			if err := j.Put(model.Chunk{Text: text}); err != nil {
				t.Fatal(err)
			}
		}
		if err := j.Flush(); err != nil {
			t.Fatal(err)
		}
		if all.String() != strings.Repeat(text, 3) {
			t.Errorf("%d bytes of %d arrived", all.Len(), 3*len(text))
		}
	}
}

// TestJoinerFails shows that an error comes back from each way of passing on.
func TestJoinerFails(t *testing.T) {
	gone := errors.New("gone")
	for name, put := range map[string]func(j *model.Joiner) error{
		"flush":    func(j *model.Joiner) error { return errors.Join(j.Put(model.Chunk{Text: "a"}), j.Flush()) },
		"call":     func(j *model.Joiner) error { return j.Put(model.Chunk{Call: &api.ToolCall{Name: "x"}}) },
		"too long": func(j *model.Joiner) error { return j.Put(model.Chunk{Text: strings.Repeat("x", 2*model.MaxText)}) },
		"two kinds": func(j *model.Joiner) error {
			_ = j.Put(model.Chunk{Text: "a"})
			return j.Put(model.Chunk{Thinking: "b"})
		},
	} {
		if err := put(model.NewJoiner(func(model.Chunk) error { return gone })); !errors.Is(err, gone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReady shows that only a whole line counts.
func TestReady(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	go a.Write([]byte("one\ntwo\nthr"))
	r := model.NewReader(b)
	for i, ready := range []bool{false, true, false} {
		if r.Ready() != ready {
			t.Errorf("before line %d: %v", i, !ready)
		}
		if ready || i == 0 {
			if _, err := r.Line(100); err != nil {
				t.Fatal(err)
			}
		}
	}
}
