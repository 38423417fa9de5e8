package launcher_test

import (
	"os"
	"strings"
	"testing"

	"github.com/closedpaw/closedpaw/daemon/internal/launcher"
)

func FuzzParseMounts(f *testing.F) {
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(own))
	f.Add("36 35 98:0 /a\\040b /mnt rw,noatime master:1 shared:2 - fuse.x  rw\n") // with an empty source
	f.Add("36 35 98:0 / /\\777\\13 rw - ext4 a rw")
	f.Fuzz(func(t *testing.T, text string) { launcher.ParseMounts(text) })
}

func TestParseMounts(t *testing.T) {
	own, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{
		string(own): strings.Count(string(own), "\n"),
		"36 35 98:0 /a\\040b /mnt rw - fuse.x  rw\n": 1,
		"36 35 98:0 / /mnt rw\n":                     -1,
	} {
		if n, err := launcher.ParseMounts(text); want >= 0 && (n != want || err != nil) || want < 0 && err == nil {
			t.Errorf("%.60q: %d mounts, %v; want %d", text, n, err, want)
		}
	}
}

func TestCgroupBelowItsMount(t *testing.T) {
	for _, tt := range []struct{ root, path, want string }{
		{"/", "/system.slice/x", "/cg/system.slice/x"},
		{"/", "/", "/cg"},
		{"/docker/1", "/docker/1/x", "/cg/x"},
		{"/docker/1", "/elsewhere", "/cg"},
	} {
		if got := launcher.Below(tt.root, "/cg", tt.path); got != tt.want {
			t.Errorf("%s of %s: %s, want %s", tt.path, tt.root, got, tt.want)
		}
	}
}

func TestFree(t *testing.T) {
	taken := [][2]uint64{{0, 1}, {0x70010000, 0x70020000}, {0x70035000, 0x70035001}}
	for base, want := range map[uint32]bool{0x70000000: true, 0x70010000: false, 0x70020000: true, 0x70030000: false, 0x70040000: true} {
		if launcher.Free(base, taken) != want {
			t.Errorf("%#x free: %v", base, !want)
		}
	}
}
