package role

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Enter is the first step of a role's process. It refuses to work in a process that the launcher did not confine, and
// takes over what the launcher handed over: the connections in the order of the row's Links, then the row's Extra.
func Enter(name Name) ([]*Conn, []*os.File, error) {
	row, ok := Table[name]
	if !ok {
		return nil, nil, fmt.Errorf("cannot be role %q: there is none of this name", name)
	}
	if err := confined(row); err != nil {
		return nil, nil, fmt.Errorf("cannot be role %q: %w; only closedpawd itself starts roles", name, err)
	}
	// The execution reset it. Agents share a user: one must not trace another, nor read its memory.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, nil, fmt.Errorf("cannot become undumpable: %w", err)
	}
	var conns []*Conn
	var extra []*os.File
	fd := FirstFD
	for _, other := range row.Links {
		c, err := NewConn(os.NewFile(uintptr(fd), string(other)), name, other)
		if err != nil {
			return nil, nil, err
		}
		conns = append(conns, c)
		fd++
	}
	for _, what := range row.Extra {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, nil, fmt.Errorf("cannot take over %s: %w", what, err)
		}
		extra = append(extra, os.NewFile(uintptr(fd), what))
		fd++
	}
	return conns, extra, nil
}

// confined says what stage 1 did not do to this process.
func confined(row Row) error {
	for _, id := range []int{unix.Getuid(), unix.Geteuid(), unix.Getgid(), unix.Getegid()} {
		if id == 0 {
			return errors.New("a role must not be root")
		}
	}
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return fmt.Errorf("cannot read the capabilities: %w", err)
	}
	if d != [2]unix.CapUserData{} {
		return errors.New("a role must have no capabilities")
	}
	for c := range uintptr(unix.CAP_LAST_CAP + 1) {
		if v, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err == nil && v != 0 {
			return fmt.Errorf("a role's bounding set has capability %d", c)
		}
	}
	if v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || v != 1 {
		return errors.New("a role needs no_new_privs")
	}
	return rootOf(row)
}

// rootOf refuses a root folder with anything in it but what leads to the row's binds.
func rootOf(row Row) error {
	own := map[string]bool{}
	for _, b := range row.Binds {
		own[strings.Split(b.Target, "/")[1]] = true
	}
	all, err := os.ReadDir("/")
	if err != nil {
		return fmt.Errorf("cannot read the root folder: %w", err)
	}
	for _, e := range all {
		if !own[e.Name()] {
			return fmt.Errorf("a role's root folder must not hold /%s", e.Name())
		}
	}
	return nil
}
