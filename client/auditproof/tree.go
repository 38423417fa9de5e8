package auditproof

import (
	"crypto/sha256"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Tree is a Merkle tree that only grows; it keeps its right edge alone, at most 63 hashes. The zero value is empty.
type Tree struct {
	size int64
	edge []tlog.Hash // roots of the complete subtrees, the largest first: one for each bit that is set in size
}

// LoadTree gets the edge of a tree of size records from its stored hashes.
func LoadTree(size int64, r tlog.HashReader) (*Tree, error) {
	var indexes []int64
	var lo int64
	for level := bits.Len64(uint64(size)) - 1; level >= 0; level-- {
		if size&(1<<level) != 0 {
			indexes = append(indexes, tlog.StoredHashIndex(level, lo>>level))
			lo += 1 << level
		}
	}
	edge, err := r.ReadHashes(indexes)
	if err != nil {
		return nil, err
	}
	return &Tree{size, edge}, nil
}

// Size is the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// Clone returns a copy that grows apart.
func (t *Tree) Clone() *Tree { return &Tree{t.size, slices.Clone(t.edge)} }

// Add appends a leaf and returns the nodes that it completes, the leaf first: what stands in the stored hashes from
// tlog.StoredHashIndex(0, size before) on.
func (t *Tree) Add(leaf tlog.Hash) []tlog.Hash {
	nodes := append(make([]tlog.Hash, 0, 2), leaf)
	for n := t.size; n&1 != 0; n >>= 1 {
		last := len(t.edge) - 1
		leaf = tlog.NodeHash(t.edge[last], leaf)
		t.edge = t.edge[:last]
		nodes = append(nodes, leaf)
	}
	t.edge = append(t.edge, leaf)
	t.size++
	return nodes
}

// Checkpoint is the tree's state.
func (t *Tree) Checkpoint() Checkpoint {
	if t.size == 0 {
		return Checkpoint{0, sha256.Sum256(nil)} // RFC 6962, 2.1
	}
	h := t.edge[len(t.edge)-1]
	for i := len(t.edge) - 2; i >= 0; i-- {
		h = tlog.NodeHash(t.edge[i], h)
	}
	return Checkpoint{t.size, h}
}
