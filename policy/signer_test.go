package policy_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/closedpaw/closedpaw/policy"
)

const testKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINNwMHM8lLcve+HMdKmjaanRnkdOE0Sm3ZUxkjv5LTgg"

func TestParseSigners(t *testing.T) {
	signers, err := policy.ParseSigners([]byte("# a comment\n\n\talice,bob@example.org  Valid-After=\"20260101Z\",namespaces=\"a,b\"\t" + testKey + " a comment, too\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := signers[0]
	if len(signers) != 1 || s.Principals != "alice,bob@example.org" || fmt.Sprint(s.Namespaces) != "[a b]" ||
		!s.ValidAfter.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) || !s.ValidBefore.IsZero() || s.Key.Type() != "ssh-ed25519" {
		t.Errorf("got %+v", signers)
	}

	for line, want := range map[string]string{
		"a":                                    "a key must follow",
		"a " + testKey[:32]:                    "cannot be read",
		"a ssh-ed25519":                        "cannot be read",
		"a ssh-ed25519 !":                      "not base64",
		"a ssh-rsa " + testKey[12:]:            "not a plain one of type ssh-rsa",
		"a ssh-dss AAAA":                       "the option",
		"a ssh-ed25519-cert-v01@openssh.com A": "the option",
		`,a ` + testKey:                        "principals",
		`"a b" ` + testKey:                     "principals",
		`a cert-authority ` + testKey:          "list the keys themselves",
		`a cert-authority,namespaces="x" ` + testKey:                    "list the keys themselves",
		`a no-touch-required ` + testKey:                                "is unknown",
		`a namespaces="" ` + testKey:                                    `must be followed by ="VALUE"`,
		`a namespaces=x ` + testKey:                                     `must be followed by ="VALUE"`,
		`a namespaces="x ` + testKey:                                    `must be followed by ="VALUE"`,
		`a namespaces="x"y ` + testKey:                                  "a comma or a blank",
		`a namespaces="x,,y" ` + testKey:                                "namespaces must be",
		`a namespaces ` + testKey:                                       "namespaces must be",
		`a namespaces="x",namespaces="y" ` + testKey:                    "stands twice",
		`a namespaces="x"`:                                              "a comma or a blank",
		`a valid-before="20260101" ` + testKey:                          "in UTC",
		`a valid-before="2026010112Z" ` + testKey:                       "in UTC",
		`a valid-before="20261332Z" ` + testKey:                         "in UTC",
		`a valid-before="20260101Z",valid-after="20260102Z" ` + testKey: "not after",
		"a " + testKey + "\nb " + testKey:                               "line 2: this key stands in an earlier line",
		"a " + testKey + "\r":                                           "cannot be seen",
		"a\u202e " + testKey:                                            "cannot be seen",
		"a " + testKey + "\nx y z":                                      "line 2",
	} {
		got, err := policy.ParseSigners([]byte(line + "\n"))
		if err == nil || !strings.Contains(err.Error(), want) || got != nil {
			t.Errorf("%q: got %v, want %q", line, err, want)
		}
	}
	if _, err := policy.ParseSigners(bytes.Repeat([]byte("#\n"), 1<<18)); err == nil {
		t.Error("a huge file was read")
	}
}

func FuzzParseSigners(f *testing.F) {
	f.Add([]byte("a " + testKey))
	f.Add([]byte(`a,b namespaces="x,!y",valid-after="20260101Z",valid-before="202701010000Z" ` + testKey + " c\n# d\n"))
	f.Add([]byte(`a cert-authority ` + testKey))
	f.Fuzz(func(t *testing.T, b []byte) {
		signers, err := policy.ParseSigners(b)
		if err != nil {
			return
		}
		for _, s := range signers {
			if s.Key == nil || s.Principals == "" || !bytes.Contains(b, []byte(s.Principals)) {
				t.Errorf("got %+v", s)
			}
		}
	})
}
