package agent_test

import (
	"encoding/json"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/agent"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

var converse = role.Converse{System: "be brief", MaxTurns: 5, Tools: []role.Tool{{Name: "shell", Description: "runs a command", Schema: json.RawMessage(`{}`)}}}

// control is control's side of an agent.
type control struct {
	*role.Conn
	t     testing.TB
	ended chan error
}

// pair returns two ends of a stream.
func pair(t testing.TB) (a, b *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(p[0]), "a"), os.NewFile(uintptr(p[1]), "b")
}

// start runs an agent whose stream to the gateway is f.
func start(t testing.TB, f *os.File, begin role.Converse) *control {
	t.Helper()
	a, b, err := role.Pair()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := role.NewConn(a, role.Agent, role.Control)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := role.NewConn(b, role.Control, role.Agent)
	if err != nil {
		t.Fatal(err)
	}
	c := &control{ours, t, make(chan error, 1)}
	go func() {
		c.ended <- agent.Serve(theirs)
		theirs.Close()
	}()
	c.send(&begin, f)
	f.Close()
	t.Cleanup(func() { ours.Close() })
	return c
}

func (c *control) send(m role.Message, files ...*os.File) {
	c.t.Helper()
	if err := c.Send(0, m, files...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *control) say(text string) {
	c.t.Helper()
	c.send(&role.Turn{Role: "user", Text: text})
	c.send(&role.Go{})
}

// end waits for the agent's end.
func (c *control) end() error {
	c.t.Helper()
	select {
	case err := <-c.ended:
		return err
	case <-time.After(10 * time.Second):
		c.t.Fatal("the agent does not end")
		return nil
	}
}

// turn is what control sees up to Over.
type turn struct {
	text, thinking string
	calls          []role.ToolCall
	said           []role.Said
	over           role.Over
}

// until reads up to Over; result answers a call.
func (c *control) until(result func(role.ToolCall) role.ToolResult) (t turn) {
	c.t.Helper()
	for {
		p, err := c.Recv()
		if err != nil {
			c.t.Fatalf("the agent is gone: %v", err)
		}
		switch m := p.Msg.(type) {
		case *role.Delta:
			t.text += m.Text
			t.thinking += m.Thinking
		case *role.Said:
			t.said = append(t.said, *m)
		case *role.ToolCall:
			t.calls = append(t.calls, *m)
			r := result(*m)
			r.ID = m.ID
			c.send(&r)
		case *role.Over:
			t.over = *m
			return t
		}
	}
}

// play answers each request on f with the next of the answers, raw, and returns the requests.
func play(t testing.TB, f *os.File, answers ...string) <-chan model.Request {
	t.Helper()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	requests := make(chan model.Request, len(answers)+1)
	go func() {
		defer conn.Close()
		defer close(requests)
		r := model.NewReader(conn)
		for _, a := range answers {
			req, err := r.Request()
			if err != nil {
				return
			}
			requests <- req
			if _, err := io.WriteString(conn, a); err != nil {
				return
			}
		}
		io.Copy(io.Discard, conn)
	}()
	t.Cleanup(func() { conn.Close() })
	return requests
}

const done = `{"done":{"prompt_tokens":3,"output_tokens":2}}` + "\n"

func callLine(name, args string) string {
	b, _ := json.Marshal(name)
	return `{"call":{"id":"x","name":` + string(b) + `,"args":` + args + `}}` + "\n"
}
