package control

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// Each look at the host costs the launcher a process: a client that asks again and again, and does not even wait, must
// not keep it from starting the sandboxes of others.
func TestHostIsLookedAtRarely(t *testing.T) {
	a, b, err := role.Pair()
	if err != nil {
		t.Fatal(err)
	}
	mine, err := role.NewConn(a, role.Control, role.Launcher)
	if err != nil {
		t.Fatal(err)
	}
	its, err := role.NewConn(b, role.Launcher, role.Control)
	if err != nil {
		t.Fatal(err)
	}
	defer its.Close()
	var asked atomic.Int32
	go func() {
		for {
			p, err := its.Recv()
			if err != nil {
				return
			}
			asked.Add(1)
			_ = its.Send(p.Seq, &role.CheckedHost{Checks: []api.Check{{Name: "gvisor"}}})
		}
	}()
	c := role.NewCaller(mine)
	go func() { _ = c.Run(nil) }()
	defer c.Close()
	var h host
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%2 == 0 {
				cancel() // it has gone away
			}
			if l, err := h.checks(ctx, c); err != nil || len(l) != 1 {
				t.Errorf("%v, %v", l, err)
			}
		})
	}
	all.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("the launcher was asked %d times", n)
	}
}
