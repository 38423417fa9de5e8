package launcher

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// guest is the sandbox's ordinary user and group, as it sees itself.
const guest = 1000

// idRange is how many users a sandbox has.
const idRange = 65536

// rootfs makes the folder that sandboxes have as /: links and a small /etc of our own, with mount points for what of
// the host they see. Nothing in it is a secret or the person's. It is made anew at each start.
func rootfs(dir string) error {
	for _, d := range []string{"usr", "proc", "dev", "sys", "tmp", "workspace", "home", "root", "run", "var/tmp", "etc/alternatives", "etc/ssl/certs"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return fmt.Errorf("cannot make the sandboxes' root folder: %w", err)
		}
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		to, err := os.Readlink("/" + d)
		switch {
		case err == nil:
			err = os.Symlink(strings.TrimPrefix(to, "/"), filepath.Join(dir, d))
		case errors.Is(err, os.ErrNotExist):
			err = nil
		default: // a host without merged /usr: a mount point, see bundle
			err = os.Mkdir(filepath.Join(dir, d), 0o755)
		}
		if err != nil {
			return fmt.Errorf("cannot make the sandboxes' root folder: %w", err)
		}
	}
	etc := map[string]string{
		"passwd": "root:x:0:0:root:/root:/usr/sbin/nologin\nuser:x:1000:1000:user:/tmp:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
		"group":  "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n",
		"hosts":  "127.0.0.1 localhost sandbox\n::1 localhost\n", "resolv.conf": "", "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
	}
	if b, err := os.ReadFile("/etc/ld.so.cache"); err == nil {
		etc["ld.so.cache"] = string(b)
	}
	for name, text := range etc {
		if err := os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("cannot make the sandboxes' root folder: %w", err)
		}
	}
	if err := os.Symlink("../usr/lib/os-release", filepath.Join(dir, "etc/os-release")); err != nil {
		return fmt.Errorf("cannot make the sandboxes' root folder: %w", err)
	}
	return nil
}

// bundle writes the OCI configuration of a sandbox.
func bundle(dir, rootfs, merged string, base uint32, memory, processes int64, memoryByRlimit bool) error {
	ro := []string{"bind", "ro", "nosuid", "nodev"}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "size=64m", "mode=1777"}},
		{Destination: "/usr", Type: "bind", Source: "/usr", Options: ro},
		{Destination: "/workspace", Type: "bind", Source: merged, Options: []string{"bind", "rw", "nosuid", "nodev"}},
	}
	for _, p := range []string{"/etc/alternatives", "/etc/ssl/certs", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"} { // the latter are folders on hosts without merged /usr
		if st, err := os.Lstat(p); err == nil && st.IsDir() {
			mounts = append(mounts, specs.Mount{Destination: p, Type: "bind", Source: p, Options: ro})
		}
	}
	limits := []specs.POSIXRlimit{limit("RLIMIT_NOFILE", 1024), limit("RLIMIT_NPROC", processes), limit("RLIMIT_CORE", 0)}
	if memoryByRlimit {
		limits = append(limits, limit("RLIMIT_AS", memory))
	}
	ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: base, Size: idRange}}
	s := specs.Spec{
		Version: specs.Version, Hostname: "sandbox", Mounts: mounts,
		Root: &specs.Root{Path: rootfs, Readonly: true},
		Process: &specs.Process{
			Args: []string{"/usr/bin/sleep", "infinity"}, Cwd: "/workspace", Env: []string{"PATH=/usr/bin:/bin"},
			User: specs.User{UID: guest, GID: guest}, NoNewPrivileges: true, Capabilities: &specs.LinuxCapabilities{}, Rlimits: limits,
		},
		Linux: &specs.Linux{UIDMappings: ids, GIDMappings: ids, Namespaces: []specs.LinuxNamespace{
			{Type: specs.PIDNamespace}, {Type: specs.NetworkNamespace}, {Type: specs.IPCNamespace},
			{Type: specs.UTSNamespace}, {Type: specs.MountNamespace}, {Type: specs.UserNamespace},
		}},
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600)
}

func limit(what string, n int64) specs.POSIXRlimit {
	return specs.POSIXRlimit{Type: what, Soft: uint64(n), Hard: uint64(n)}
}

// Ranges of users for sandboxes: above those that systemd gives to containers.
const firstBase, lastBase = 0x70000000, 0x7ffe0000

// taken lists the ranges that the host's files give to someone.
func taken() (out [][2]uint64) {
	for _, f := range []struct {
		name      string
		id, count int // fields
	}{{"/etc/passwd", 2, -1}, {"/etc/group", 2, -1}, {"/etc/subuid", 1, 2}, {"/etc/subgid", 1, 2}} {
		b, _ := os.ReadFile(f.name)
		for line := range strings.Lines(string(b)) {
			w := strings.Split(strings.TrimSpace(line), ":")
			if len(w) < 3 {
				continue
			}
			n := uint64(1)
			if f.count >= 0 {
				n, _ = strconv.ParseUint(w[f.count], 10, 32)
			}
			if from, err := strconv.ParseUint(w[f.id], 10, 32); err == nil {
				out = append(out, [2]uint64{from, from + n})
			}
		}
	}
	return out
}

func free(base uint32, taken [][2]uint64) bool {
	for _, t := range taken {
		if uint64(base) < t[1] && t[0] < uint64(base)+idRange {
			return false
		}
	}
	return true
}
