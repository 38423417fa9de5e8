package wire_test

import (
	"errors"
	"io"
	"testing"

	"github.com/closedpaw/closedpaw/daemon/internal/wire"
)

type thing struct {
	A string `json:"a"`
}

func TestDecode(t *testing.T) {
	for in, ok := range map[string]bool{
		`{"a":"x"}`: true, ` {"a":"x"} ` + "\n": true, `{}`: true,
		``: false, ` `: false, `{`: false, `[]`: false, `{"a":1}`: false, `{"a":"x","b":1}`: false, `{"a":"x"}{}`: false, `{"a":"x"} x`: false, `{"a":"x"}]`: false,
	} {
		var v thing
		if err := wire.Decode([]byte(in), &v); (err == nil) != ok || errors.Is(err, io.EOF) {
			t.Errorf("%q: error %v", in, err)
		}
	}
}

// What was encoded is one line, is decoded to the same, and markup does not grow.
func FuzzDecode(f *testing.F) {
	f.Add(`{"a":"<p>&amp;</p>"}`)
	f.Add(`{"a":"x"} {}`)
	f.Fuzz(func(t *testing.T, in string) {
		var v, w thing
		if wire.Decode([]byte(in), &v) != nil {
			return
		}
		b, err := wire.Encode(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := wire.Decode(b, &w); err != nil || v != w {
			t.Errorf("%q became %q: %v", in, b, err)
		}
	})
}

func TestEncode(t *testing.T) {
	if b, err := wire.Encode(thing{"<&>"}); string(b) != `{"a":"<&>"}` || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := wire.Encode(func() {}); err == nil {
		t.Error("a function was encoded")
	}
}
