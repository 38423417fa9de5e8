// Package guardtest builds a guard on real parts for tests: the default policy signed with a key of its own, the audit
// role in a goroutine on a folder of the test, and a broker of questions.
package guardtest

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/closedpaw/closedpaw/daemon/internal/approval"
	"github.com/closedpaw/closedpaw/daemon/internal/audit"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/policy"
)

// House is a guard with what it needs.
type House struct {
	*guard.Guard
	Policy *policy.Bundle
	Broker *approval.Broker
	Audit  *audit.Writer
	Log    *role.Conn // closing it is the death of the audit role
}

// Tier is the sandboxes' in a House.
const Tier = "gvisor"

// Person says whose uids are people's in a House.
func Person(uid uint32) bool { return uid >= 1000 && uid <= 60000 }

// New builds a House that ends with the test.
func New(tb testing.TB) *House {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	mine, theirs, err := role.Pair()
	must(err)
	cc, err := role.NewConn(mine, role.Control, role.Audit)
	must(err)
	ac, err := role.NewConn(theirs, role.Audit, role.Control)
	must(err)
	dir := tb.TempDir()
	ended := make(chan error, 1)
	go func() { ended <- audit.Serve(ac, dir) }()
	caller := role.NewCaller(cc)
	go func() { _ = caller.Run(nil) }()
	tb.Cleanup(func() {
		cc.Close()
		if err := <-ended; err != nil {
			tb.Errorf("the audit role: %v", err)
		}
	})
	h := &House{Policy: bundle(tb), Broker: approval.New(time.Minute), Audit: audit.NewWriter(caller), Log: cc}
	h.Guard = guard.New(h.Policy, h.Audit, h.Broker, Person, Tier)
	return h
}

// bundle signs the default policy.
func bundle(tb testing.TB) *policy.Bundle {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	files, err := policy.Default()
	must(err)
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	signer, err := ssh.NewSignerFromKey(key)
	must(err)
	sp, err := ssh.NewPublicKey(pub)
	must(err)
	now := time.Now()
	signed, err := policy.Sign(files, policy.Manifest{Serial: 1, NotBefore: now.Add(-time.Hour), Expires: now.Add(time.Hour)}, signer)
	must(err)
	dir := fstest.MapFS{}
	for name, b := range signed {
		dir[name] = &fstest.MapFile{Data: b, Mode: 0o644}
	}
	p, err := policy.Load(dir, []byte(`test namespaces="closedpaw-policy" `+string(ssh.MarshalAuthorizedKey(sp))), policy.LoadOptions{Now: now})
	must(err)
	return p
}
