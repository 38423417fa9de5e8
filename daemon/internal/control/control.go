// Package control is the role that decides: it holds the client socket, the signed policy, the questions to people and
// the sessions, and asks the other roles for what it may not do itself.
//
// It runs as an ordinary system user in a root folder that holds the configuration, read-only, and its own state. It has
// no network but UNIX sockets, opens no path that a user named, and never reads what the world wrote other than as a
// bounded message of another role. It does not serve without a valid policy, an audit log that takes records, and a
// sandbox as strong as policy asks for.
package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/closedpaw/closedpaw/daemon/internal/approval"
	"github.com/closedpaw/closedpaw/daemon/internal/audit"
	"github.com/closedpaw/closedpaw/daemon/internal/config"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/peer"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/route"
	"github.com/closedpaw/closedpaw/daemon/internal/sandbox/runsc"
	"github.com/closedpaw/closedpaw/daemon/internal/session"
	"github.com/closedpaw/closedpaw/policy"
)

// Where things are in control's own root.
const (
	etcDir   = "/etc/closedpaw"
	stateDir = "/state"
)

const (
	connectionsPerUser = 32
	headerTime         = 10 * time.Second
	stopTime           = 4 * time.Second // the launcher waits a little longer
)

// daemon is all that serves.
type daemon struct {
	begin    *role.Begin
	config   config.Config
	bundle   *policy.Bundle
	launcher *role.Caller
	gateway  *role.Caller
	audit    *audit.Writer
	broker   *approval.Broker
	guard    *guard.Guard
	runtime  *runsc.Runtime
	sessions *session.Manager
	host     host
	prepared chan struct{} // closed when all above is set
	since    time.Time
	requests atomic.Int64 // that are being served
	used     atomic.Int64 // when the last one ended, in Unix seconds
}

// Serve is all that role control does: it returns when it was told to stop, or with why it cannot go on.
func Serve(launcher, auditor, gateway *role.Conn) error {
	d := &daemon{launcher: role.NewCaller(launcher), gateway: role.NewCaller(gateway), prepared: make(chan struct{}), since: time.Now().UTC()}
	ac := role.NewCaller(auditor)
	d.audit, d.runtime = audit.NewWriter(ac), runsc.New(d.launcher)
	told := make(chan role.Packet, 1)
	stop := make(chan struct{})
	go func() { _ = ac.Run(nil) }() // its end is seen by Gone
	go func() { _ = d.gateway.Run(nil) }()
	go func() { _ = d.launcher.Run(d.listen(told, stop)) }()
	var p role.Packet
	select {
	case p = <-told:
	case <-d.launcher.Gone():
		return d.launcher.Err()
	}
	d.begin = p.Msg.(*role.Begin)
	if err := d.prepare(); err != nil {
		p.Close()
		return err
	}
	close(d.prepared)
	serveErr := d.serve(p.Files, ac, stop)
	reason := "stopped"
	if serveErr != nil {
		reason = serveErr.Error()
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	if err := d.audit.DaemonStopped(ctx, reason); serveErr == nil && err != nil {
		return err
	}
	return serveErr
}

// listen handles what the launcher says unasked.
func (d *daemon) listen(told chan<- role.Packet, stop chan struct{}) func(role.Packet) error {
	begun, stopped := false, false
	return func(p role.Packet) error {
		switch m := p.Msg.(type) {
		case *role.Begin:
			if begun {
				p.Close()
				return fmt.Errorf("%w: begin twice", role.ErrNotPermitted)
			}
			begun = true
			told <- p
		case *role.Stop:
			if !stopped {
				stopped = true
				close(stop)
			}
		case *role.Died:
			go d.died(m)
		default:
			p.Close()
			return fmt.Errorf("%w: %T was not asked for", role.ErrNotPermitted, m)
		}
		return nil
	}
}

func (d *daemon) died(m *role.Died) {
	ctx, cancel := context.WithTimeout(context.Background(), role.Timeout)
	defer cancel()
	name := m.Role
	if m.Sandbox != "" {
		d.runtime.Died(m.Sandbox)
		name = "sandbox"
	} else {
		select { // the first agent is started while sessions is being set
		case <-d.prepared:
			d.sessions.AgentDied(m.ID)
		case <-ctx.Done():
		}
	}
	if err := d.audit.RoleDied(ctx, name, m.Why); err != nil {
		fmt.Fprintln(os.Stderr, "closedpawd control:", err)
	}
}

// prepare loads what must be there before anything is served.
func (d *daemon) prepare() error {
	ctx, cancel := context.WithTimeout(context.Background(), role.Timeout)
	defer cancel()
	var err error
	if d.config, err = readConfig(etcDir); err != nil {
		return err
	}
	if d.begin.Ollama != "" {
		if err := config.CheckOllama(d.begin.Ollama); err != nil {
			return fmt.Errorf("-ollama: %w", err)
		}
		d.config.Ollama = d.begin.Ollama
	}
	// First the log: without it nothing may happen, and what follows is recorded in it.
	if err := d.audit.DaemonStarted(ctx, d.begin.Version); err != nil {
		return fmt.Errorf("cannot start without an audit log: %w%s", err, mend(err))
	}
	if d.bundle, err = loadPolicy(etcDir, stateDir); err != nil {
		return err
	}
	if err := d.audit.PolicyLoaded(ctx, d.bundle.Serial(), d.bundle.Digest()); err != nil {
		return err
	}
	if d.begin.Leftovers > 0 {
		if err := d.audit.LeftoversRemoved(ctx, d.begin.Leftovers); err != nil {
			return err
		}
	}
	profile := d.bundle.Profile()
	if !profile.Accepts(d.runtime.Tier()) {
		return fmt.Errorf("cannot start: policy asks for a sandbox of tier %q and this machine has %q (install the stronger one, or lower \"tier\" in policy/profile.json and sign the policy again)",
			profile.Tier, d.runtime.Tier())
	}
	store, err := session.OpenStore(stateDir + "/sessions")
	if err != nil {
		return err
	}
	d.broker = approval.New(d.config.Approval())
	d.guard = guard.New(d.bundle, d.audit, d.broker, d.config.Person, d.runtime.Tier())
	d.sessions = session.NewManager(session.Deps{Guard: d.guard, Audit: d.audit, Runtime: d.runtime, Launcher: d.launcher, Gateway: d.gateway,
		Store: store, Profile: profile, Tools: d.bundle.Tools(), Ollama: d.config.Ollama, Model: d.config.Model})
	return nil
}

// mend is what another role says about how to go on.
func mend(err error) string {
	var f *role.Failed
	if errors.As(err, &f) && f.Hint != "" {
		return " (" + f.Hint + ")"
	}
	return ""
}

// serve answers clients until it is told to stop or a role that it needs has ended.
func (d *daemon) serve(listeners []*os.File, ac *role.Caller, stop <-chan struct{}) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	srv := &http.Server{
		Handler: d.counted(route.New(d.guard, owners{d}, d.table())), ConnContext: peer.ConnContext, BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: headerTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	failed := make(chan error, len(listeners))
	for _, f := range listeners {
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("cannot take over a listening socket: %w", err)
		}
		u, ok := l.(*net.UnixListener)
		if !ok {
			return errors.New("cannot serve on anything but UNIX sockets (look at ListenStream= in closedpaw.socket)")
		}
		u.SetUnlinkOnClose(false)
		go func() { failed <- srv.Serve(peer.Listen(u, connectionsPerUser, d.config.Person)) }()
	}
	if err := d.launcher.Send(0, &role.Ready{}); err != nil {
		return err
	}
	d.used.Store(time.Now().Unix())
	go d.idle(ctx)
	var err error
	select {
	case <-stop:
	case err = <-failed:
	case <-ac.Gone():
		err = ac.Err()
	case <-d.gateway.Gone():
		err = d.gateway.Err()
	case <-d.launcher.Gone():
		return d.launcher.Err()
	}
	return errors.Join(err, d.shut(srv, cancel))
}

// shut ends gracefully: no new request, what runs is cancelled and cleaned up.
func (d *daemon) shut(srv *http.Server, cancel context.CancelFunc) error {
	ctx, done := context.WithTimeout(context.Background(), stopTime)
	defer done()
	cancel()
	if err := srv.Shutdown(ctx); err != nil {
		srv.Close()
	}
	ended := make(chan struct{})
	go func() { d.sessions.Close(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return errors.New("some sessions did not end in time")
	}
}

// counted keeps the daemon from being idle while a request is served.
func (d *daemon) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.requests.Add(1)
		defer func() {
			d.used.Store(time.Now().Unix())
			d.requests.Add(-1)
		}()
		h.ServeHTTP(w, r)
	})
}

// idle asks the launcher to end it all when nobody has been here for long.
func (d *daemon) idle(ctx context.Context) {
	if d.begin.IdleExit <= 0 {
		return
	}
	most := time.Duration(d.begin.IdleExit) * time.Millisecond
	t := time.NewTicker(max(most/4, 100*time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		all := func(uint32) bool { return true }
		if d.requests.Load() == 0 && d.sessions.Running(all) == 0 && time.Since(time.Unix(d.used.Load(), 0)) > most {
			if err := d.launcher.Send(0, &role.Idle{}); err != nil {
				fmt.Fprintln(os.Stderr, "closedpawd control:", err)
			}
			return
		}
	}
}
