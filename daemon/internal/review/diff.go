package review

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aymanbagabas/go-udiff"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/text"
)

// MaxDiff bounds the diff of a change set, in bytes.
const MaxDiff = 256 << 10

const (
	largeFile = 1 << 20  // larger ones get a line that says so
	diffPiece = 32 << 10 // of one message: JSON may make it six times as long
)

// differ writes the diff of a change set. It reads the files again and shows nothing whose hash is another by now.
type differ struct {
	lower, merged *os.File
	limit         int
	deadline      time.Time
}

// diff is in the order of paths. cut says that there is more than the limit.
func (d *differ) diff(r *result) (shown string, cut bool, err error) {
	type item struct {
		kind string
		c    change
	}
	var items []item
	for _, k := range kinds[:len(kinds)-1] { // not the refused
		for _, c := range r.lists[k] {
			items = append(items, item{k, c})
		}
	}
	slices.SortStableFunc(items, func(a, b item) int { return strings.Compare(a.c.Path, b.c.Path) })
	var b strings.Builder
	for _, i := range items {
		if time.Now().After(d.deadline) {
			return "", false, fmt.Errorf("%w: looking at what was changed took more than %v", errBound, scanTime)
		}
		b.WriteString(d.change(i.kind, &i.c))
		if b.Len() > d.limit {
			head, _ := text.Cut(b.String(), d.limit)
			return head, true, nil
		}
	}
	return b.String(), false, nil
}

func (d *differ) change(kind string, c *change) string {
	var b strings.Builder
	if kind == renamed {
		fmt.Fprintf(&b, "rename from %s\nrename to %s\n", c.From, c.Path)
	}
	if (kind == modified || kind == renamed) && c.Type != api.TypeLink && c.oldMode != c.Mode {
		fmt.Fprintf(&b, "mode of %s: %04o, was %04o\n", c.Path, c.Mode, c.oldMode)
	}
	switch {
	case c.Type == api.TypeLink && kind != deleted:
		fmt.Fprintf(&b, "link %s to %s\n", c.Path, c.Target)
	case c.Type != api.TypeFile || kind == renamed || c.Before == c.SHA256:
	default:
		b.WriteString(d.file(kind, c))
	}
	return b.String()
}

func (d *differ) file(kind string, c *change) string {
	from, to := "a/"+c.Path, "b/"+c.Path
	hash, oldSize := c.SHA256, c.oldSize
	switch kind {
	case added:
		from = "/dev/null"
	case deleted:
		to, hash, oldSize = "/dev/null", c.Before, c.Size
	}
	header := fmt.Sprintf("--- %s\n+++ %s\n", from, to)
	switch {
	case c.Binary:
		return header + fmt.Sprintf("Binary file %s: %d bytes, sha256 %s\n", c.Path, c.Size, hash)
	case c.Size > largeFile || oldSize > largeFile:
		return header + fmt.Sprintf("Large file %s: %d bytes, sha256 %s\n", c.Path, c.Size, hash)
	case c.Size == 0 && oldSize == 0:
		return header + fmt.Sprintf("Empty file %s\n", c.Path)
	}
	var old, now string
	ok := true
	if kind != added {
		old, ok = d.read(d.lower, c.Path, c.Before)
	}
	if kind != deleted && ok {
		now, ok = d.read(d.merged, c.Path, c.SHA256)
	}
	if !ok {
		return header + fmt.Sprintf("File %s changed while it was looked at\n", c.Path)
	}
	text, err := udiff.ToUnified(from, to, old, udiff.Lines(old, now), udiff.DefaultContextLines)
	if err != nil {
		return header + fmt.Sprintf("File %s cannot be compared: %d bytes, sha256 %s\n", c.Path, c.Size, hash)
	}
	return text
}

// read returns a whole file if its bytes are still those with this hash.
func (d *differ) read(tree *os.File, p, hash string) (string, bool) {
	f, err := openFile(tree, p)
	if err != nil {
		return "", false
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, largeFile+1))
	return string(b), err == nil && hexOf(b) == hash
}
