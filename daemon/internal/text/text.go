// Package text shortens text without tearing a character.
package text

import (
	"strings"
	"unicode/utf8"
)

// Cut returns the start of s that is at most max bytes, and the rest; it cuts no rune in two. The start is empty only
// where s or max is: whoever sends a text in pieces comes to its end, even if it is no UTF-8.
func Cut(s string, max int) (head, rest string) {
	if len(s) <= max {
		return s, ""
	}
	i := max
	for i > max-utf8.UTFMax && i > 1 && !utf8.RuneStart(s[i]) {
		i--
	}
	return s[:i], s[i:]
}

// Short is s for a message to a person, at most max bytes, with an ellipsis where it was cut.
func Short(s string, max int) string {
	head, rest := Cut(strings.ToValidUTF8(s, "\uFFFD"), max)
	if rest != "" {
		head += "…"
	}
	return head
}
