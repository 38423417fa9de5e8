package session

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/guard/guardtest"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/sandbox/runsc"
)

type nowhere struct{}

func (nowhere) Send(api.Event, bool) error { return nil }

// An agent that was taken over must not fill control's memory, nor the audit log, with calls.
func TestHostileAgentIsBounded(t *testing.T) {
	for name, args := range map[string]json.RawMessage{"many": json.RawMessage("{}"), "large": json.RawMessage(`{"x":"` + strings.Repeat("x", 100<<10) + `"}`)} {
		t.Run(name, func(t *testing.T) {
			a, b, err := role.Pair()
			if err != nil {
				t.Fatal(err)
			}
			mine, err := role.NewConn(a, role.Control, role.Agent)
			if err != nil {
				t.Fatal(err)
			}
			its, err := role.NewConn(b, role.Agent, role.Control)
			if err != nil {
				t.Fatal(err)
			}
			h := guardtest.New(t)
			w := &work{m: &Manager{Deps: Deps{Guard: h.Guard, Audit: h.Audit, Runtime: runsc.New(nil)}}, rec: &Record{UID: 1000}, out: nowhere{}, turns: 20}
			w.rec.ID = "abcdefgh"
			calls, size := 0, 0
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				defer its.Close()
				for calls < 2000 {
					if its.Send(0, &role.ToolCall{ID: "c", Name: "nothing", Args: args}) != nil {
						return
					}
					if _, err := its.Recv(); err != nil {
						return
					}
					calls, size = calls+1, size+len(args)
				}
			}()
			ctx := t.Context()
			go func() {
				select {
				case <-time.After(time.Minute):
					mine.Close()
				case <-ctx.Done():
				}
			}()
			_, err = w.listen(ctx, &agent{conn: mine})
			mine.Close()
			<-ended
			if err == nil || calls >= 2000 || size > 16<<20 {
				t.Errorf("%d calls of %d bytes were answered: %v", calls, size, err)
			}
		})
	}
}
