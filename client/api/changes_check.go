package api

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxPath bounds a path of a change set and a link's target, in bytes.
const MaxPath = 4000

// The types of a Change.
const (
	TypeFile = "file"
	TypeDir  = "dir"
	TypeLink = "link"
)

// NameProblem says why a name, or a link's target, cannot be shown faithfully to a person; it is empty if it can.
func NameProblem(s string) string {
	if !utf8.ValidString(s) {
		return "is not valid UTF-8"
	}
	for _, r := range s {
		// Cf has the characters that turn or hide text; Zl and Zp break lines.
		if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
			return "holds control or formatting characters"
		}
	}
	return ""
}

// LinkProblem says why a symbolic link at p with this target must not be made; it is empty if it may. It judges the text
// alone; what lies on the way may still lead out of the folder.
func LinkProblem(p, target string) string {
	switch bad := NameProblem(target); {
	case target == "" || len(target) > MaxPath:
		return "its target is empty or too long"
	case bad != "":
		return "its target " + bad
	case path.IsAbs(target):
		return "it leaves the folder"
	}
	if to := path.Join(path.Dir(p), target); to == ".." || strings.HasPrefix(to, "../") {
		return "it leaves the folder"
	}
	return ""
}

// Check says what is wrong with the shape of a change set, wherever it came from: every path is relative, clean, inside of
// the folder, showable and named once, and every change has just the fields that its kind and type have. It
// knows nothing of the files themselves.
func (c *Changes) Check() error {
	there, gone := map[string]string{}, map[string]string{} // path → type after, and before
	claim := func(m map[string]string, p, typ string) string {
		if _, ok := m[p]; ok {
			return "it is named twice"
		}
		m[p] = typ
		return ""
	}
	for _, list := range []struct {
		kind    string
		changes []Change
		check   func(*Change) string
	}{
		{"added", c.Added, func(ch *Change) string {
			return first(ch.fields(true, false), claim(there, ch.Path, ch.Type))
		}},
		{"modified", c.Modified, func(ch *Change) string {
			return first(ch.fields(true, true), claim(there, ch.Path, ch.Type), claim(gone, ch.Path, ""))
		}},
		{"deleted", c.Deleted, func(ch *Change) string {
			return first(ch.fields(false, true), claim(gone, ch.Path, ch.Type))
		}},
		{"renamed", c.Renamed, func(ch *Change) string {
			if ch.Type != TypeFile || ch.SHA256 != ch.Before {
				return "only a file with unchanged bytes can be renamed"
			}
			return first(ch.fields(true, true), claim(there, ch.Path, ch.Type), claim(gone, ch.From, ch.Type))
		}},
		{"refused", c.Refused, (*Change).refusal},
	} {
		for i := range list.changes {
			ch := &list.changes[i]
			if why := first(ch.path(list.kind), list.check(ch)); why != "" {
				return fmt.Errorf("cannot use the change set: %s %.200q: %s", list.kind, ch.Path, why)
			}
		}
	}
	for p, typ := range there {
		if old, ok := gone[p]; ok && old == typ {
			return fmt.Errorf("cannot use the change set: %.200q: it is both added and deleted", p)
		}
	}
	return nil
}

func first(problems ...string) string {
	for _, p := range problems {
		if p != "" {
			return p
		}
	}
	return ""
}

func (ch *Change) path(kind string) string {
	if kind == "refused" { // quoted names may be longer; it is shown and never used
		if !utf8.ValidString(ch.Path) || ch.Path == "" || len(ch.Path) > 5*MaxPath || strings.ContainsRune(ch.Path, 0) {
			return "its path is bad"
		}
		return ""
	}
	paths := []string{ch.Path}
	if kind == "renamed" {
		paths = append(paths, ch.From)
	} else if ch.From != "" {
		return "it has an old path"
	}
	for _, p := range paths {
		if !fs.ValidPath(p) || p == "." || len(p) > MaxPath || NameProblem(p) != "" {
			return "its path is bad"
		}
	}
	return ""
}

// fields checks all but the path. after: it is there afterwards; before: it was there.
func (ch *Change) fields(after, before bool) string {
	sum := func(s string, want bool) bool {
		return want == (s != "") && (s == "" || len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "")
	}
	file, link := ch.Type == TypeFile, ch.Type == TypeLink
	switch {
	case !file && !link && ch.Type != TypeDir:
		return "its type is unknown"
	case ch.Mode&^0o777 != 0:
		return "its mode has more than permission bits"
	case ch.Size < 0 || !file && ch.Size != 0:
		return "its size is bad"
	case !sum(ch.SHA256, file && after) || !sum(ch.Before, before && (file || link)):
		return "its hashes are bad"
	case !file && ch.Binary:
		return "only a file can be binary"
	case ch.Why != "":
		return "it has a reason to be refused"
	case !link && ch.Target != "":
		return "it has a target"
	case link && after:
		return LinkProblem(ch.Path, ch.Target)
	case link && NameProblem(ch.Target) != "" || len(ch.Target) > MaxPath:
		return "its old target is bad"
	}
	return ""
}

func (ch *Change) refusal() string {
	if ch.Why == "" || len(ch.Why) > 200 || NameProblem(ch.Why) != "" {
		return "its reason is bad"
	}
	if (*ch != Change{Path: ch.Path, Why: ch.Why}) {
		return "it says more than a path and a reason"
	}
	return ""
}
