package text_test

import (
	"testing"

	"github.com/closedpaw/closedpaw/daemon/internal/text"
)

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		s          string
		max        int
		head, rest string
	}{
		{"abc", 3, "abc", ""}, {"abc", 2, "ab", "c"}, {"aé", 2, "a", "é"}, {"€€", 4, "€", "€"}, {"€€", 0, "", "€€"}, {"\x80\x80\x80\x80\x80\x80\x80", 6, "\x80\x80", "\x80\x80\x80\x80\x80"},
	} {
		head, rest := text.Cut(tt.s, tt.max)
		if head != tt.head || rest != tt.rest {
			t.Errorf("Cut(%q, %d) = %q, %q", tt.s, tt.max, head, rest)
		}
	}
}
