package api

// Changes is what a sandbox did to a folder: found by the daemon after the sandbox was ended, so it cannot change any more.
// Every path is relative to the folder, slash-separated, clean, and may hold any bytes but NUL: neutralise it before showing it.
type Changes struct {
	Added    []Change `json:"added"`
	Modified []Change `json:"modified"`
	Deleted  []Change `json:"deleted"`
	Renamed  []Change `json:"renamed"`
	Refused  []Change `json:"refused"` // never applied; Why says so
	Diff     string   `json:"diff"`    // unified diff of the text files, at most 256 KiB
	DiffCut  bool     `json:"diff_cut,omitempty"`
	Digest   string   `json:"digest"` // sha256 over the set: what an approval is bound to
}

// Empty says that nothing may be applied.
func (c *Changes) Empty() bool {
	return len(c.Added)+len(c.Modified)+len(c.Deleted)+len(c.Renamed) == 0
}

// Change is one path.
type Change struct {
	Path   string `json:"path"`
	From   string `json:"from,omitempty"` // old path of a renamed file
	Type   string `json:"type"`           // file, dir or link; empty for what was refused
	Mode   uint32 `json:"mode"`           // permission bits only; of a deleted path, the old ones
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256,omitempty"` // hex, of a file's new bytes
	Before string `json:"before,omitempty"` // hex, of a file's old bytes: what the client expects to find, else a conflict. Of a link: of its old target
	Target string `json:"target,omitempty"` // of a link; of a deleted one, the old target if it can be shown
	Binary bool   `json:"binary,omitempty"`
	Why    string `json:"why,omitempty"` // of a refusal
}

// Apply tells the client that the change set with this digest was approved.
type Apply struct {
	Digest string `json:"digest"`
}

// ApplyReport says what a client did with the approved changes.
type ApplyReport struct {
	Digest    string   `json:"digest"`
	Applied   int      `json:"applied"`
	Conflicts []string `json:"conflicts"` // paths that changed meanwhile; they were left alone
	Failed    []string `json:"failed"`    // "path: why"
}
