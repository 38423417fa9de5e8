// Package audit keeps the log of what was decided and done: Serve is the audit role, which owns the log folder and its
// signing key; Writer is how control writes to it, one function for each event.
//
// What it guarantees: a record that was acknowledged is on disk, whatever ends after that: control, the audit role, the
// machine. Acknowledged records are never changed, removed or reordered; who does that behind the role's back is found
// out (see client/auditproof). A record that cannot be written is an error for whoever asked, and control then does not
// act. The role must never write outside its folder, never talk to anybody but control, and never sign a tree that
// does not extend the one it signed before.
//
// # The folder
//
// The files are named in client/auditproof. A batch of records goes: lines appended to records, their nodes to hashes,
// one fsync of records, then the acknowledgements. Meanwhile the next batch gathers. Behind that, without anybody waiting,
// hashes is synced and the checkpoint replaced atomically (soon after batches came, but never two at a time). So:
//
//   - all that the checkpoint covers is on disk in records and hashes; a difference there is damage or a change;
//   - an acknowledged record may stand behind the checkpoint, if the role was killed in between; what was never
//     acknowledged stands behind it too.
//
// # What a start checks
//
// The key, that key.pub is its other half, the checkpoint's signature, that the edge of the tree in hashes has the signed
// root, and that the last 1024 signed records have the hashes that are stored for them: a few milliseconds for any size.
// Where one of the last two is not so, all records are read and hashed: if they are what was signed, hashes is made
// anew, and if not, the start is refused. A change further back is found by Prove (which always reads and hashes the
// whole log), by auditproof.VerifyDir, and by reading the changed record itself.
//
// Behind the checkpoint, whole records are kept and signed. From the first line on that is none the rest is dropped: on
// a disk that keeps what it synced, only what was never acknowledged can look so. Whenever a start keeps or drops something, the record "audit.recovered" says what.
package audit

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// ErrRefused means that the log folder is not in a state in which the role may go on with it.
var ErrRefused = errors.New("the audit log is refused")

const restore = "restore the audit folder (/var/lib/closedpaw/audit, or state/audit of -dev) from a backup, or move it away to begin a new log"

// refused is an error that says what was found and what to do.
func refused(format string, a ...any) error {
	return fmt.Errorf("%w: %w: %s", ErrRefused, fmt.Errorf(format, a...), restore)
}

// failed is how control is told.
func failed(err error) *role.Failed {
	var f *role.Failed
	switch {
	case errors.As(err, &f):
		return f
	case errors.Is(err, ErrRefused): // it carries what to do
		return &role.Failed{Code: api.CodeUnavailable, Text: err.Error()}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &role.Failed{Code: api.CodeUnavailable, Text: err.Error(),
			Hint: "what cannot be logged is not done: free space where the audit folder is, then try again"}
	default:
		return &role.Failed{Code: api.CodeUnavailable, Text: err.Error(),
			Hint: "what cannot be logged is not done: look at closedpawd's messages and at the disk of the audit folder"}
	}
}

// changed is how control is told of records that are not what was written.
func changed(err error) *role.Failed {
	return &role.Failed{Code: api.CodeInternal, Text: "the audit log was changed or damaged on disk: " + err.Error(),
		Hint: "keep the folder for whoever investigates, stop closedpawd, then " + restore}
}
