package screen_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/closedpaw/closedpaw/client/screen"
)

func TestText(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain", "a\tb\nc", "a\tb\nc"},
		{"letters", "žluťoučký 漢字 العربية", "žluťoučký 漢字 العربية"},
		{"colour", "\x1b[31mred\x1b[0m", "␛[31mred␛[0m"},
		{"clipboard", "\x1b]52;c;cm0=\a", "␛]52;c;cm0=␇"},
		{"carriage return hides", "good\rbad!", "good␍bad!"},
		{"backspace", "ab\b", "ab␈"},
		{"nul", "\x00", "␀"},
		{"del", "\x7f", "␡"},
		{"c1 csi", "\u009b31m", `\u{9b}31m`},
		{"raw c1 byte", "\x9b31m", `\x9b31m`},
		{"bidi override", "a\u202eb", `a\u{202e}b`},
		{"bidi isolate", "\u2066x\u2069", `\u{2066}x\u{2069}`},
		{"zero width", "a\u200bb\ufeff", `a\u{200b}b\u{feff}`},
		{"soft hyphen", "a\u00adb", `a\u{ad}b`},
		{"tags", "\U000E0041\U000E007F", `\u{e0041}\u{e007f}`},
		{"separators", "a\u2028b\u2029c", `a\u{2028}b\u{2029}c`},
		{"hangul filler", "\u3164", `\u{3164}`},
		{"selector", "x\ufe00\U000E0100", `x\u{fe00}\u{e0100}`},
		{"emoji", "❤\ufe0f", "❤\ufe0f"},
		{"selector after a letter", "a\ufe0f", `a\u{fe0f}`},
		{"selector after an ASCII symbol", "+\ufe0f", `+\u{fe0f}`},
		{"two selectors", "❤\ufe0f\ufe0f", "❤\ufe0f" + `\u{fe0f}`},
		{"invalid", "a\xff\xc3(", `a\xff\xc3(`},
		{"overlong", "\xc0\x9b", `\xc0\x9b`},
		{"surrogate", "\xed\xa0\x80", `\xed\xa0\x80`},
		{"cut at the end", "a\xe2\x80", `a\xe2\x80`},
		{"replacement character itself", "\ufffd", "\ufffd"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := cmp.Diff(c.want, screen.Text(c.in)); d != "" {
				t.Error(d)
			}
			if got := inPieces(c.in, 1); got != c.want {
				t.Errorf("byte by byte: %q", got)
			}
		})
	}
}

func TestLine(t *testing.T) {
	if got := screen.Line("a\nb\tc\x1b"); got != "a␊b␉c␛" {
		t.Errorf("got %q", got)
	}
}

func TestJSON(t *testing.T) {
	in := "a\u202e\u009b\x7f\U000E0041❤\ufe0f漢 \x1b\n"
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	out := screen.JSON(b)
	check(t, string(out))
	var back string
	if err := json.Unmarshal(out, &back); err != nil || back != in {
		t.Errorf("%v: %q from %s", err, back, out)
	}
}

func inPieces(s string, n int) string {
	var b bytes.Buffer
	w := screen.NewWriter(&b)
	for len(s) > 0 {
		k := min(n, len(s))
		if got, err := w.Write([]byte(s[:k])); err != nil || got != k {
			return "short write"
		}
		s = s[k:]
	}
	w.Flush()
	return b.String()
}

func check(t *testing.T, s string) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Errorf("not UTF-8: %q", s)
	}
	for _, r := range s {
		if screen.Forbidden(r) {
			t.Errorf("%U in %q", r, s)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2J", "\u202e", "\xe2\x80", "❤\ufe0f", "\U000E0041", "a\r\n"} {
		f.Add(s, 1)
	}
	f.Fuzz(func(t *testing.T, s string, n int) {
		whole := screen.Text(s)
		check(t, whole)
		if n > 0 && inPieces(s, n) != whole {
			t.Errorf("in pieces of %d: %q, whole: %q", n, inPieces(s, n), whole)
		}
		if strings.ContainsAny(screen.Line(s), "\n\t") {
			t.Errorf("more than a line: %q", screen.Line(s))
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var before, after string
		out := screen.JSON(b)
		check(t, string(out))
		if json.Unmarshal(b, &before) != nil || json.Unmarshal(out, &after) != nil || before != after {
			t.Errorf("%s became %s", b, out)
		}
	})
}

func BenchmarkPlain(b *testing.B) {
	p := []byte(strings.Repeat("the quick brown fox\n", 1000))
	w := screen.NewWriter(new(bytes.Buffer))
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		w.Write(p)
	}
}
