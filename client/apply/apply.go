// Package apply carries an approved change set out in the client's own folder, with the client's own rights.
//
// It needs no daemon and no privilege. What it guarantees, whatever the daemon, the sandbox or another process does meanwhile:
//   - It applies nothing unless the set has the digest that it claims, which covers the diff that was shown.
//   - The bytes written are those whose hash is in the set: they are hashed while they are copied, on disk before they get
//     their name.
//   - It never follows a symbolic link and never leaves the folder: every parent folder is opened with openat2 beneath
//     the folder's descriptor and all else happens relative to it.
//   - What changed since the set was made is left alone and reported as a conflict. A file that is replaced or deleted is
//     first moved aside in one step, and moved back if it is not the one that was shown, so an edit is not lost.
//
// Modes: a modified or renamed file gets exactly the mode of the set, which has permission bits only; what is new gets it without
// the bits of the umask, as anything else that this user makes. Extended attributes of a modified file are not kept; its
// owner and group are where this user may set them.
//
// While it works, a file may be called .closedpaw-XXXX beside its place; a crash can leave one behind.
package apply

import "github.com/closedpaw/closedpaw/client/api"

// Files lists the paths whose bytes Apply asks for, in the order in which the daemon sends them: the files among added,
// modified and renamed.
func Files(c *api.Changes) []string {
	var paths []string
	for _, list := range [][]api.Change{c.Added, c.Modified, c.Renamed} {
		for i := range list {
			if list[i].Type == api.TypeFile {
				paths = append(paths, list[i].Path)
			}
		}
	}
	return paths
}
