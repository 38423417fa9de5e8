package api

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
)

// Digest is the SHA-256 of a change set, in hex: what an approval is bound to. It covers all that is in the set but the
// Digest field itself: every field of every change, the order, the diff and whether it was cut. So what was shown is
// what is applied.
//
// The encoding: strings are a length and the bytes, numbers 8 bytes, both big endian; a truth value is the number 0 or 1.
// First the string "closedpaw changes v1"; then the lists added, modified, deleted, renamed, refused, each as its
// length and, for each change, Path, From, Type, Mode, Size, SHA256, Before, Target, Binary, Why; then Diff and DiffCut.
func Digest(c *Changes) string {
	h := sha256.New()
	num := func(n int64) {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(n))
		h.Write(b[:])
	}
	str := func(s string) {
		num(int64(len(s)))
		io.WriteString(h, s)
	}
	truth := func(b bool) {
		if b {
			num(1)
		} else {
			num(0)
		}
	}
	str("closedpaw changes v1")
	for _, list := range [][]Change{c.Added, c.Modified, c.Deleted, c.Renamed, c.Refused} {
		num(int64(len(list)))
		for _, ch := range list {
			str(ch.Path)
			str(ch.From)
			str(ch.Type)
			num(int64(ch.Mode))
			num(ch.Size)
			str(ch.SHA256)
			str(ch.Before)
			str(ch.Target)
			truth(ch.Binary)
			str(ch.Why)
		}
	}
	str(c.Diff)
	truth(c.DiffCut)
	return hex.EncodeToString(h.Sum(nil))
}
