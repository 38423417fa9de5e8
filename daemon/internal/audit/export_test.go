package audit

import (
	"os"

	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// ServeSync is Serve with the call that makes records durable in the test's hands.
func ServeSync(control *role.Conn, dir string, sync func(*os.File) error) error {
	l, err := open(dir)
	if err != nil {
		return err
	}
	l.sync = sync
	return l.serve(control)
}
