package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
)

// localChecks looks at this machine from the user's side. Nothing is started or changed.
func localChecks() []api.Check {
	return []api.Check{
		kernelCheck(),
		userNamespaceCheck(),
		overlayCheck(),
		kataCheck(),
		exists("systemd", "does not run here: closedpawd must be started by hand (closedpawd -dev DIR)", "boot with systemd", "/run/systemd/system"),
		exists("journal", "is not there: closedpawd logs to its stderr", "systemctl start systemd-journald", "/run/systemd/journal/socket"),
		sessionBusCheck(),
		exists("polkit", "is not installed: questions that need proof of who you are will be denied", "apt install polkitd",
			"/usr/lib/polkit-1/polkitd", "/usr/libexec/polkitd", "/usr/libexec/polkit-1/polkitd"),
		exists("TPM", "there is none: secrets will be sealed without it", "switch it on in the firmware, if the machine has one", "/dev/tpmrm0"),
	}
}

// kernelCheck wants 6.1, the first kernel where an overlay's lower layer may be an idmapped mount at a path.
func kernelCheck() api.Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return api.Check{Name: "kernel", Needed: true, Detail: err.Error()}
	}
	release := unix.ByteSliceToString(u.Release[:])
	c := api.Check{Name: "kernel", OK: atLeast(release, 6, 1), Needed: true, Detail: release + ", idmapped mounts below overlays"}
	if !c.OK {
		c.Detail, c.Fix = release+" has no idmapped mounts below overlays", "boot kernel 6.1 or newer (Debian 12 has it)"
	}
	return c
}

func atLeast(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n < 2 {
		return false
	}
	return a > major || a == major && b >= minor
}

func userNamespaceCheck() api.Check {
	const file = "/proc/sys/user/max_user_namespaces"
	c := api.Check{Name: "user namespaces", Needed: true}
	b, err := os.ReadFile(file)
	n, perr := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err != nil || perr != nil:
		c.Detail, c.Fix = "the kernel has none", "boot a kernel with CONFIG_USER_NS"
	case n == 0:
		c.Detail, c.Fix = "are switched off", "sysctl user.max_user_namespaces=15000"
	default:
		c.OK, c.Detail = true, fmt.Sprintf("up to %d", n)
	}
	return c
}

func overlayCheck() api.Check {
	c := api.Check{Name: "overlayfs", OK: true, Detail: "the kernel has it"}
	b, err := os.ReadFile("/proc/filesystems")
	if err == nil && !strings.Contains(string(b), "\toverlay\n") {
		c.OK, c.Detail, c.Fix = false, "is not loaded (the kernel loads it at first use, if it has it)", "modprobe overlay"
	}
	return c
}

// kataCheck says what the stronger sandbox would need.
func kataCheck() api.Check {
	c := exists("kata", "", "https://katacontainers.io says how to install it; gVisor is used without it",
		"/usr/bin/containerd-shim-kata-v2", "/usr/local/bin/containerd-shim-kata-v2", "/opt/kata/bin/containerd-shim-kata-v2")
	var lacks []string
	if !c.OK {
		lacks = append(lacks, "containerd-shim-kata-v2")
	}
	for _, dev := range []string{"/dev/kvm", "/dev/vhost-vsock"} {
		if _, err := os.Stat(dev); err != nil {
			lacks = append(lacks, dev)
		}
	}
	if len(lacks) > 0 {
		c.OK, c.Detail = false, "it lacks "+strings.Join(lacks, ", ")
	}
	return c
}

// sessionBusCheck connects to the user's D-Bus, over which questions can come as notifications.
func sessionBusCheck() api.Check {
	c := api.Check{Name: "D-Bus session", Fix: "log in at a desktop, or: apt install dbus-user-session"}
	path := filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "bus")
	if address, ok := strings.CutPrefix(os.Getenv("DBUS_SESSION_BUS_ADDRESS"), "unix:path="); ok {
		path, _, _ = strings.Cut(address, ",")
	} else if os.Getenv("XDG_RUNTIME_DIR") == "" {
		c.Detail = "there is none: questions come to the terminal only"
		return c
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		c.Detail = "does not answer at " + path + ": questions come to the terminal only"
		return c
	}
	conn.Close()
	c.OK, c.Detail = true, path
	return c
}
