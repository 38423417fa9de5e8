// Package screen makes text of strangers safe to show on a terminal.
//
// It guarantees that what it lets through holds, besides \n and \t, no control character (C0, DEL, C1), no format or
// otherwise invisible character (bidi controls, zero-width characters, tags, fillers, variation selectors but for an
// emoji's), no line or paragraph separator and no invalid UTF-8: so no escape sequence, and no text that reads
// otherwise than it is. What it does not let through it shows: ESC as ␛, U+202E as \u{202e}, a stray byte as \xff.
// It must never drop anything silently, and must never let a sequence through because it was cut in two writes.
package screen

import (
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// selector16 asks for the emoji form of the symbol before it, and is harmless only there.
const selector16 = '\ufe0f'

// Forbidden says whether r must not reach a terminal, whatever stands before it.
func Forbidden(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r < 0x20 || r >= 0x7f && r < 0xa0:
		return true
	case r < 0x7f:
		return false
	}
	return unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Cs, unicode.Other_Default_Ignorable_Code_Point) ||
		unicode.Is(unicode.Variation_Selector, r) && r != selector16
}

// Text returns s neutralised; lines and tabs stay.
func Text(s string) string {
	var b strings.Builder
	w := NewWriter(&b)
	_, _ = io.WriteString(w, s) // a Builder never fails
	w.Flush()
	return b.String()
}

// Line returns s neutralised for one line: \n and \t are shown as ␊ and ␉.
func Line(s string) string {
	return strings.NewReplacer("\n", "␊", "\t", "␉").Replace(Text(s))
}

// A Writer neutralises what it passes on. It is not safe for concurrent use.
type Writer struct {
	w      io.Writer
	part   []byte // the begin of a character that the last Write ended in
	symbol bool   // the last character may be followed by selector16
	buf    []byte
}

// NewWriter returns a Writer that writes to w. Flush it at the end.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write passes p on, but for the begin of a character at its end, which waits for the next Write or Flush.
func (w *Writer) Write(p []byte) (int, error) {
	if len(w.part) == 0 && plain(p) {
		if len(p) > 0 {
			w.symbol = false
		}
		return w.w.Write(p)
	}
	in := p
	if len(w.part) > 0 {
		in = append(w.part, p...)
	}
	w.buf = w.buf[:0]
	for len(in) > 0 && utf8.FullRune(in) {
		r, n := utf8.DecodeRune(in)
		w.show(r, in[:n])
		in = in[n:]
	}
	w.part = append([]byte(nil), in...)
	if _, err := w.w.Write(w.buf); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Flush shows what is left of an unfinished character.
func (w *Writer) Flush() error {
	w.buf = w.buf[:0]
	for _, c := range w.part {
		w.show(utf8.RuneError, []byte{c})
	}
	w.part = nil
	_, err := w.w.Write(w.buf)
	return err
}

func (w *Writer) show(r rune, raw []byte) {
	symbol := w.symbol
	w.symbol = false
	switch {
	case r == utf8.RuneError && len(raw) == 1:
		w.buf = append(w.buf, `\x`...)
		w.buf = append(w.buf, hex[raw[0]>>4], hex[raw[0]&15])
	case r == selector16 && !symbol, Forbidden(r):
		w.buf = appendVisible(w.buf, r)
	default:
		w.symbol = r > 0x7f && unicode.In(r, unicode.So, unicode.Sm, unicode.Sk) // ASCII passes by in Write
		w.buf = append(w.buf, raw...)
	}
}

const hex = "0123456789abcdef"

func appendVisible(b []byte, r rune) []byte {
	switch {
	case r < 0x20:
		return utf8.AppendRune(b, 0x2400+r) // Unicode has a picture for each
	case r == 0x7f:
		return utf8.AppendRune(b, '␡')
	}
	b = append(b, `\u{`...)
	b = strconv.AppendInt(b, int64(r), 16)
	return append(b, '}')
}

// plain says that p is printable ASCII, lines and tabs only: what most writes are.
func plain(p []byte) bool {
	for _, c := range p {
		if (c < 0x20 || c >= 0x7f) && c != '\n' && c != '\t' {
			return false
		}
	}
	return true
}

// JSON returns valid JSON that means the same and shows the same harmless characters only: others become \u escapes.
func JSON(b []byte) []byte {
	if plain(b) {
		return b
	}
	out := make([]byte, 0, len(b)+64)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == selector16 || Forbidden(r):
			out = appendEscape(out, r)
		default:
			out = utf8.AppendRune(out, r)
		}
		b = b[n:]
	}
	return out
}

// appendEscape works because valid JSON has such characters in strings only.
func appendEscape(b []byte, r rune) []byte {
	const low = 0x10000
	if r >= low {
		b = appendEscape(b, 0xd800+(r-low)>>10)
		r = 0xdc00 + (r-low)&0x3ff
	}
	return append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}
