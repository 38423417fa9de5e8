package control

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/closedpaw/closedpaw/policy"
)

// Every route has an action that policy knows, no two share one, and the table is what client/api documents.
func TestTable(t *testing.T) {
	d := &daemon{}
	seen := map[policy.Action]string{}
	var have []string
	for _, r := range d.table() {
		if !slices.Contains(policy.Actions(), r.Action) {
			t.Errorf("%s: policy does not know %q", r.Pattern, r.Action)
		}
		if other, ok := seen[r.Action]; ok {
			t.Errorf("%s and %s are the same to policy", r.Pattern, other)
		}
		seen[r.Action] = r.Pattern
		if r.Handler == nil {
			t.Errorf("%s has no handler", r.Pattern)
		}
		have = append(have, r.Pattern)
	}
	doc, err := os.ReadFile("../../../client/api/api.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^//\t(GET|POST|DELETE) +(/v1[^ ?]*)`).FindAllStringSubmatch(string(doc), -1) {
		want = append(want, m[1]+" "+m[2])
	}
	slices.Sort(have)
	slices.Sort(want)
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("documented (-) and served (+) routes differ:\n%s", d)
	}
}
