package main

import "testing"

// TestAtLeast reads kernel releases.
func TestAtLeast(t *testing.T) {
	for in, want := range map[string]bool{"6.1.0-18-amd64": true, "6.0.9": false, "5.15.0": false, "7.0": true, "6.12.48+deb13": true, "x": false} {
		if got := atLeast(in, 6, 1); got != want {
			t.Errorf("%q: %v", in, got)
		}
	}
}
