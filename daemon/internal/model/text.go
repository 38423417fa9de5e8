package model

import (
	"strings"
	"unicode/utf8"
)

// MaxText is the most text that one chunk or delta carries: JSON makes at most six bytes of one, so the message stays
// below MaxChunk and role.MaxMessage.
const MaxText = 32 << 10

// Cut returns the start of s that is at most max bytes, and the rest; it cuts no rune in two.
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
