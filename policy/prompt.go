package policy

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Part is a piece of a prompt.
type Part struct {
	Text  string
	World bool // anybody may have written it; else the person typed it
}

// SplitPrompt says which part of a prompt counts as the person's own words: its first line that is not blank, up to the
// first code fence (``` or ~~~) in it, if that line is neither quoted (">") nor indented by four columns or more.
// Everything else is world. The parts joined are the text again.
//
// Nothing behind the first line break can be told from what `ask "summarise $(cat mail)"` brings along: whoever wrote
// the mail also chose its blank lines, its short paragraphs and where a fence seems to end. A person who did type
// several lines says so with --trust-stdin; then this function is not asked. That a paste without a line break looks
// typed is a limit of it.
//
// Every line break of Unicode counts as one, so that none can be smuggled past: LF, CR, VT, FF, NEL, LS, PS.
func SplitPrompt(text string) []Part {
	start := 0 // of the first line that is not blank
	for {
		end := lineEnd(text, start)
		if strings.TrimFunc(text[start:end], blank) != "" {
			break
		}
		if end == len(text) {
			if text == "" {
				return nil
			}
			return []Part{{Text: text}}
		}
		_, size := utf8.DecodeRuneInString(text[end:])
		start = end + size
	}
	cut := lineEnd(text, start)
	line := text[start:cut]
	if strings.HasPrefix(strings.TrimLeftFunc(line, blank), ">") || indent(line) >= 4 {
		return []Part{{Text: text, World: true}}
	}
	for _, fence := range []string{"```", "~~~"} {
		if i := strings.Index(line, fence); i >= 0 {
			line = line[:i]
		}
	}
	cut = start + len(line)
	switch {
	case strings.TrimFunc(line, blank) == "":
		return []Part{{Text: text, World: true}}
	case strings.TrimFunc(text[cut:], blank) == "": // nothing but a final line break
		return []Part{{Text: text}}
	}
	return []Part{{Text: text[:cut]}, {Text: text[cut:], World: true}}
}

// lineEnd is where the line that begins at i ends, before its line break.
func lineEnd(s string, i int) int {
	n := strings.IndexFunc(s[i:], lineBreak)
	if n < 0 {
		return len(s)
	}
	return i + n
}

func lineBreak(c rune) bool { return strings.ContainsRune("\n\r\v\f\u0085\u2028\u2029", c) }

// blank says that c shows nothing: a space, a control or a format character.
func blank(c rune) bool { return unicode.IsSpace(c) || unicode.In(c, unicode.Cc, unicode.Cf) }

// indent counts the columns of blanks that a line begins with; a tab goes on to the next multiple of four.
func indent(line string) (columns int) {
	for _, c := range line {
		switch {
		case c == '\t':
			columns += 4 - columns%4
		case !blank(c):
			return columns
		default:
			columns++
		}
	}
	return columns
}
