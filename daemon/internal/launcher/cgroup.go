package launcher

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroups says where the leaves of sandboxes go, and what they can bound.
type cgroups struct {
	v2      bool
	parents []string // v1: one for each of memory and pids that there is; v2: one at most
	memory  bool
	pids    bool
}

// findCgroups looks for a place. On v2 a folder with processes in it cannot bound its children, so the launcher first
// moves into a child of its own, as Delegate=yes of the unit lets it; where others' processes are beside it, as in a
// shell under -dev, the root is taken.
func findCgroups() (cgroups, error) {
	all, err := mounts("/proc/self/mountinfo")
	if err != nil {
		return cgroups{}, err
	}
	own, err := ownCgroups()
	if err != nil {
		return cgroups{}, err
	}
	var c cgroups
	for _, m := range all {
		for _, ctl := range strings.Split(m.super, ",") {
			if m.kind != "cgroup" || ctl != "memory" && ctl != "pids" || ctl == "memory" && c.memory || ctl == "pids" && c.pids {
				continue
			}
			if p := below(m, own[ctl]); unix.Access(p, unix.W_OK) == nil {
				c.parents = append(c.parents, p)
				c.memory, c.pids = c.memory || ctl == "memory", c.pids || ctl == "pids"
			}
		}
	}
	if len(c.parents) > 0 {
		return c, nil
	}
	for _, m := range all {
		if m.kind == "cgroup2" && unix.Access(m.point, unix.W_OK) == nil {
			return findV2(m.point, below(m, own[""])), nil
		}
	}
	return cgroups{}, nil
}

func findV2(top, own string) cgroups {
	p := own
	if own != top {
		main := filepath.Join(own, "main")
		if filepath.Base(own) == "main" { // after a re-execution
			p, main = filepath.Dir(own), own
		}
		err := os.Mkdir(main, 0o755)
		if err == nil || errors.Is(err, os.ErrExist) {
			err = write(main, "cgroup.procs", os.Getpid())
		}
		for _, ctl := range words(p, "cgroup.controllers") {
			if err == nil && (ctl == "memory" || ctl == "pids") {
				err = write(p, "cgroup.subtree_control", "+"+ctl)
			}
		}
		if err != nil { // others are in it
			_ = write(own, "cgroup.procs", os.Getpid())
			_ = os.Remove(main)
			p = top
		}
	}
	on := words(p, "cgroup.subtree_control")
	return cgroups{v2: true, parents: []string{p}, memory: slices.Contains(on, "memory"), pids: slices.Contains(on, "pids")}
}

// ownCgroups reads /proc/self/cgroup: controller to path, and "" for v2.
func ownCgroups() (map[string]string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	own := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 {
			for _, ctl := range strings.Split(f[1], ",") {
				own[ctl] = f[2]
			}
		}
	}
	return own, nil
}

// below is where a cgroup's path is under its mount; in a container the mount shows a part only.
func below(m mountLine, path string) string {
	rel, ok := strings.CutPrefix(path, strings.TrimSuffix(m.root, "/"))
	if !ok {
		rel = "/"
	}
	return filepath.Join(m.point, rel)
}

func words(dir, file string) []string {
	b, _ := os.ReadFile(filepath.Join(dir, file))
	return strings.Fields(string(b))
}

func write(dir, file string, v any) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(f, v)
	return errors.Join(err, f.Close())
}

// leaf is the cgroup of one sandbox: its folders, none where the host has no cgroups.
type leaf []string

// name returns the folders that the leaf of a sandbox will have.
func (c cgroups) name(id string) (l leaf) {
	for _, p := range c.parents {
		l = append(l, filepath.Join(p, "closedpaw-"+id))
	}
	return l
}

// overhead is what gVisor itself may take of the memory limit, in bytes.
const overhead = 64 << 20

// make creates the leaf and sets its bounds.
func (c cgroups) make(l leaf, memory, processes int64) error {
	set := map[string]string{}
	if c.memory && c.v2 {
		set["memory.max"], set["memory.swap.max"], set["memory.oom.group"] = strconv.FormatInt(memory+overhead, 10), "0", "1"
	} else if c.memory {
		set["memory.limit_in_bytes"] = strconv.FormatInt(memory+overhead, 10)
		set["memory.memsw.limit_in_bytes"] = set["memory.limit_in_bytes"] // only after the other
	}
	if c.pids { // gVisor's own processes and threads: below about 2.2 times the guest's and 60 it dies
		set["pids.max"] = strconv.FormatInt(1000+3*processes, 10)
	}
	for _, dir := range l {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("cannot make a cgroup: %w", err)
		}
		for _, file := range []string{"memory.max", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swap.max", "memory.oom.group", "pids.max"} {
			v, ok := set[file]
			if _, err := os.Stat(filepath.Join(dir, file)); !ok || err != nil {
				continue // of the other hierarchy, or a kernel without swap accounting
			}
			if err := write(dir, file, v); err != nil {
				return fmt.Errorf("cannot bound a sandbox: %w", err)
			}
		}
	}
	return nil
}

// add moves a process into the leaf.
func (l leaf) add(pid int) error {
	for _, dir := range l {
		if err := write(dir, "cgroup.procs", pid); err != nil {
			return fmt.Errorf("cannot move a process to its cgroup: %w", err)
		}
	}
	return nil
}

func (l leaf) procs() (pids []int) {
	for _, dir := range l {
		for _, w := range words(dir, "cgroup.procs") {
			if pid, err := strconv.Atoi(w); err == nil && pid > 1 && pid != os.Getpid() {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// kill ends all processes of the leaf and returns when they are gone.
func (l leaf) kill() error {
	for _, dir := range l {
		if err := write(dir, "cgroup.kill", 1); err == nil { // v2 alone has it
			break
		}
	}
	return killAll(l.procs)
}

// remove removes the leaf, which must be without processes. The kernel may need a moment after the last one ended.
func (l leaf) remove() error {
	var err error
	for range 200 {
		err = nil
		for _, dir := range l {
			if e := os.Remove(dir); e != nil && !errors.Is(e, os.ErrNotExist) {
				err = fmt.Errorf("cannot remove a cgroup: %w", e)
			}
		}
		if err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// killAll kills what list names until it names nothing.
func killAll(list func() []int) error {
	const rounds, pause = 1000, 10 * time.Millisecond
	for range rounds {
		pids := list()
		if len(pids) == 0 {
			return nil
		}
		// A number read from a file may be another process's by now: hold it, look again, then kill.
		held := map[int]int{}
		for _, pid := range pids {
			if fd, err := unix.PidfdOpen(pid, 0); err == nil {
				held[pid] = fd
			}
		}
		still := list()
		for pid, fd := range held {
			if slices.Contains(still, pid) {
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			}
			unix.Close(fd)
		}
		time.Sleep(pause)
	}
	return fmt.Errorf("%d processes do not end", len(list()))
}

// procsOf lists the processes with this argument in their command line: those of runsc, which carry its root folder.
func procsOf(arg, id string) (pids []int) {
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		b, _ := os.ReadFile(filepath.Join("/proc", d.Name(), "cmdline"))
		if a := strings.Split(string(b), "\x00"); slices.Contains(a, arg) && (id == "" || slices.Contains(a, id)) {
			pids = append(pids, pid)
		}
	}
	return pids
}
