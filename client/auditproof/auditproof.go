// Package auditproof checks ClosedPaw's audit log without trusting who keeps it.
//
// The log is a transparency log (golang.org/x/mod/sumdb/tlog): each record is a leaf of a Merkle tree, and the audit
// role signs the tree's size and root hash in a checkpoint. Verify checks such a checkpoint as the daemon hands it
// out, against the one that this client remembered from an earlier time; VerifyDir reads a whole log folder. What
// the two guarantee: a record that was changed, removed, swapped or put in between is found, and so is a log that was
// rewritten and signed anew, by everyone who remembers a checkpoint of the old one. What nobody can see is a record that
// was never written, and, without a remembered checkpoint, a log that was replaced as a whole.
//
// The package is pure: it reads what it is given and decides. It must never import the daemon; the audit role imports
// it, so that writer and verifier share one definition of the files, the tree and the checkpoint.
package auditproof

import (
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/closedpaw/closedpaw/client/api"
)

// maxConsistency bounds the hashes of a tree proof: two for each level of a tree of 2^63 records.
const maxConsistency = 128

// Verify checks an answer of the daemon and returns what to remember instead of the earlier checkpoint. remembered is
// nil at the first time: then the key is taken on trust, as ssh does with a host it never met.
// On an error nothing must be remembered: what was known before is the evidence.
func Verify(p api.Proof, remembered *Remembered) (*Remembered, error) {
	if remembered != nil {
		if err := remembered.sameKey(p.Key); err != nil {
			return nil, err
		}
	}
	c, err := Open([]byte(p.Checkpoint), p.Key)
	if err != nil {
		return nil, err
	}
	if p.Rehashed != c.Size {
		return nil, fmt.Errorf("the log has %d records, but the daemon read and hashed only %d of them: nothing is proven; "+
			"verify the folder itself, as root: closedpawctl audit verify --dir /var/lib/closedpaw/audit", c.Size, p.Rehashed)
	}
	if err := extends(c, p.Consistency, remembered); err != nil {
		return nil, err
	}
	return remember(p.Key, c), nil
}

// extends says whether the log of checkpoint c begins with what was remembered.
func extends(c Checkpoint, consistency []string, r *Remembered) error {
	if r == nil || r.Size == 0 {
		return nil
	}
	if c.Size < r.Size {
		return r.broken(fmt.Sprintf("it has only %d now", c.Size))
	}
	if len(consistency) > maxConsistency {
		return fmt.Errorf("the daemon's proof has %d hashes, more than any log needs: it is not the audit log's; "+
			"verify the folder itself, as root: closedpawctl audit verify --dir /var/lib/closedpaw/audit", len(consistency))
	}
	proof := make(tlog.TreeProof, len(consistency))
	for i, s := range consistency {
		h, err := tlog.ParseHash(s)
		if err != nil {
			return fmt.Errorf("hash %d of the daemon's proof is malformed: nothing is proven; "+
				"verify the folder itself, as root: closedpawctl audit verify --dir /var/lib/closedpaw/audit", i)
		}
		proof[i] = h
	}
	if err := tlog.CheckTree(proof, c.Size, c.Hash, r.Size, r.Hash); err != nil {
		return r.broken("what stands there now has another hash")
	}
	return nil
}

func remember(key string, c Checkpoint) *Remembered {
	return &Remembered{Key: key, Size: c.Size, Hash: c.Hash, Time: time.Now().UTC().Truncate(time.Second)}
}
