package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script/*.txt against one daemon. Each script has two people of its own, whose uids are in
// $me and $other, the folder $WORK, which is $me's with all that is in it, and the empty folder $ROOTED, which is root's
// like all above it. Besides testscript's own commands:
//
//	exec as UID CMD…           CMD as that user, without a terminal unless ttyin was used
//	exec code N CMD…           CMD must end with exit code N
//	exec until SECONDS CMD…    CMD again and again until it succeeds
//	[!] json FILE PATH [WANT]  the value at a.b.0.c (len is a list's length) in a JSON file, stdout or stderr, is there (and is WANT)
//	setjson NAME FILE PATH     puts it into the variable NAME
func TestScripts(t *testing.T) {
	d := startDaemon(t, options{})
	var scripts atomic.Int32
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		WorkdirRoot:         tempDir(t),
		Setup: func(e *testscript.Env) error {
			me := newUID()
			rooted := filepath.Join(d.base, "rooted", strconv.Itoa(int(scripts.Add(1))))
			if err := os.MkdirAll(rooted, 0o755); err != nil {
				return err
			}
			home := filepath.Join(e.WorkDir, "home")
			if err := os.MkdirAll(home, 0o700); err != nil {
				return err
			}
			if err := os.Chmod(e.WorkDir, 0o755); err != nil {
				return err
			}
			giveTo(t, e.WorkDir, me)
			e.Setenv("PATH", filepath.Join(d.base, "bin")+":"+e.Getenv("PATH"))
			e.Setenv("me", strconv.Itoa(me))
			e.Setenv("other", strconv.Itoa(newUID()))
			e.Setenv("HOME", home)
			e.Setenv("XDG_STATE_HOME", filepath.Join(home, "state"))
			e.Setenv("CLOSEDPAW_SOCKET", d.socket)
			e.Setenv("DEV", d.dir)
			e.Setenv("ROOTED", rooted)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"json":    jsonCommand,
			"setjson": setJSONCommand,
		},
	})
}

func jsonCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: [!] json file path [want]")
	}
	got, err := lookup([]byte(ts.ReadFile(args[0])), args[1])
	switch {
	case neg && err == nil && (len(args) == 2 || got == args[2]):
		ts.Fatalf("%s is %s", args[1], got)
	case neg:
	case err != nil:
		ts.Fatalf("%v", err)
	case len(args) == 3 && got != args[2]:
		ts.Fatalf("%s is %s, want %s", args[1], got, args[2])
	}
}

func setJSONCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: setjson name file path")
	}
	got, err := lookup([]byte(ts.ReadFile(args[1])), args[2])
	ts.Check(err)
	ts.Setenv(args[0], got)
}

// lookup returns a string as it is and all else as JSON.
func lookup(b []byte, path string) (string, error) {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		return "", fmt.Errorf("no JSON: %w", err)
	}
	for key := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[key]
			if !ok {
				return "", fmt.Errorf("there is no %s of %s", key, path)
			}
			v = next
		case []any:
			if key == "len" {
				v = len(at)
				continue
			}
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(at) {
				return "", fmt.Errorf("there is no %s of %s: the list has %d", key, path, len(at))
			}
			v = at[i]
		default:
			return "", fmt.Errorf("there is no %s of %s: it is in neither a list nor an object", key, path)
		}
	}
	if s, ok := v.(string); ok {
		return s, nil
	}
	out, err := json.Marshal(v)
	return string(out), err
}
