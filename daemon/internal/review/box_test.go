package review_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/review"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// reviewUID is an ordinary user whom nothing in the test's trees belongs to.
const reviewUID = 60631

// TestMain also is the role: the test binary executes itself as an ordinary user, as the launcher does.
func TestMain(m *testing.M) {
	if os.Getenv("CLOSEDPAW_TEST_REVIEW") == "" {
		unix.Umask(0o022)
		os.Exit(m.Run())
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "review:", err)
		os.Exit(1)
	}
}

func serve() error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	if os.Geteuid() != reviewUID || !strings.Contains(string(status), "CapEff:\t0000000000000000") {
		return fmt.Errorf("not an ordinary user: uid %d", os.Geteuid())
	}
	c, err := role.NewConn(os.NewFile(3, "control"), role.Review, role.Control)
	if err != nil {
		return err
	}
	return review.Serve(c, os.NewFile(4, "lower"), os.NewFile(5, "upper"), os.NewFile(6, "merged"))
}

// box is a folder, an overlay on it, and the layers, as a sandbox has them.
type box struct {
	t                          *testing.T
	base, lower, upper, merged string
}

// newBox fills a folder with fill and mounts the overlay with the launcher's options.
func newBox(t *testing.T, fill func(dir)) *box {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: this test mounts a real overlay and needs root")
	}
	base := t.TempDir()
	must(t, os.Chmod(base, 0o755))
	must(t, unix.Mount("tmpfs", base, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() { unix.Unmount(base, unix.MNT_DETACH) })
	b := &box{t: t, base: base, lower: base + "/lower", upper: base + "/upper", merged: base + "/merged"}
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		must(t, os.Mkdir(filepath.Join(base, d), 0o755))
	}
	if fill != nil {
		fill(dir{t, b.lower})
	}
	b.mount("lowerdir="+b.lower+",upperdir="+b.upper+",workdir="+base+"/work", 0)
	return b
}

func (b *box) mount(layers string, flags uintptr) {
	b.t.Helper()
	must(b.t, unix.Mount("overlay", b.merged, "overlay", flags, layers+",redirect_dir=nofollow,metacopy=off,index=off"))
	b.t.Cleanup(func() { unix.Unmount(b.merged, unix.MNT_DETACH) })
}

// change acts as the sandbox and then makes the view read-only: the same mount.
func (b *box) change(f func(dir)) *box {
	b.t.Helper()
	if f != nil {
		f(dir{b.t, b.merged})
	}
	must(b.t, unix.Mount(b.merged, b.merged, "", unix.MS_BIND, ""))
	must(b.t, unix.Mount("", b.merged, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, ""))
	b.t.Cleanup(func() { unix.Unmount(b.merged, unix.MNT_DETACH) })
	return b
}

// remount makes the view one that was mounted anew, of both layers read-only.
func (b *box) remount() *box {
	b.t.Helper()
	must(b.t, unix.Unmount(b.merged, unix.MNT_DETACH))
	must(b.t, unix.Unmount(b.merged, unix.MNT_DETACH))
	b.mount("lowerdir="+b.upper+":"+b.lower, unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID)
	return b
}

// start runs the role in a process of its own and returns control's end.
func (b *box) start() *role.Caller {
	b.t.Helper()
	mine, its, err := role.Pair()
	must(b.t, err)
	files := []*os.File{its}
	for _, d := range []string{b.lower, b.upper, b.merged} {
		f, err := os.Open(d)
		must(b.t, err)
		files = append(files, f)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"CLOSEDPAW_TEST_REVIEW=1", "GORACE=atexit_sleep_ms=0"}
	cmd.ExtraFiles, cmd.Stderr = files, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: reviewUID, Gid: reviewUID}}
	must(b.t, cmd.Start())
	for _, f := range files {
		f.Close()
	}
	c, err := role.NewConn(mine, role.Control, role.Review)
	must(b.t, err)
	b.t.Cleanup(func() {
		c.Close()
		if err := cmd.Wait(); err != nil {
			b.t.Errorf("the role ended badly: %v", err)
		}
	})
	return role.NewCaller(c)
}

var bounds = role.Scan{Entries: 10_000, Bytes: 64 << 20, DiffBytes: 256 << 10}

func (b *box) collect(s role.Scan) (*api.Changes, *role.Caller, error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := b.start()
	set, err := review.Collect(ctx, c, s)
	return set, c, err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// dir does things in a folder and fails the test where they fail.
type dir struct {
	t    *testing.T
	path string
}

func (d dir) p(name string) string { return d.path + "/" + name }

func (d dir) write(name, text string) {
	d.t.Helper()
	must(d.t, os.WriteFile(d.p(name), []byte(text), 0o644))
}

func (d dir) mkdir(name string) { d.t.Helper(); must(d.t, os.MkdirAll(d.p(name), 0o755)) }
func (d dir) rm(name string)    { d.t.Helper(); must(d.t, os.RemoveAll(d.p(name))) }
func (d dir) mv(from, to string) {
	d.t.Helper()
	must(d.t, os.Rename(d.p(from), d.p(to)))
}
func (d dir) link(target, name string) { d.t.Helper(); must(d.t, os.Symlink(target, d.p(name))) }
func (d dir) mode(name string, mode uint32) {
	d.t.Helper()
	must(d.t, unix.Chmod(d.p(name), mode))
}
func (d dir) node(name string, mode uint32, dev int) {
	d.t.Helper()
	must(d.t, unix.Mknod(d.p(name), mode, dev))
}
