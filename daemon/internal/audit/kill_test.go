package audit_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/auditproof"
	"github.com/closedpaw/closedpaw/daemon/internal/audit"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// startProcess starts a real audit role as a process of its own.
func startProcess(t *testing.T, dir string) (*running, *exec.Cmd) {
	t.Helper()
	a, b, err := role.Pair()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "AUDIT_TEST_DIR="+dir)
	cmd.ExtraFiles = []*os.File{a}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.Close()
	c, err := role.NewConn(b, role.Control, role.Audit)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{caller: role.NewCaller(c)}
	r.Writer = audit.NewWriter(r.caller)
	go r.caller.Run(nil)
	return r, cmd
}

// TestKill kills the audit role in the middle of appends, again and again. In every other life the disk also forgets what
// it was not asked to keep: the checkpoint and the hashes are put back to what they were before.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	acked := map[string]int64{}
	var mu sync.Mutex
	var was *auditproof.Remembered
	for life := range 8 {
		r, cmd := startProcess(t, dir)
		if life > 0 { // what was acknowledged must be there before anything else is
			was = check(t, r, was, acked)
		}
		before := map[string][]byte{}
		if life%2 == 1 {
			if err := r.DaemonStarted(t.Context(), "v"); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"checkpoint", "hashes"} {
				before[name] = read(t, dir, name)
			}
		}
		// At least some records; then death at any moment.
		var wg sync.WaitGroup
		some := make(chan struct{}, 1)
		for w := range 8 {
			wg.Go(func() {
				for i := 0; ; i++ {
					detail := fmt.Sprintf("%d/%d/%d", life, w, i)
					a, err := role.Ask[role.Appended](t.Context(), r.caller, &role.Append{Record: api.AuditRecord{Event: "test", Detail: detail}})
					if err != nil {
						return
					}
					mu.Lock()
					acked[detail] = a.Seq
					mu.Unlock()
					select {
					case some <- struct{}{}:
					default:
					}
				}
			})
		}
		<-some
		time.Sleep(time.Duration(rand.IntN(60_000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		wg.Wait()
		for name, b := range before {
			write(t, dir, name, b)
		}
		if _, err := auditproof.VerifyDir(dir); err != nil && !errors.Is(err, auditproof.ErrUnsigned) && len(before) == 0 {
			t.Errorf("life %d: VerifyDir: %v", life, err)
		}
	}
	r, cmd := startProcess(t, dir)
	check(t, r, was, acked)
	r.caller.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := auditproof.VerifyDir(dir); err != nil {
		t.Error(err)
	}
	t.Logf("%d records were acknowledged in 8 lives", len(acked))
}

func check(t *testing.T, r *running, was *auditproof.Remembered, acked map[string]int64) *auditproof.Remembered {
	t.Helper()
	found := map[string]int64{}
	for _, g := range r.all(t, 0, -1) {
		if g.Event == "test" {
			found[g.Detail] = g.Seq
		}
	}
	for detail, seq := range acked {
		if got, ok := found[detail]; !ok || got != seq {
			t.Errorf("record %d (%s) was acknowledged and is lost", seq, detail)
		}
	}
	return r.verify(t, was)
}

// TestDiskFull fills a real, small file system.
func TestDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: mounting a small tmpfs needs root; CI runs this")
	}
	mnt := t.TempDir()
	if err := unix.Mount("tmpfs", mnt, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=512k,mode=0700"); err != nil {
		t.Skipf("SKIPPED: cannot mount a tmpfs here: %v; CI runs this", err)
	}
	defer unix.Unmount(mnt, unix.MNT_DETACH)
	dir := filepath.Join(mnt, "log")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := start(t, dir)
	filler := filepath.Join(mnt, "filler")
	written := 0
	for round := range 3 {
		if err := os.WriteFile(filler, make([]byte, 64<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		refused := 0
		for i := 0; refused < 5; i++ {
			err := r.ToolIntent(t.Context(), audit.ToolEvent{Detail: strings.Repeat("x", 3000), Tool: "shell"})
			var f *role.Failed
			switch {
			case err == nil:
				written++
			case errors.As(err, &f) && f.Code == api.CodeUnavailable && strings.Contains(f.Text, "no space left") && strings.Contains(f.Hint, "free space"):
				refused++
			default:
				t.Fatal(err)
			}
			if i > 1000 {
				t.Fatal("the disk does not become full")
			}
		}
		if n := len(r.all(t, 0, -1)); n != written {
			t.Fatalf("round %d: %d records were acknowledged, %d are there", round, written, n)
		}
		r.verify(t, nil)
		// A start on the full disk: reading works, and nothing was left half-written.
		r.stop2(t)
		if n, err := auditproof.VerifyDir(dir); err != nil && !errors.Is(err, auditproof.ErrUnsigned) || n > int64(written) {
			t.Errorf("round %d: VerifyDir: %d, %v", round, n, err)
		}
		if err := os.Remove(filler); err != nil { // now there is room
			t.Fatal(err)
		}
		r = start(t, dir)
		written = len(r.all(t, 0, -1)) // a recovery is a record, too
	}
	r.stop(t)
	if n, err := auditproof.VerifyDir(dir); n != int64(written) || err != nil {
		t.Error(n, err)
	}
}

// stop2 is stop where the last checkpoint may not find room.
func (r *running) stop2(t *testing.T) {
	r.caller.Close()
	if err := <-r.done; err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}
