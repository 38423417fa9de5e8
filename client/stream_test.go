package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/closedpaw/closedpaw/client"
	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/clienttest"
)

const done = `data: {"type":"done","done":{"reason":"stop"}}` + "\n\n"

func TestStream(t *testing.T) {
	text := func(s string) api.Event { return api.Event{Type: api.EventText, Text: s} }
	end := api.Event{Type: api.EventDone, Done: &api.Done{Reason: "stop"}}
	long := strings.Repeat("x", 200<<10)
	for _, c := range []struct {
		name, in string
		want     []api.Event
		err      error
	}{
		{"whole", `data: {"type":"text","text":"a"}` + "\n\n" + done, []api.Event{text("a"), end}, io.EOF},
		{"kept alive", ": hello\n\n:\n" + done + ": bye\n", []api.Event{end}, io.EOF},
		{"long", `data: {"type":"text","text":"` + long + `"}` + "\n\n" + done, []api.Event{text(long), end}, io.EOF},
		{"error is an end", `data: {"type":"error","error":{"code":"model","message":"m"}}` + "\n\n",
			[]api.Event{{Type: api.EventError, Error: &api.Error{Code: api.CodeModel, Message: "m"}}}, io.EOF},
		{"unknown types and fields pass", `data: {"type":"new","more":1}` + "\n\n" + done, []api.Event{{Type: "new"}, end}, io.EOF},
		{"empty", "", nil, client.ErrCutOff},
		{"cut off", `data: {"type":"text","text":"a"}` + "\n\n", []api.Event{text("a")}, client.ErrCutOff},
		{"cut in an event", `data: {"type":"text","te`, nil, client.ErrCutOff},
		{"cut before the empty line", strings.TrimSuffix(done, "\n"), nil, client.ErrCutOff},
		{"no JSON", "data: x\n\n", nil, client.ErrProtocol},
		{"two events in one", "data: {\"type\":\"text\"}\ndata: {\"type\":\"text\"}\n\n", nil, client.ErrProtocol},
		{"no type", "data: {}\n\n", nil, client.ErrProtocol},
		{"done without its content", "data: {\"type\":\"done\"}\n\n", nil, client.ErrProtocol},
		{"another field", "event: x\n\n", nil, client.ErrProtocol},
		{"carriage return", "data: {\"type\":\"text\"}\r\n\r\n", nil, client.ErrProtocol},
	} {
		t.Run(c.name, func(t *testing.T) {
			for what, r := range map[string]io.Reader{"whole": strings.NewReader(c.in), "byte by byte": iotest.OneByteReader(strings.NewReader(c.in))} {
				got, err := all(client.NewStream(t.Context(), io.NopCloser(r)))
				if d := cmp.Diff(c.want, got); d != "" {
					t.Errorf("%s: %s", what, d)
				}
				if !errors.Is(err, c.err) {
					t.Errorf("%s: ended with %v, not %v", what, err, c.err)
				}
			}
		})
	}
}

func all(s *client.Stream) (events []api.Event, err error) {
	for {
		e, err := s.Next()
		if err != nil {
			_, again := s.Next()
			if again != err {
				return events, errors.New("another end at the second call")
			}
			return events, err
		}
		events = append(events, e)
	}
}

func TestEndlessEvent(t *testing.T) {
	s := client.NewStream(t.Context(), io.NopCloser(io.MultiReader(strings.NewReader("data: "), endless{})))
	if _, err := s.Next(); !errors.Is(err, client.ErrProtocol) {
		t.Errorf("got %v", err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestStreamOverSocket(t *testing.T) {
	s := clienttest.Start(t)
	c := client.New(s.Socket)
	defer c.Close()
	hang := make(chan struct{})
	s.HandleFunc("POST /v1/ask", func(w http.ResponseWriter, r *http.Request) {
		clienttest.Send(w, api.Event{Type: api.EventText, Text: "a"})
		<-r.Context().Done()
		close(hang)
	})
	s.HandleFunc("POST /v1/run", func(w http.ResponseWriter, r *http.Request) {
		clienttest.Send(w, api.Event{Type: api.EventText, Text: "a"})
		panic(http.ErrAbortHandler)
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	stream, err := c.Ask(ctx, api.AskRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := stream.Next(); err != nil || e.Text != "a" {
		t.Fatalf("%v, %v", e, err)
	}
	cause := errors.New("interrupted")
	cancel(cause)
	if _, err := stream.Next(); !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
	stream.Close()
	select {
	case <-hang:
	case <-time.After(5 * time.Second):
		t.Error("the daemon did not see the end of the request")
	}
	if stream, err = c.Run(t.Context(), api.RunRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := all(stream); !errors.Is(err, client.ErrCutOff) {
		t.Errorf("killed daemon: %v", err)
	}
}

func FuzzStream(f *testing.F) {
	for _, s := range []string{done, ": x\n\n" + done, "data: {\"type\":\"text\",\"text\":\"a\"}\n\n", "data: x\n", "event: x\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		events, err := all(client.NewStream(t.Context(), io.NopCloser(strings.NewReader(in))))
		slow, serr := all(client.NewStream(t.Context(), io.NopCloser(iotest.OneByteReader(strings.NewReader(in)))))
		if d := cmp.Diff(events, slow); d != "" || err.Error() != serr.Error() {
			t.Errorf("depends on how the bytes come: %s, %v, %v", d, err, serr)
		}
		if err == io.EOF {
			last := events[len(events)-1]
			if last.Done == nil && last.Error == nil {
				t.Errorf("ended well with %v", last)
			}
		}
		for _, e := range events {
			if _, err := json.Marshal(e); err != nil {
				t.Error(err)
			}
		}
	})
}

func BenchmarkStream(b *testing.B) {
	in := strings.Repeat(`data: {"type":"text","text":" token"}`+"\n\n", 10_000)
	for b.Loop() {
		s := client.NewStream(b.Context(), io.NopCloser(strings.NewReader(in)))
		for {
			if _, err := s.Next(); err != nil {
				break
			}
		}
	}
	b.ReportMetric(float64(b.N)*10_000/b.Elapsed().Seconds(), "events/s")
}
