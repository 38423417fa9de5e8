package review

import (
	"path"
	"slices"
	"strings"
)

func sortByPath(list []change) {
	slices.SortFunc(list, func(a, b change) int { return strings.Compare(a.Path, b.Path) })
}

// pairRenames turns a deleted and an added file with the same bytes into a renamed one: each at most once, first come first
// by path. What is part of a replacement (a folder became a file, or the reverse) stays as it is: there the order matters.
func pairRenames(lists map[string][]change) {
	replaced := map[string]bool{}
	for _, c := range lists[deleted] {
		if _, ok := slices.BinarySearchFunc(lists[added], c.Path, byPath); ok {
			replaced[c.Path] = true
		}
	}
	usable := func(c change) bool {
		if c.Type != "file" || c.Size == 0 {
			return false
		}
		for p := c.Path; p != "."; p = path.Dir(p) {
			if replaced[p] {
				return false
			}
		}
		return true
	}
	from := map[string][]change{} // by hash
	for _, c := range lists[deleted] {
		if usable(c) {
			from[c.Before] = append(from[c.Before], c)
		}
	}
	gone := map[string]bool{}
	lists[added] = slices.DeleteFunc(lists[added], func(c change) bool {
		old := from[c.SHA256]
		if len(old) == 0 || !usable(c) {
			return false
		}
		from[c.SHA256] = old[1:]
		gone[old[0].Path] = true
		c.From, c.Before, c.oldMode, c.oldSize = old[0].Path, c.SHA256, old[0].Mode, old[0].Size
		lists[renamed] = append(lists[renamed], c)
		return true
	})
	lists[deleted] = slices.DeleteFunc(lists[deleted], func(c change) bool { return gone[c.Path] })
}

func byPath(c change, p string) int { return strings.Compare(c.Path, p) }
