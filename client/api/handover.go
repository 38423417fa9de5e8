package api

// UpgradeProtocol is the Upgrade header of a descriptor handover: HTTP drops descriptors, so the connection leaves HTTP.
//
// POST /v1/handover?kind=folder|stdio with "Connection: Upgrade" and "Upgrade: closedpaw-fd", no body.
// The daemon answers 101. Only then the client sends one message of one byte, "D", with descriptors by SCM_RIGHTS:
// kind folder: one directory, opened O_RDONLY|O_DIRECTORY, whose owner is the client's uid (0 for root);
// kind stdio: three pipes: the read end that will be the command's stdin, the write ends for its stdout and stderr.
// The daemon answers one line of JSON, a Handover or an Error, and closes. The token is good for one use by the same
// user within a minute.
//
// POST /v1/sessions/{id}/changes likewise, after an apply event; there the daemon sends: for every added, modified and
// renamed file, in the order of the lists in Changes, one byte "F" with one read-only descriptor, then one byte "E".
const UpgradeProtocol = "closedpaw-fd"

// Handover answers a descriptor handover.
type Handover struct {
	Token string `json:"token,omitempty"`
	Error *Error `json:"error,omitempty"`
}
