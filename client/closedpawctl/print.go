package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/closedpaw/closedpaw/client/screen"
)

// printJSON writes v as one line of JSON. Characters that a terminal must not see are escaped, which JSON allows.
func (a *app) printJSON(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := a.out.Write(screen.JSON(b.Bytes()))
	return err
}

// printList writes a list as JSON, where none is [] and not null.
func printList[T any](a *app, list []T) error {
	if list == nil {
		list = []T{}
	}
	return a.printJSON(list)
}

// table lines columns up. Cells are neutralised.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, columns ...string) *table {
	t := &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if len(columns) > 0 {
		t.row(columns...)
	}
	return t
}

func (t *table) row(cells ...string) {
	for i, c := range cells {
		cells[i] = screen.Line(c)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t *table) flush() error { return t.w.Flush() }

func local(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// cut bounds a cell; the whole text is shown elsewhere.
func cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "write JSON")
}

// byPrefix finds the one of list whose id begins with prefix.
func byPrefix[T any](list []T, id func(T) string, prefix, what, see string) (T, error) {
	var found []T
	for _, one := range list {
		if id(one) == prefix {
			return one, nil
		}
		if prefix != "" && strings.HasPrefix(id(one), prefix) {
			found = append(found, one)
		}
	}
	var none T
	switch len(found) {
	case 0:
		return none, fmt.Errorf("no %s has an id that begins with %q (see: %s)", what, prefix, see)
	case 1:
		return found[0], nil
	}
	return none, fmt.Errorf("%d %ss have an id that begins with %q (give more of it; see: %s)", len(found), what, prefix, see)
}
