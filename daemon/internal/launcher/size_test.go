package launcher_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// most bounds this package's lines of code, comments and blank lines left out: what one can read in a sitting. The aim is
// 1,500. What it shares with the other roles, messages above all, is printed and not bounded here.
const most = 1850

// TestSize prints how much runs as root: this package with all of ours that it imports.
func TestSize(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", `{{if not .Standard}}{{.ImportPath}} {{.Dir}} {{join .GoFiles ","}}{{end}}`, ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) != 3 || !strings.HasPrefix(f[0], "github.com/closedpaw/closedpaw/") {
			continue
		}
		n := 0
		for name := range strings.SplitSeq(f[2], ",") {
			n += code(t, filepath.Join(f[1], name))
		}
		if total += n; strings.HasSuffix(f[0], "/launcher") && n > most {
			t.Errorf("the launcher has more than %d lines of code", most)
		}
		t.Logf("%5d lines of code  %s", n, strings.TrimPrefix(f[0], "github.com/closedpaw/closedpaw/"))
	}
	t.Logf("%5d lines of code run as root", total)
}

func code(t *testing.T, path string) (n int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if l := strings.TrimSpace(s.Text()); l != "" && !strings.HasPrefix(l, "//") {
			n++
		}
	}
	return n
}
