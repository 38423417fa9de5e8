package role_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

func pair(t *testing.T, a, b role.Name) (*role.Conn, *role.Conn) {
	t.Helper()
	fa, fb, err := role.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ca, err := role.NewConn(fa, a, b)
	if err != nil {
		t.Fatal(err)
	}
	cb, err := role.NewConn(fb, b, a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ca.Close(); cb.Close() })
	return ca, cb
}

// raw gives one end as a plain socket, for whoever does not keep to the rules.
func raw(t *testing.T, me, other role.Name) (*role.Conn, *net.UnixConn) {
	t.Helper()
	fa, fb, err := role.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ca, err := role.NewConn(fa, me, other)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.FileConn(fb)
	if err != nil {
		t.Fatal(err)
	}
	fb.Close()
	t.Cleanup(func() { ca.Close(); c.Close() })
	return ca, c.(*net.UnixConn)
}

func TestSendAndReceive(t *testing.T) {
	control, launcher := pair(t, role.Control, role.Launcher)
	f, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := &role.CreateSandbox{ID: "abcdefgh", OwnerUID: 1000, MemoryBytes: 1}
	if err := control.Send(7, want, f); err != nil {
		t.Fatal(err)
	}
	p, err := launcher.Recv()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got, ok := p.Msg.(*role.CreateSandbox); !ok || *got != *want || p.Seq != 7 || len(p.Files) != 1 {
		t.Errorf("got %+v", p)
	}
}

// The largest message goes through whole; one byte more does not go out.
func TestSizes(t *testing.T) {
	control, audit := pair(t, role.Control, role.Audit)
	m := &role.Append{}
	for _, n := range []int{role.MaxMessage - 1000, role.MaxMessage} {
		m.Record = api.AuditRecord{Detail: strings.Repeat("x", n)}
		err := control.Send(1, m)
		if (err == nil) != (n < role.MaxMessage) {
			t.Errorf("%d bytes: error %v", n, err)
		}
	}
	if p, err := audit.Recv(); err != nil || len(p.Msg.(*role.Append).Record.Detail) != role.MaxMessage-1000 {
		t.Errorf("error %v", err)
	}
}

func TestTableIsKeptBySender(t *testing.T) {
	agent, _ := pair(t, role.Agent, role.Control)
	for _, m := range []role.Message{&role.KillSandbox{}, &role.Append{}, &role.ToolResult{}, &role.Scan{}, &role.Begin{}} {
		if err := agent.Send(0, m); !errors.Is(err, role.ErrNotPermitted) {
			t.Errorf("%T: error %v", m, err)
		}
	}
}

// What a taken-over role might write; the receiver must end it.
func TestHostileMessages(t *testing.T) {
	for name, line := range map[string]string{
		"no JSON":                "hello",
		"empty object":           "{}",
		"unknown type":           `{"type":"become_root","body":{}}`,
		"another's message":      `{"type":"kill","body":{"id":"x"}}`,
		"an answer to nobody":    `{"type":"appended","seq":1,"body":{"seq":1}}`,
		"unknown field":          `{"type":"delta","body":{"text":"x","label":"user"}}`,
		"unknown envelope field": `{"type":"delta","body":{},"from":"control"}`,
		"something behind":       `{"type":"delta","body":{}} {}`,
		"behind the body":        `{"type":"delta","body":{}}{"type":"delta","body":{}}`,
		"wrong kind of value":    `{"type":"delta","body":{"text":1}}`,
		"no body":                `{"type":"delta"}`,
		"body is a list":         `{"type":"delta","body":[]}`,
		"too long":               `{"type":"delta","body":{"text":"` + strings.Repeat("x", role.MaxMessage) + `"}}`,
		"deep":                   `{"type":"tool_call","body":{"id":"1","name":"x","args":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}}`,
	} {
		t.Run(name, func(t *testing.T) {
			control, agent := raw(t, role.Control, role.Agent)
			if _, err := agent.Write([]byte(line)); err != nil {
				t.Fatal(err)
			}
			if p, err := control.Recv(); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("received %+v, error %v", p.Msg, err)
			}
		})
	}
}

// Descriptors that nobody asked for are closed, and end the connection.
func TestUnaskedDescriptors(t *testing.T) {
	control, agent := raw(t, role.Control, role.Agent)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fds := make([]int, 20)
	for i := range fds {
		fds[i] = int(w.Fd())
	}
	if _, _, err := agent.WriteMsgUnix([]byte(`{"type":"delta","body":{"text":"x"}}`), unix.UnixRights(fds...), nil); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if p, err := control.Recv(); err == nil {
		t.Errorf("received %+v", p)
	}
	r.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a descriptor is still open: %v", err)
	}
}

func TestCallerGivesEachItsOwnAnswer(t *testing.T) {
	control, audit := pair(t, role.Control, role.Audit)
	go func() { // answers the other way round
		var held []role.Packet
		for {
			p, err := audit.Recv()
			if err != nil {
				return
			}
			if held = append(held, p); len(held) == 10 {
				for i := len(held) - 1; i >= 0; i-- {
					audit.Send(held[i].Seq, &role.Appended{Seq: held[i].Msg.(*role.Append).Record.UID})
				}
				held = nil
			}
		}
	}()
	c := role.NewCaller(control)
	go c.Run(nil)
	var wg sync.WaitGroup
	for i := range int64(50) {
		wg.Go(func() {
			a, err := role.Ask[role.Appended](t.Context(), c, &role.Append{Record: api.AuditRecord{UID: i}})
			if err != nil || a.Seq != i {
				t.Errorf("%d: got %+v, error %v", i, a, err)
			}
		})
	}
	wg.Wait()
}

// An answer that comes after its caller gave up is dropped; one that nobody ever asked for ends the connection.
func TestCallerAndLateAnswers(t *testing.T) {
	control, launcher := pair(t, role.Control, role.Launcher)
	c := role.NewCaller(control)
	go c.Run(func(p role.Packet) error { return errors.New("unasked") })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Call(ctx, &role.CreateSandbox{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	p, err := launcher.Recv()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := launcher.Send(p.Seq, &role.CreatedSandbox{}, f); err != nil {
		t.Fatal(err)
	}
	go func() {
		if p, err := launcher.Recv(); err == nil {
			launcher.Send(p.Seq, &role.Finished{})
		}
	}()
	if _, err := c.Call(t.Context(), &role.KillSandbox{}); err != nil {
		t.Errorf("after a late answer: %v", err)
	}
	if err := launcher.Send(p.Seq, &role.CreatedSandbox{}, f); err != nil {
		t.Fatal(err)
	}
	<-c.Gone()
}

func TestCallerEnds(t *testing.T) {
	t.Run("the other role dies", func(t *testing.T) {
		control, audit := pair(t, role.Control, role.Audit)
		c := role.NewCaller(control)
		go c.Run(nil)
		go func() { audit.Recv(); audit.Close() }()
		if _, err := c.Call(t.Context(), &role.Append{}); !errors.Is(err, role.ErrGone) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("nobody answers", func(t *testing.T) {
		control, _ := pair(t, role.Control, role.Audit)
		c := role.NewCaller(control)
		go c.Run(nil)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if _, err := c.Call(ctx, &role.Append{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("it says no", func(t *testing.T) {
		control, audit := pair(t, role.Control, role.Audit)
		c := role.NewCaller(control)
		go c.Run(nil)
		go func() {
			p, _ := audit.Recv()
			audit.Send(p.Seq, &role.Failed{Code: api.CodeUnavailable, Text: "the disk is full"})
		}()
		var f *role.Failed
		if _, err := c.Call(t.Context(), &role.Append{}); !errors.As(err, &f) || f.Code != api.CodeUnavailable {
			t.Errorf("error %v", err)
		}
	})
	t.Run("another answer than asked for", func(t *testing.T) {
		control, audit := pair(t, role.Control, role.Audit)
		c := role.NewCaller(control)
		go c.Run(nil)
		go func() {
			p, _ := audit.Recv()
			audit.Send(p.Seq, &role.Records{})
		}()
		if _, err := role.Ask[role.Appended](t.Context(), c, &role.Append{}); !errors.Is(err, role.ErrNotPermitted) {
			t.Errorf("error %v", err)
		}
	})
}

// Every row that is linked can speak with those it is linked to, and no message needs a link that is not there.
func TestTableIsWhole(t *testing.T) {
	for name, row := range role.Table {
		if (row.User == "") != (name == role.Review) || len(row.Links) == 0 {
			t.Errorf("%s has no user or no link", name)
		}
		for other, o := range role.Table {
			if other != name && o.User == row.User {
				t.Errorf("%s and %s are the same user", name, other)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"type":"delta","body":{"text":"x"}}`, `{"type":"tool_call","seq":3,"body":{"id":"1","name":"shell","args":{"command":"ls"}}}`, `{}`, `[`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, m, err := role.Decode(b)
		if err != nil {
			return
		}
		if _, err := json.Marshal(m); err != nil {
			t.Errorf("%T cannot be encoded again: %v", m, err)
		}
	})
}

// TestReadable shows that it tells silence from a message, from the other side's end and from one's own.
func TestReadable(t *testing.T) {
	for name, do := range map[string]func(mine, other *role.Conn) error{
		"message":      func(_, o *role.Conn) error { return o.Send(0, &role.Delta{Text: "x"}) },
		"closed there": func(_, o *role.Conn) error { return o.Close() },
		"closed here":  func(c, _ *role.Conn) error { return c.Close() },
	} {
		mine, other := pair(t, role.Control, role.Agent)
		if mine.Readable() {
			t.Errorf("%s: readable before", name)
		}
		if err := do(mine, other); err != nil {
			t.Fatal(err)
		}
		if !mine.Readable() {
			t.Errorf("%s: not readable", name)
		}
	}
}
