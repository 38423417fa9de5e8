package main

import "testing"

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"": 0, "4096": 4096, "1K": 1 << 10, "512M": 512 << 20, "2G": 2 << 30, "2GiB": 2 << 30, "100mib": 100 << 20, "64k": 64 << 10,
		"0": -1, "M": -1, "-1": -1, "1.5G": -1, "1T": -1, "1MM": -1, "0x10": -1, " 1M": -1, "9999999999999": -1, "999999999999G": -1, "1i": -1,
	} {
		got, err := parseSize(in)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, %v, want %d", in, got, err, want)
		}
	}
}
