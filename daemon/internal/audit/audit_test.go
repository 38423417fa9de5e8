package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/auditproof"
	"github.com/closedpaw/closedpaw/daemon/internal/audit"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// TestMain is also the audit role that TestKill starts and kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("AUDIT_TEST_DIR"); dir != "" {
		c, err := role.NewConn(os.NewFile(3, "control"), role.Audit, role.Control)
		if err == nil {
			err = audit.Serve(c, dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	slog.SetDefault(slog.New(slog.DiscardHandler)) // thousands of damaged logs follow
	os.Exit(m.Run())
}

// running is control's side of an audit role that runs as a goroutine.
type running struct {
	*audit.Writer
	caller *role.Caller
	done   chan error
}

func serve(tb testing.TB, f func(*role.Conn) error) *running {
	tb.Helper()
	a, b, err := role.Pair()
	if err != nil {
		tb.Fatal(err)
	}
	ac, err := role.NewConn(a, role.Audit, role.Control)
	if err != nil {
		tb.Fatal(err)
	}
	bc, err := role.NewConn(b, role.Control, role.Audit)
	if err != nil {
		tb.Fatal(err)
	}
	r := &running{caller: role.NewCaller(bc), done: make(chan error, 1)}
	r.Writer = audit.NewWriter(r.caller)
	go func() { r.done <- f(ac) }()
	go r.caller.Run(nil)
	tb.Cleanup(func() { bc.Close() })
	return r
}

func start(tb testing.TB, dir string) *running {
	tb.Helper()
	return serve(tb, func(c *role.Conn) error { return audit.Serve(c, dir) })
}

// stop ends the role as the end of control does.
func (r *running) stop(tb testing.TB) {
	tb.Helper()
	r.caller.Close()
	if err := <-r.done; err != nil {
		tb.Fatal(err)
	}
}

func (r *running) all(tb testing.TB, limit int, uid int64) (records []api.AuditRecord) {
	tb.Helper()
	for after := int64(-1); ; {
		p, err := r.Read(tb.Context(), after, limit, uid)
		if err != nil {
			tb.Fatal(err)
		}
		records = append(records, p.Records...)
		if p.Next == -1 {
			return records
		}
		if p.Next <= after {
			tb.Fatalf("after %d comes %d", after, p.Next)
		}
		after = p.Next
	}
}

// fill appends n records and returns a verified checkpoint of the log then.
func (r *running) fill(tb testing.TB, n int) *auditproof.Remembered {
	tb.Helper()
	for i := range n {
		if err := r.RequestDenied(tb.Context(), int64(1000+i%2), "ask", fmt.Sprintf("reason %d", i)); err != nil {
			tb.Fatal(err)
		}
	}
	return r.verify(tb, nil)
}

func (r *running) verify(tb testing.TB, was *auditproof.Remembered) *auditproof.Remembered {
	tb.Helper()
	var size int64
	if was != nil {
		size = was.Size
	}
	p, err := r.Prove(tb.Context(), size)
	if err != nil {
		tb.Fatal(err)
	}
	is, err := auditproof.Verify(*p, was)
	if err != nil {
		tb.Fatal(err)
	}
	return is
}

func TestEvents(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	ctx := t.Context()
	e := audit.ToolEvent{UID: 1000, Session: "s1", Tool: "shell", Decision: "allow", Reason: "in the sandbox", Tier: "gvisor", Digest: "d1", Detail: "ls <\x1b]52> & 'й'\n"}
	for i, err := range []error{
		r.DaemonStarted(ctx, "v1"),
		r.LeftoversRemoved(ctx, 2),
		r.PolicyLoaded(ctx, 7, "d0"),
		r.RequestDenied(ctx, 1001, "run", "not allowed"),
		r.SessionBegan(1000, "s1", "ask", "demo", "gvisor")(ctx),
		r.ToolIntent(ctx, e),
		r.ToolOutcome(ctx, e, audit.ToolResult{ExitCode: 3, Duration: 12 * time.Millisecond}),
		r.ToolOutcome(ctx, e, audit.ToolResult{Err: "timeout", Duration: time.Second}),
		r.ChangesFound(ctx, 1000, "s1", &api.Changes{Added: make([]api.Change, 2), Digest: "d2"}),
		r.ApprovalAsked(ctx, 1000, api.Approval{ID: "a1", Session: "s1", Tool: "apply", Summary: "two files", Reason: "policy", Level: "confirm", Digest: "d2"}),
		r.ApprovalAnswered(ctx, 1000, "s1", "a1", "allow", "pid 5"),
		r.ApplyOutcome(ctx, 1000, "s1", "d2", 1, 1, 0),
		r.SessionEnded(ctx, 1000, "s1", "done"),
		r.RoleDied(ctx, role.Gateway, "signal: killed"),
		r.DaemonStopped(ctx, "asked to"),
	} {
		if err != nil {
			t.Fatal(i, err)
		}
	}
	want := []api.AuditRecord{
		{UID: -1, Event: "daemon.started", Detail: "v1"},
		{UID: -1, Event: "leftovers.removed", Detail: "2"},
		{UID: -1, Event: "policy.loaded", Digest: "d0", Detail: "serial 7"},
		{UID: 1001, Event: "request.denied", Tool: "run", Decision: "deny", Reason: "not allowed"},
		{UID: 1000, Session: "s1", Event: "session.began", Tier: "gvisor", Detail: "ask with model demo"},
		{UID: 1000, Session: "s1", Event: "tool.intent", Tool: "shell", Decision: "allow", Reason: "in the sandbox", Tier: "gvisor", Digest: "d1", Detail: e.Detail},
		{UID: 1000, Session: "s1", Event: "tool.outcome", Tool: "shell", Decision: "allow", Reason: "in the sandbox", Tier: "gvisor", Digest: "d1", Detail: "exit code 3 after 12 ms"},
		{UID: 1000, Session: "s1", Event: "tool.outcome", Tool: "shell", Decision: "allow", Reason: "in the sandbox", Tier: "gvisor", Digest: "d1", Detail: "failed after 1000 ms: timeout"},
		{UID: 1000, Session: "s1", Event: "changes.found", Digest: "d2", Detail: "added 2, modified 0, deleted 0, renamed 0, refused 0"},
		{UID: 1000, Session: "s1", Event: "approval.asked", Tool: "apply", Decision: "ask", Reason: "policy", Digest: "d2", Detail: "approval a1, level confirm: two files"},
		{UID: 1000, Session: "s1", Event: "approval.answered", Decision: "allow", Reason: "pid 5", Detail: "approval a1"},
		{UID: 1000, Session: "s1", Event: "apply.outcome", Tool: "apply", Digest: "d2", Detail: "the client reports: applied 1, conflicts 1, failed 0"},
		{UID: 1000, Session: "s1", Event: "session.ended", Reason: "done"},
		{UID: -1, Event: "role.died", Tool: "gateway", Reason: "signal: killed"},
		{UID: -1, Event: "daemon.stopped", Reason: "asked to"},
	}
	for i := range want {
		want[i].Seq = int64(i)
	}
	got := r.all(t, 0, -1)
	if d := cmp.Diff(want, got, cmpopts.IgnoreFields(api.AuditRecord{}, "Time")); d != "" {
		t.Error(d)
	}
	for _, g := range got {
		if age := time.Since(g.Time); age < 0 || age > time.Minute || g.Time.Location() != time.UTC {
			t.Errorf("record %d has the time %v", g.Seq, g.Time)
		}
	}
	was := r.verify(t, nil)
	r.stop(t)

	// A later life goes on where this one ended, and an orderly end leaves nothing to recover.
	r = start(t, dir)
	if err := r.DaemonStarted(ctx, "v2"); err != nil {
		t.Fatal(err)
	}
	if n := len(r.all(t, 0, -1)); n != len(want)+1 {
		t.Errorf("%d records after a restart", n)
	}
	r.verify(t, was)
	r.stop(t)
	if n, err := auditproof.VerifyDir(dir); n != int64(len(want)+1) || err != nil {
		t.Error(n, err)
	}
	for name, mode := range map[string]os.FileMode{"key": 0o600, "key.pub": 0o644, "records": 0o600, "hashes": 0o600, "checkpoint": 0o600} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode() != mode {
			t.Errorf("%s: mode %v, %v", name, st.Mode(), err)
		}
	}
}

func TestFieldsAreBounded(t *testing.T) {
	r := start(t, t.TempDir())
	long := strings.Repeat("\x00\xffé", 200_000)
	// A message of a control that was taken over, past the Writer's own bounds.
	rec := api.AuditRecord{Seq: 99, Time: time.Unix(1, 0), UID: 5, Session: long[:9000], Event: long[:9000], Tool: long[:9000], Decision: long[:900],
		Reason: long[:9000], Tier: long[:9000], Digest: long[:900], Detail: long[:9000]}
	if _, err := role.Ask[role.Appended](t.Context(), r.caller, &role.Append{Record: rec}); err != nil {
		t.Fatal(err)
	}
	if err := r.ToolIntent(t.Context(), audit.ToolEvent{Detail: long}); err != nil { // would be no message at all
		t.Fatal(err)
	}
	for i, g := range r.all(t, 0, -1) {
		if g.Seq != int64(i) || g.Time.Year() < 2000 {
			t.Errorf("control has set the number or the time: %d, %v", g.Seq, g.Time)
		}
		for what, f := range map[string]struct {
			s   string
			max int
		}{"session": {g.Session, 64}, "event": {g.Event, 64}, "tool": {g.Tool, 256}, "decision": {g.Decision, 64}, "reason": {g.Reason, 1 << 10},
			"tier": {g.Tier, 64}, "digest": {g.Digest, 128}, "detail": {g.Detail, 4 << 10}} {
			if len(f.s) > f.max || !utf8.ValidString(f.s) || len(f.s) > 100 && !strings.HasSuffix(f.s, "…[cut]") {
				t.Errorf("%s: %d bytes: %q", what, len(f.s), f.s)
			}
		}
		if len(g.Detail) < 4000 {
			t.Errorf("detail has only %d bytes left", len(g.Detail))
		}
	}
	r.stop(t)
}

func TestPages(t *testing.T) {
	r := start(t, t.TempDir())
	const n = 300
	var wg sync.WaitGroup
	for w := range 30 {
		wg.Go(func() {
			for i := range n / 30 { // lines of up to 15 KB: a page ends where its bytes do
				// In someone's detail, another's uid proves nothing.
				if err := r.ToolIntent(t.Context(), audit.ToolEvent{UID: int64(i % 3), Detail: `"uid":2,` + strings.Repeat("\x01", i*300), Tool: fmt.Sprint(w)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, limit := range []int{0, 7, 1 << 30} {
		all := r.all(t, limit, -1)
		if len(all) != n {
			t.Fatalf("limit %d: %d records", limit, len(all))
		}
		for i, g := range all {
			if g.Seq != int64(i) {
				t.Fatalf("limit %d: record %d has number %d", limit, i, g.Seq)
			}
		}
		mine := r.all(t, limit, 2)
		var want []api.AuditRecord
		for _, g := range all {
			if g.UID == 2 {
				want = append(want, g)
			}
		}
		if d := cmp.Diff(want, mine); d != "" || len(want) != 90 {
			t.Errorf("limit %d: %d records of uid 2, %s", limit, len(want), d)
		}
	}
	if p, err := r.Read(t.Context(), -1, 0, 77); err != nil || len(p.Records) != 0 {
		t.Error(p, err)
	}
	for _, after := range []int64{n - 1, n, 1<<63 - 1} {
		if p, err := r.Read(t.Context(), after, 5, -1); err != nil || len(p.Records) != 0 || p.Next != -1 || p.Size != n {
			t.Error(p, err)
		}
	}
	for i := int64(-1); i < n-1; i += 17 { // each place is found by halving
		p, err := r.Read(t.Context(), i, 1, -1)
		if err != nil || len(p.Records) != 1 || p.Records[0].Seq != i+1 {
			t.Fatal(i, p, err)
		}
	}
	var f *role.Failed
	if _, err := r.Read(t.Context(), -2, 0, -1); !errors.As(err, &f) || f.Code != api.CodeBadRequest {
		t.Error(err)
	}
	if _, err := r.Prove(t.Context(), -1); !errors.As(err, &f) || f.Code != api.CodeBadRequest {
		t.Error(err)
	}
	r.stop(t)
}

// TestProofs asks for a proof from each size of a log to each later one.
func TestProofs(t *testing.T) {
	r := start(t, t.TempDir())
	known := []*auditproof.Remembered{r.verify(t, nil)}
	for range 20 {
		r.fill(t, 1)
		for _, was := range known {
			r.verify(t, was)
		}
		known = append(known, r.verify(t, nil))
	}
	// A log that is shorter than what was known cannot prove anything, but signs what it has.
	p, err := r.Prove(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	was := *known[20]
	was.Size = 1000
	_, err = auditproof.Verify(*p, &was)
	if err == nil || !strings.Contains(err.Error(), "no longer contains the first 1000 records") || !strings.Contains(err.Error(), "only 20 now") {
		t.Error(err)
	}
	r.stop(t)
}

// TestGroupCommit counts real fsyncs, each made slower, so that what comes meanwhile must gather.
func TestGroupCommit(t *testing.T) {
	var syncs atomic.Int64
	dir := t.TempDir()
	r := serve(t, func(c *role.Conn) error {
		return audit.ServeSync(c, dir, func(f *os.File) error {
			syncs.Add(1)
			time.Sleep(5 * time.Millisecond)
			return f.Sync()
		})
	})
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 10 {
				if err := r.RequestDenied(t.Context(), 1, "ask", ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := syncs.Load(); n > 640/8 {
		t.Errorf("640 records took %d fsyncs", n)
	}
	r.stop(t)
	if n, err := auditproof.VerifyDir(dir); n != 640 || err != nil {
		t.Error(n, err)
	}
}

// TestWriteErrors: what could not be synced is refused, leaves nothing behind, and does not stop what comes later.
func TestWriteErrors(t *testing.T) {
	dir := t.TempDir()
	var broken atomic.Bool
	r := serve(t, func(c *role.Conn) error {
		return audit.ServeSync(c, dir, func(f *os.File) error {
			if broken.Load() {
				return errors.New("input/output error")
			}
			return f.Sync()
		})
	})
	was := r.fill(t, 5)
	for range 3 {
		broken.Store(true)
		var f *role.Failed
		err := r.DaemonStarted(t.Context(), "lost")
		if !errors.As(err, &f) || f.Code != api.CodeUnavailable || f.Hint == "" || !strings.Contains(err.Error(), "input/output error") {
			t.Fatal(err)
		}
		broken.Store(false)
		was = r.verify(t, was)
		r.fill(t, 2)
	}
	if n := len(r.all(t, 0, -1)); n != 11 {
		t.Errorf("%d records", n)
	}
	r.stop(t)
	b, _ := os.ReadFile(filepath.Join(dir, "records"))
	if n, err := auditproof.VerifyDir(dir); n != 11 || err != nil || strings.Contains(string(b), "lost") {
		t.Errorf("%d, %v, %s", n, err, b)
	}
}

func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			for i := range 25 {
				if err := r.DaemonStarted(t.Context(), fmt.Sprintf("%d/%d", w, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 2 {
		wg.Go(func() {
			var was *auditproof.Remembered
			for was == nil || was.Size < 400 {
				was = r.verify(t, was)
				if n := int64(len(r.all(t, 0, -1))); n < was.Size {
					t.Errorf("%d records, after %d were proven", n, was.Size)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, g := range r.all(t, 0, -1) {
		seen[g.Detail] = true
	}
	if len(seen) != 400 {
		t.Errorf("%d records", len(seen))
	}
	r.stop(t)
}

// TestCancelled: what has happened is recorded though whoever asked is gone.
func TestCancelled(t *testing.T) {
	r := start(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.ToolOutcome(ctx, audit.ToolEvent{}, audit.ToolResult{}); err != nil {
		t.Error(err)
	}
	if err := r.ToolIntent(ctx, audit.ToolEvent{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	r.stop(t)
	if err := r.DaemonStopped(t.Context(), "late"); err == nil {
		t.Error("recorded without an audit role")
	}
}

// TestKeys: any key must work, whatever its base64 looks like.
func TestKeys(t *testing.T) {
	for range 40 {
		dir := t.TempDir()
		for range 2 {
			r := start(t, dir)
			r.verify(t, nil)
			r.stop(t)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			r := start(b, b.TempDir())
			e := audit.ToolEvent{UID: 1000, Session: "abcdefgh", Tool: "shell", Decision: "allow", Tier: "gvisor", Digest: strings.Repeat("a", 64), Detail: strings.Repeat("d", 200)}
			var left atomic.Int64
			left.Store(int64(b.N))
			b.ResetTimer()
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						if err := r.ToolIntent(b.Context(), e); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
			b.StopTimer()
			r.stop(b)
		})
	}
}

// BenchmarkBareFsync is what the disk gives: one write of a record's size and one fsync at a time.
func BenchmarkBareFsync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "f"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	line := []byte(strings.Repeat("x", 480))
	for b.Loop() {
		if _, err := f.Write(line); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "fsyncs/s")
}
