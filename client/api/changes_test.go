package api_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/closedpaw/closedpaw/client/api"
)

const (
	sumA = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
	sumB = "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"
)

func set() *api.Changes {
	return &api.Changes{
		Added:    []api.Change{{Path: "a", Type: "file", Mode: 0o644, Size: 1, SHA256: sumA}, {Path: "b", Type: "dir", Mode: 0o755}},
		Modified: []api.Change{{Path: "c", Type: "link", Target: "a", Before: sumA}},
		Deleted:  []api.Change{{Path: "d", Type: "file", Before: sumB}},
		Renamed:  []api.Change{{Path: "e", From: "f", Type: "file", SHA256: sumA, Before: sumA}},
		Refused:  []api.Change{{Path: "g", Why: "it is a FIFO"}},
		Diff:     "--- a\n",
	}
}

// TestDigest changes each field that there is, one at a time: none may leave the digest as it was.
func TestDigest(t *testing.T) {
	seen := map[string]string{api.Digest(set()): "unchanged"}
	check := func(what string, c *api.Changes) {
		t.Helper()
		d := api.Digest(c)
		if other, ok := seen[d]; ok {
			t.Errorf("%s: same digest as %s", what, other)
		}
		seen[d] = what
	}
	alter := func(v reflect.Value) {
		switch v.Kind() {
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Int64:
			v.SetInt(v.Int() + 1)
		case reflect.Uint32:
			v.SetUint(v.Uint() + 1)
		default:
			t.Fatalf("no way to alter a %s", v.Kind())
		}
	}
	for i := range reflect.TypeFor[api.Changes]().NumField() {
		f := reflect.TypeFor[api.Changes]().Field(i)
		c := set()
		v := reflect.ValueOf(c).Elem().Field(i)
		if f.Type.Kind() != reflect.Slice {
			alter(v)
			if f.Name == "Digest" {
				if seen[api.Digest(c)] != "unchanged" {
					t.Error("the digest covers itself")
				}
				continue
			}
			check(f.Name, c)
			continue
		}
		for j := range reflect.TypeFor[api.Change]().NumField() {
			c := set()
			alter(reflect.ValueOf(c).Elem().Field(i).Index(0).Field(j))
			check(f.Name+"."+reflect.TypeFor[api.Change]().Field(j).Name, c)
		}
		v.SetZero()
		check("no "+f.Name, c)
	}
	c := set()
	c.Added[0], c.Added[1] = c.Added[1], c.Added[0]
	check("order", c)
	c = set()
	c.Deleted, c.Added = c.Added, c.Deleted
	check("added and deleted exchanged", c)
	c = set()
	c.Added[0].Path, c.Added[0].From = "", "a"
	check("a value in the next field", c)
}

func TestCheck(t *testing.T) {
	if err := set().Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*api.Changes){
		"path up":           func(c *api.Changes) { c.Deleted[0].Path = "../d" },
		"old path up":       func(c *api.Changes) { c.Renamed[0].From = "x/../../f" },
		"twice":             func(c *api.Changes) { c.Added[1].Path = "a" },
		"twice in lists":    func(c *api.Changes) { c.Renamed[0].Path = "a" },
		"deleted twice":     func(c *api.Changes) { c.Renamed[0].From = "d" },
		"added and deleted": func(c *api.Changes) { c.Deleted[0].Path = "a" },
		"renamed from what is modified": func(c *api.Changes) {
			c.Renamed[0].From = "c"
		},
		"link out":       func(c *api.Changes) { c.Modified[0].Target = ".." + "/x" },
		"mode":           func(c *api.Changes) { c.Added[1].Mode = 0o1777 },
		"size of a dir":  func(c *api.Changes) { c.Added[1].Size = 1 },
		"reason":         func(c *api.Changes) { c.Refused[0].Why = "" },
		"invalid UTF-8":  func(c *api.Changes) { c.Added[0].Path = "\xff" },
		"format letters": func(c *api.Changes) { c.Added[0].Path = "a\u200db" },
		"renamed dir":    func(c *api.Changes) { c.Renamed[0].Type = "dir" },
	} {
		t.Run(name, func(t *testing.T) {
			c := set()
			spoil(c)
			if err := c.Check(); err == nil || !strings.HasPrefix(err.Error(), "cannot use the change set: ") {
				t.Error(err)
			}
		})
	}
	c := set() // a file becomes a folder
	c.Deleted[0].Path = "b"
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}
