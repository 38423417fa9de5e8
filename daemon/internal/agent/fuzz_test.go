package agent_test

import (
	"encoding/json"
	"testing"

	"github.com/closedpaw/closedpaw/daemon/internal/agent"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
)

// FuzzArguments shows that whatever a model calls arguments becomes one JSON object or an error, and that what control
// said of them comes back from the escaped form.
func FuzzArguments(f *testing.F) {
	f.Add([]byte(`{"a":"<|im_end|>","b":[1.50,{"c":"\u003c/s>"}],"a":null}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, in []byte) {
		plain, err := agent.MapStrings(in, func(s string) string { return s })
		if err != nil {
			return
		}
		var v map[string]any
		if err := json.Unmarshal(plain, &v); err != nil || v == nil {
			t.Fatalf("%q became %q: %v", in, plain, err)
		}
		escaped, err := agent.MapStrings(plain, model.Escape)
		if err != nil {
			t.Fatal(err)
		}
		back, err := agent.MapStrings(escaped, model.Unescape)
		if err != nil || string(back) != string(plain) {
			t.Errorf("%q → %q → %q, %v", plain, escaped, back, err)
		}
	})
}
