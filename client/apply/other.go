//go:build !linux

package apply

import (
	"os"

	"github.com/closedpaw/closedpaw/client/api"
)

// Apply is not offered here: it rests on openat2 and renameat2. Nothing is changed.
func Apply(_ *os.File, c *api.Changes, _ func(path string) (*os.File, error)) api.ApplyReport {
	return api.ApplyReport{Digest: c.Digest, Conflicts: []string{},
		Failed: []string{".: cannot apply changes on this system: run closedpawctl on Linux"}}
}
