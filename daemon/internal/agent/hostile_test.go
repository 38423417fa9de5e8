package agent_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/agent"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

func TestHostileGateway(t *testing.T) {
	controls := strings.Repeat(`{"text":"`+strings.Repeat(`\u0001`, 30<<10)+`"}`+"\n", 5)
	big := controls + strings.Repeat(`{"text":"`+strings.Repeat("x", 200<<10)+`"}`+"\n", 25)
	for _, tt := range []struct {
		name, answer string
		code         api.Code
		part         string
	}{
		{"garbage", "hello\n", api.CodeModel, "cannot understand"},
		{"empty chunk", "{}\n", api.CodeModel, "cannot understand"},
		{"a line too long", `{"text":"` + strings.Repeat("x", 300<<10) + `"}` + "\n", api.CodeModel, "cannot understand"},
		{"ends", `{"text":"a"}` + "\n", api.CodeModel, "cut off"},
		{"ends in a line", `{"text":"a`, api.CodeModel, "cut off"},
		{"endless", big, api.CodeModel, "longer than 4 MiB"},
		{"endless calls", strings.Repeat(callLine("shell", `{"a":"`+strings.Repeat("x", 100<<10)+`"}`), 50), api.CodeModel, "longer than 4 MiB"},
		{"error", `{"error":{"code":"not_found","message":"no such model","hint":"pull it"}}` + "\n", api.CodeNotFound, "pull it"},
		{"long error", `{"error":{"code":"` + strings.Repeat("c", 1000) + `","message":"` + strings.Repeat(`\u0001`, 40000) + `"}}` + "\n", "", "…"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mine, theirs := pair(t)
			conn, err := net.FileConn(mine)
			if err != nil {
				t.Fatal(err)
			}
			mine.Close()
			go func() {
				defer conn.Close()
				if _, err := model.NewReader(conn).Request(); err == nil {
					io.WriteString(conn, tt.answer)
				}
			}()
			c := start(t, theirs, converse)
			c.say("go")
			got := c.until(nil)
			if e := got.over.Error; got.over.Reason != "error" || e == nil || tt.code != "" && e.Code != tt.code || !strings.Contains(e.Error(), tt.part) {
				t.Errorf("%s, %.200v", got.over.Reason, got.over.Error)
			}
			if len(got.text) > agent.MaxAnswer || len(got.said) > 0 || len(got.calls) > 0 {
				t.Errorf("%d bytes, %v, %d calls", len(got.text), got.said, len(got.calls))
			}
			// The agent is still there and says what is wrong.
			c.say("and now?")
			if got := c.until(nil); got.over.Reason != "error" || got.over.Error == nil {
				t.Errorf("%+v", got.over)
			}
			c.Close()
			if err := c.end(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestErrorLeavesTheStream(t *testing.T) {
	mine, theirs := pair(t)
	play(t, mine, `{"text":"par"}`+"\n"+`{"error":{"code":"model","message":"oops"}}`+"\n", `{"text":"fine"}`+"\n"+done)
	c := start(t, theirs, converse)
	c.say("go")
	if got := c.until(nil); got.over.Reason != "error" || got.over.Error.Message != "oops" || got.text != "par" {
		t.Errorf("%+v", got)
	}
	c.say("again")
	if got := c.until(nil); got.over.Reason != "stop" || got.text != "fine" {
		t.Errorf("%+v", got)
	}
}

func TestConversationIsBounded(t *testing.T) {
	mine, theirs := pair(t)
	play(t, mine, done)
	c := start(t, theirs, converse)
	for range 5 << 20 / (100 << 10) {
		c.send(&role.Turn{Role: "user", Text: strings.Repeat("x", 100<<10), More: true})
	}
	c.say("go")
	if got := c.until(nil); got.over.Reason != "error" || !strings.Contains(got.over.Error.Error(), "begin a new one") {
		t.Errorf("%+v", got.over)
	}
}

// TestResultsAreBounded shows that results cannot make the conversation grow without end either.
func TestResultsAreBounded(t *testing.T) {
	mine, theirs := pair(t)
	conn, err := net.FileConn(mine)
	if err != nil {
		t.Fatal(err)
	}
	mine.Close()
	go func() {
		defer conn.Close()
		r := model.NewReader(conn)
		for {
			if _, err := r.Request(); err != nil {
				return
			}
			io.WriteString(conn, strings.Repeat(callLine("shell", `{}`), 32)+done)
		}
	}()
	begin := converse
	begin.MaxTurns = 1000
	c := start(t, theirs, begin)
	c.say("go")
	got := c.until(func(role.ToolCall) role.ToolResult {
		return role.ToolResult{Text: strings.Repeat("x", role.MaxToolResult)}
	})
	if got.over.Reason != "error" || got.over.Error == nil || len(got.calls) > 200 {
		t.Errorf("%+v after %d calls", got.over, len(got.calls))
	}
}

func TestControlGone(t *testing.T) {
	for name, when := range map[string]func(c *control, stream net.Conn){
		"before all": func(c *control, _ net.Conn) {},
		"in an answer": func(c *control, s net.Conn) {
			c.say("go")
			model.NewReader(s).Request()
			io.WriteString(s, `{"text":"a"}`+"\n")
			c.Recv()
		},
		"while a tool runs": func(c *control, s net.Conn) {
			c.say("go")
			model.NewReader(s).Request()
			io.WriteString(s, callLine("shell", `{}`)+done)
			c.Recv()
			c.Recv()
		},
		"while it is silent": func(c *control, s net.Conn) { c.say("go"); model.NewReader(s).Request() },
	} {
		t.Run(name, func(t *testing.T) {
			mine, theirs := pair(t)
			conn, err := net.FileConn(mine)
			if err != nil {
				t.Fatal(err)
			}
			mine.Close()
			defer conn.Close()
			c := start(t, theirs, converse)
			when(c, conn)
			c.Close()
			if err := c.end(); err != nil {
				t.Error(err)
			}
			conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the stream stays open: %v", err)
			}
		})
	}
}

func TestControlBreaksTheRules(t *testing.T) {
	for name, say := range map[string]func(c *control){
		"converse twice": func(c *control) {
			a, b := pair(t)
			defer a.Close()
			defer b.Close()
			c.send(&converse, a)
		},
		"a result of nothing": func(c *control) { c.send(&role.ToolResult{ID: "x"}) },
		"go in half a turn":   func(c *control) { c.send(&role.Turn{Role: "user", Text: "a", More: true}); c.send(&role.Go{}) },
		"another call's result": func(c *control) {
			c.say("go")
			c.Recv() // said
			c.Recv() // call
			c.send(&role.ToolResult{ID: "other"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			mine, theirs := pair(t)
			play(t, mine, callLine("shell", `{}`)+done)
			c := start(t, theirs, converse)
			say(c)
			if err := c.end(); !errors.Is(err, role.ErrNotPermitted) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}
