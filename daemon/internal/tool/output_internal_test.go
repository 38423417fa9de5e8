package tool

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/closedpaw/closedpaw/daemon/internal/role"
)

// Whatever the pieces, the beginning and the end are kept, and the gap is counted.
func TestOutputKeepsBothEnds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, half - 1, half, half + 1, 2*half - 1, 2 * half, 2*half + 1, 5 * half, 1 << 20} {
		all := make([]byte, size)
		for i := range all {
			all[i] = 'a' + byte(rng.IntN(26))
		}
		o := &output{}
		for rest := all; len(rest) > 0; {
			n := min(1+rng.IntN(1+rng.IntN(3*half)), len(rest))
			if k, err := o.Write(rest[:n]); k != n || err != nil {
				t.Fatal(k, err)
			}
			rest = rest[n:]
		}
		want := string(all)
		if size > 2*half {
			want = fmt.Sprintf("%s\n[… %d bytes left out …]\n%s", all[:half], size-2*half, all[size-half:])
		}
		if got := o.String(); got != want {
			t.Errorf("%d bytes: got %d, want %d", size, len(got), len(want))
		}
		if n := len(o.String()); n > role.MaxToolResult {
			t.Errorf("%d bytes are shown as %d", size, n)
		}
	}
}

func FuzzOutput(f *testing.F) {
	f.Add([]byte("\xff\xfehello"), 3)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		o := &output{}
		for rest := bytes.Repeat(b, 1+n&0xff); len(rest) > 0; {
			k := min(1+n&0xfff, len(rest))
			o.Write(rest[:k])
			rest = rest[k:]
		}
		if s := o.String(); !utf8.ValidString(s) || len(s) > role.MaxToolResult {
			t.Errorf("%d bytes, valid %v", len(s), utf8.ValidString(s))
		}
	})
}

func TestParse(t *testing.T) {
	for args, why := range map[string]string{
		`{"command":"ls"}`:                      "",
		`{"command":""}`:                        "missing",
		`{}`:                                    "missing",
		`{"command":"ls","cwd":"/"}`:            "unknown field",
		`{"command":["ls"]}`:                    "bad arguments",
		`{"command":"ls"} {}`:                   "follows",
		`[]`:                                    "bad arguments",
		`"ls"`:                                  "bad arguments",
		``:                                      "bad arguments",
		strings.Repeat("x", role.MaxToolArgs+1): "more than",
	} {
		_, err := Parse("shell", []byte(args))
		if (err == nil) != (why == "") || err != nil && !strings.Contains(err.Error(), why) {
			t.Errorf("%.40s: error %v, want %q", args, err, why)
		}
	}
	for _, args := range []string{`{"path":""}`, `{"path":"a\u0000b"}`, `{"path":"` + strings.Repeat("a", 5000) + `"}`} {
		if _, err := Parse("read_file", []byte(args)); err == nil {
			t.Errorf("%.40s was taken", args)
		}
	}
	if _, err := Parse("write_file", []byte(`{"path":"a"}`)); err == nil {
		t.Error("a file without content was taken")
	}
	if _, err := Parse("launch", []byte(`{}`)); err == nil {
		t.Error("an unknown tool was taken")
	}
}

// Two calls that do different things never have the same bytes.
func TestBytesTellCallsApart(t *testing.T) {
	seen := map[string]string{}
	for _, c := range [][2]string{{"shell", `{"command":"a"}`}, {"shell", `{"command":"b"}`}, {"read_file", `{"path":"a"}`}, {"write_file", `{"path":"a","content":""}`},
		{"write_file", `{"path":"a","content":"b"}`}, {"write_file", `{"path":"ab","content":""}`}} {
		v, err := Parse(c[0], []byte(c[1]))
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[string(v.Bytes())]; ok {
			t.Errorf("%v and %s are the same", c, other)
		}
		seen[string(v.Bytes())] = c[1]
	}
}

func FuzzParse(f *testing.F) {
	f.Add("shell", `{"command":"ls"}`)
	f.Add("write_file", `{"path":"a","content":"b"}`)
	f.Fuzz(func(t *testing.T, name, args string) {
		if v, err := Parse(name, []byte(args)); err == nil && (len(v.Bytes()) == 0 || len(v.command.Argv) == 0) {
			t.Errorf("%s %s has nothing to run", name, args)
		}
	})
}
