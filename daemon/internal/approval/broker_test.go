package approval_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/approval"
)

func question() approval.Question {
	return approval.Question{UID: 1000, Session: "s", Tool: "shell", Summary: "run true", Level: api.LevelConfirm, Digest: "d"}
}

// ask opens a question and answers it by act once it can be seen.
func ask(t *testing.T, b *approval.Broker, ctx context.Context, q approval.Question, act func(id string)) approval.Answer {
	t.Helper()
	acted := make(chan struct{})
	_, ans, _ := b.Ask(ctx, q, func(a api.Approval) {
		go func() {
			defer close(acted)
			act(a.ID)
		}()
	})
	<-acted
	return ans
}

func TestOnlyAMatchingYesAllows(t *testing.T) {
	yes := api.Answer{Allow: true, Digest: "d"}
	for name, c := range map[string]struct {
		uid  uint32
		ans  api.Answer
		want error
		out  string // "": still open afterwards
	}{
		"yes":              {1000, yes, nil, approval.Allow},
		"no":               {1000, api.Answer{}, nil, approval.Deny},
		"no, other digest": {1000, api.Answer{Digest: "x"}, nil, approval.Deny},
		"yes, other bytes": {1000, api.Answer{Allow: true, Digest: "x"}, approval.ErrDigest, ""},
		"yes, no digest":   {1000, api.Answer{Allow: true}, approval.ErrDigest, ""},
		"another user":     {1001, yes, approval.ErrNotYours, ""},
		"root":             {0, yes, approval.ErrNotYours, ""},
		"root says no":     {0, api.Answer{}, approval.ErrNotYours, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := approval.New(time.Minute)
				var err error
				ans := ask(t, b, t.Context(), question(), func(id string) { _, err = b.Answer(c.uid, id, c.ans, "test") })
				if !errors.Is(err, c.want) {
					t.Errorf("error %v, want %v", err, c.want)
				}
				want := c.out
				if want == "" {
					want = approval.Expired
				}
				if ans.Outcome != want {
					t.Errorf("outcome %q, want %q", ans.Outcome, want)
				}
			})
		})
	}
}

func TestAuthenticateCannotBeConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := approval.New(time.Minute)
		q := question()
		q.Level = api.LevelAuthenticate
		ans := ask(t, b, t.Context(), q, func(id string) {
			if _, err := b.Answer(1000, id, api.Answer{Allow: true, Digest: "d"}, "test"); err == nil {
				t.Error("a click was enough")
			}
		})
		if ans.Outcome != approval.Expired {
			t.Errorf("outcome %q", ans.Outcome)
		}
	})
}

func TestEndOfSessionDenies(t *testing.T) {
	b := approval.New(time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	_, ans, err := b.Ask(ctx, question(), func(api.Approval) { cancel() })
	if ans.Outcome != approval.Deny || err == nil {
		t.Errorf("outcome %q, error %v", ans.Outcome, err)
	}
	if n := len(b.Open(func(uint32) bool { return true })); n != 0 {
		t.Errorf("%d questions are left open", n)
	}
}

func TestOneAnswerCounts(t *testing.T) {
	for range 200 {
		b := approval.New(time.Minute)
		var won atomic.Int32
		var wg sync.WaitGroup
		_, _, err := b.Ask(t.Context(), question(), func(a api.Approval) {
			for i := range 8 {
				wg.Go(func() {
					if _, err := b.Answer(1000, a.ID, api.Answer{Allow: i%2 == 0, Digest: "d"}, "test"); err == nil {
						won.Add(1)
					} else if !errors.Is(err, approval.ErrAnswered) {
						t.Error(err)
					}
				})
			}
		})
		wg.Wait()
		if err != nil || won.Load() != 1 {
			t.Fatalf("%d answers counted, error %v", won.Load(), err)
		}
	}
}

func TestBoundPerUser(t *testing.T) {
	b := approval.New(time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	opened := make(chan bool)
	var wg sync.WaitGroup
	for range approval.MaxOpen {
		wg.Go(func() { b.Ask(ctx, question(), func(api.Approval) { opened <- true }) })
		<-opened
	}
	if _, ans, err := b.Ask(ctx, question(), func(api.Approval) { t.Error("opened") }); !errors.Is(err, approval.ErrTooMany) || ans.Outcome != approval.Deny {
		t.Errorf("outcome %q, error %v", ans.Outcome, err)
	}
	other := question()
	other.UID = 1001
	if ans := ask(t, b, ctx, other, func(id string) { b.Answer(1001, id, api.Answer{Allow: true, Digest: "d"}, "t") }); ans.Outcome != approval.Allow {
		t.Errorf("another user is slowed: %q", ans.Outcome)
	}
	cancel()
	wg.Wait()
}

func TestOthersSeeNothing(t *testing.T) {
	b := approval.New(time.Minute)
	mine := func(o uint32) bool { return o == 1001 }
	ask(t, b, t.Context(), question(), func(id string) {
		if len(b.Open(mine)) != 0 {
			t.Error("another user's question is listed")
		}
		if _, err := b.Get(id, mine); !errors.Is(err, approval.ErrNotFound) {
			t.Errorf("another user's question can be read: %v", err)
		}
		b.Answer(1000, id, api.Answer{}, "t")
	})
}

// A question can be listed, and so answered, before its asker has been told of it.
func TestAnsweredAtOnce(t *testing.T) {
	b := approval.New(time.Minute)
	var all sync.WaitGroup
	defer all.Wait()
	asked := make(chan struct{})
	all.Go(func() {
		for {
			for _, a := range b.Open(func(uint32) bool { return true }) {
				_, _ = b.Answer(1000, a.ID, api.Answer{}, "test") // another question's turn may come meanwhile
			}
			select {
			case <-asked:
				return
			default:
			}
		}
	})
	for range 2000 {
		_, ans, err := b.Ask(t.Context(), question(), func(a api.Approval) {
			if a.Outcome != "" {
				t.Errorf("asked as %q", a.Outcome)
			}
		})
		if ans.Outcome != approval.Deny || err != nil {
			t.Errorf("%q, %v", ans.Outcome, err)
		}
	}
	close(asked)
}
