// Package review turns what a dead sandbox left behind into a bounded change set.
//
// Serve is all that role review does. It reads file trees that an attacker wrote, with no capability, in an empty root,
// from three directory descriptors: lower, the person's folder; upper, the overlay's upper layer; merged, a read-only
// view of the overlay. What changed is the difference between lower and merged; upper only says where to look, so that
// no private format of the kernel's is interpreted. No symbolic link is ever followed, nothing is ever written, every
// count is bounded. Collect and Open are control's side: they believe nothing that the role says about itself.
//
// What the set lists is all that can be applied. What cannot be shown faithfully or would reach beyond the folder stands
// among the refused, with a reason.
package review

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/role"
	"github.com/closedpaw/closedpaw/daemon/internal/text"
)

// Serve answers control until it hangs up: one scan, then the files of the change set. The descriptors stay the caller's.
func Serve(control *role.Conn, lower, upper, merged *os.File) error {
	s := &server{control: control, lower: lower, upper: upper, merged: merged}
	for {
		p, err := control.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch m := p.Msg.(type) {
		case *role.Scan:
			err = s.scan(p.Seq, m)
		case *role.OpenFile:
			err = s.open(p.Seq, m.Path)
		default:
			p.Close()
			return fmt.Errorf("%w: only scan and open_file", role.ErrNotPermitted)
		}
		if err != nil {
			return err
		}
	}
}

type server struct {
	control              *role.Conn
	lower, upper, merged *os.File
	scanned              bool
	files                map[string]bool // paths that may be opened
}

func (s *server) fail(seq uint64, code api.Code, err error, hint string) error {
	return s.control.Send(seq, &role.Failed{Code: code, Text: err.Error(), Hint: hint})
}

func (s *server) scan(seq uint64, m *role.Scan) error {
	if s.scanned {
		return s.fail(seq, api.CodeConflict, errors.New("cannot scan: it was done already"), "")
	}
	s.scanned = true
	found, err := scan(s.lower, s.upper, s.merged, *m)
	if err != nil {
		return s.refuse(seq, err)
	}
	d := differ{lower: s.lower, merged: s.merged, limit: min(m.DiffBytes, MaxDiff), deadline: found.deadline}
	diff, cut, err := d.diff(found)
	if err != nil {
		return s.refuse(seq, err)
	}
	s.files = map[string]bool{}
	for _, k := range kinds {
		for _, c := range found.lists[k] {
			if err := s.control.Send(0, &role.Change{Kind: k, Change: c.Change}); err != nil {
				return err
			}
			if c.Type == api.TypeFile && k != deleted && k != refused {
				s.files[c.Path] = true
			}
		}
	}
	for diff != "" {
		var piece string
		piece, diff = text.Cut(diff, diffPiece)
		if err := s.control.Send(0, &role.Diff{Text: piece}); err != nil {
			return err
		}
	}
	return s.control.Send(seq, &role.Scanned{DiffCut: cut})
}

func (s *server) refuse(seq uint64, err error) error {
	if errors.Is(err, errBound) {
		return s.fail(seq, api.CodeTooMany, err, "nothing was applied; let it change less at a time")
	}
	return s.fail(seq, api.CodeInternal, err, "")
}

func (s *server) open(seq uint64, path string) error {
	if !s.files[path] {
		return s.fail(seq, api.CodeNotFound, fmt.Errorf("cannot open %.200q: it is no file of the change set", path), "")
	}
	f, err := openFile(s.merged, path)
	if err != nil {
		return s.fail(seq, api.CodeInternal, err, "")
	}
	defer f.Close()
	return s.control.Send(seq, &role.File{}, f)
}
