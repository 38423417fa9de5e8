// Package daemon wires closedpawd: which of its processes this one is, where its files are and which sockets it was
// given. It decides nothing: that is control's. What needs root while it runs is the launcher's.
package daemon

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/daemon/internal/agent"
	"github.com/closedpaw/closedpaw/daemon/internal/audit"
	"github.com/closedpaw/closedpaw/daemon/internal/control"
	"github.com/closedpaw/closedpaw/daemon/internal/gateway"
	"github.com/closedpaw/closedpaw/daemon/internal/launcher"
	"github.com/closedpaw/closedpaw/daemon/internal/review"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/setup"
)

// Where an installed daemon has its files. runsc lies beside closedpawd itself.
var installed = launcher.Paths{
	Etc:   "/etc/closedpaw",
	State: "/var/lib/closedpaw/control",
	Log:   "/var/lib/closedpaw/audit",
	Run:   "/run/closedpaw",
}

// Main is closedpawd. It returns when the process should end.
func Main(args []string, version string) error {
	f := flag.NewFlagSet("closedpawd", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), "usage: closedpawd -dev DIR [-ollama URL]   in the foreground, with all its files below DIR\n"+
			"       closedpawd [-idle-exit TIME]        by systemd: systemctl start closedpaw.socket\n"+
			"       closedpawd [-dev DIR] -setup        make keys, configuration and signed default policy where missing\n"+
			"       closedpawd [-dev DIR] -sign         sign the policy as it is now\n\n")
		f.PrintDefaults()
	}
	dev := f.String("dev", "", "run in the foreground, with all files below this `folder`")
	ollama := f.String("ollama", "", "`URL` of Ollama, instead of the configured one (with -dev)")
	idle := f.Duration("idle-exit", 0, "end when nobody has asked for anything for this `time` (0: never)")
	doSetup := f.Bool("setup", false, "make what the configuration folder lacks, and end")
	sign := f.Bool("sign", false, "sign the policy with the key that -setup made, and end")
	show := f.Bool("version", false, "print the version, and end")
	name := f.String("role", "", "internal: the role that this process is")
	store := f.Bool("store-hostns", false, "internal: give systemd the host's mount namespace to keep")
	inside := f.Int("hostns", -1, "internal: descriptor of the mount namespace that -dev came from")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return errors.New("bad arguments")
	}
	switch {
	case *name != "" && os.Getuid() == 0 && f.NArg() == 1:
		return fmt.Errorf("%s: %w", *name, launcher.Stage1(role.Name(*name), f.Arg(0)))
	case f.NArg() > 0:
		return fmt.Errorf("%q is too much: closedpawd takes flags only", f.Arg(0))
	case *name != "":
		if err := serve(role.Name(*name)); err != nil {
			return fmt.Errorf("%s: %w", *name, err)
		}
		return nil
	case *show:
		fmt.Println("closedpawd", version)
		return nil
	case os.Geteuid() != 0:
		return errors.New("must be started as root: sudo closedpawd -dev DIR, or systemctl start closedpaw.socket")
	case *store:
		return storeHostNS()
	case *doSetup || *sign:
		return prepare(*dev, *sign)
	}
	o := launcher.Options{Paths: installed, Version: version, Self: "/proc/self/exe", IdleExit: *idle}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot find myself: %w", err)
	}
	o.Runsc = filepath.Join(filepath.Dir(self), "runsc")
	// Before anything else, so that a Ctrl-C during the start is not lost.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer stop()
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE) // a closed stderr must not end it in the middle
	if *dev != "" {
		o.Dev, o.Ollama, o.IdleExit = true, *ollama, 0
		return runDev(ctx, *dev, *inside, o)
	}
	if *ollama != "" {
		return errors.New("-ollama goes with -dev; an installed daemon is configured in /etc/closedpaw/config.json")
	}
	return runInstalled(ctx, o)
}

// serve is stage 2 of a role.
func serve(name role.Name) error {
	c, extra, err := role.Enter(name)
	if err != nil {
		return err
	}
	switch name {
	case role.Control:
		return control.Serve(c[0], c[1], c[2])
	case role.Audit:
		return audit.Serve(c[0], "/log")
	case role.Gateway:
		return gateway.Serve(c[0])
	case role.Agent:
		return agent.Serve(c[0])
	case role.Review:
		return review.Serve(c[0], extra[0], extra[1], extra[2])
	}
	return fmt.Errorf("there is no role %q", name)
}

// prepare makes or signs the configuration.
func prepare(dev string, sign bool) error {
	etc := installed.Etc
	if dev != "" {
		dir, err := devDir(dev)
		if err != nil {
			return err
		}
		etc = filepath.Join(dir, "etc")
	}
	if sign {
		return setup.Sign(etc)
	}
	made, err := setup.Ensure(etc)
	for _, m := range made {
		fmt.Println("made", m)
	}
	return err
}

// lock keeps a second daemon off the same folder. It holds as long as the process lives.
func lock(run string) error {
	fd, err := unix.Open(filepath.Join(run, "lock"), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open %s/lock: %w", run, err)
	}
	// A daemon that was killed a moment ago may still be being taken apart by the kernel.
	for range 20 {
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("cannot use %s: another closedpawd does; end that one first: %w", run, err)
}
