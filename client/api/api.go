// Package api is the wire form between closedpawd and its clients: JSON over HTTP over a UNIX socket.
//
// It imports the standard library only, so that anyone may use it. All sizes are bytes, all times RFC 3339 in UTC,
// all durations milliseconds unless a name says otherwise. A client must not send an Origin or Referer header, and
// must send "Host: closedpaw". Request bodies are at most [MaxBody]; unknown fields and trailing bytes are errors.
//
//	GET    /v1/status                       → Status
//	GET    /v1/checks                       → []Check          the daemon's part of `doctor`
//	GET    /v1/models                       → []Model
//	POST   /v1/handover?kind=folder|stdio   upgrade, see Handover
//	POST   /v1/ask          AskRequest      → stream of Event
//	POST   /v1/run          RunRequest      → stream of Event
//	GET    /v1/sessions                     → []Session
//	GET    /v1/sessions/{id}                → SessionDetail
//	DELETE /v1/sessions/{id}                → Empty
//	POST   /v1/sessions/{id}/changes        upgrade, see Handover: the approved files
//	POST   /v1/sessions/{id}/applied        ApplyReport → Empty
//	GET    /v1/approvals                    → []Approval
//	GET    /v1/approvals/{id}               → Approval
//	POST   /v1/approvals/{id}  Answer       → Approval
//	GET    /v1/audit?after=SEQ&limit=N      → []AuditRecord    one's own; root sees all
//	POST   /v1/audit/proof  ProofRequest    → Proof
//
// An error has a status of 400 or more and an Error as its body.
package api

import (
	"encoding/json"
	"time"
)

// Host is what every request must carry as its Host.
const Host = "closedpaw"

// MaxBody bounds a request's body.
const MaxBody = 4 << 20

// DefaultSocket is where the daemon listens unless CLOSEDPAW_SOCKET or --socket says otherwise.
const DefaultSocket = "/run/closedpaw/closedpaw.sock"

// Empty is the body of an answer that says nothing.
type Empty struct{}

// Code names the reason of an error, for programs.
type Code string

// The codes, with the HTTP status that carries them.
const (
	CodeBadRequest  Code = "bad_request" // 400
	CodeDenied      Code = "denied"      // 403: policy or a person said no
	CodeNotFound    Code = "not_found"   // 404: also for what is another user's
	CodeConflict    Code = "conflict"    // 409: answered already, changed meanwhile
	CodeTooMany     Code = "too_many"    // 429: a bound of this user was reached
	CodeInternal    Code = "internal"    // 500
	CodeUnavailable Code = "unavailable" // 503: a part that is needed does not run
	CodeModel       Code = "model"       // 502: the model's server failed
	CodeTimeout     Code = "timeout"     // 504
	CodeCancelled   Code = "cancelled"   // 499: the client went away
)

// Error is what a person is told: one sentence, and what to do next.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // what to do next
}

func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + " (" + e.Hint + ")"
}

// Status says what runs.
type Status struct {
	Version      string    `json:"version"`
	PID          int       `json:"pid"` // the launcher's
	Since        time.Time `json:"since"`
	Tier         string    `json:"tier"` // gvisor
	Dev          bool      `json:"dev"`
	PolicySerial uint64    `json:"policy_serial"`
	Sessions     int       `json:"sessions"`   // running, of the asking user
	Pending      int       `json:"pending"`    // approvals, of the asking user
	AuditSize    int64     `json:"audit_size"` // records in the log
	Ollama       string    `json:"ollama"`     // its URL
}

// Check is one line of `doctor`.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Needed bool   `json:"needed"` // the main job cannot run without it
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"` // a command or a sentence
}

// Model is one that `ask -m` takes.
type Model struct {
	Name     string `json:"name"`
	Provider string `json:"provider"` // ollama or demo
	Size     int64  `json:"size,omitempty"`
	Tools    bool   `json:"tools"`   // it can call tools
	Default  bool   `json:"default"` // taken when no -m is given
}

// Session is a conversation or a run, in short.
type Session struct {
	ID      string    `json:"id"`
	Kind    string    `json:"kind"` // ask or run
	Model   string    `json:"model,omitempty"`
	Title   string    `json:"title"` // start of the first prompt or the command
	State   string    `json:"state"` // running, done, failed or interrupted
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"`
}

// SessionDetail is a session with what was said.
type SessionDetail struct {
	Session
	Turns []Turn `json:"turns"`
}

// Turn is one message of a conversation.
type Turn struct {
	Role      string     `json:"role"` // user, assistant or tool
	Text      string     `json:"text"`
	Label     string     `json:"label,omitempty"` // user or world: where the text came from; the model's own has none
	ToolCalls []ToolCall `json:"tool_calls,omitempty"`
	Tool      string     `json:"tool,omitempty"`    // of a tool's turn
	CallID    string     `json:"call_id,omitempty"` // of a tool's turn: the call that it answers
	Time      time.Time  `json:"time"`
}

// ToolCall is what a model asked for.
type ToolCall struct {
	ID   string          `json:"id"`
	Name string          `json:"name"`
	Args json.RawMessage `json:"args"`
}

// AuditRecord is one entry of the log. Times are UTC.
type AuditRecord struct {
	Seq      int64     `json:"seq"` // from 0, without gaps
	Time     time.Time `json:"time"`
	UID      int64     `json:"uid"` // -1: the daemon itself
	Session  string    `json:"session"`
	Event    string    `json:"event"` // see daemon/internal/audit
	Tool     string    `json:"tool"`
	Decision string    `json:"decision"` // allow, ask, deny or empty
	Reason   string    `json:"reason"`
	Tier     string    `json:"tier"`
	Digest   string    `json:"digest,omitempty"` // sha256 of the exact bytes that were decided on
	Detail   string    `json:"detail,omitempty"` // bounded, for people
}

// ProofRequest asks for the log's signed checkpoint, and for proof that the log still begins with the Size records
// that had the given tree hash. Size 0 asks for the checkpoint alone.
type ProofRequest struct {
	Size int64 `json:"size"`
}

// Proof answers a ProofRequest. Checkpoint is a signed note (golang.org/x/mod/sumdb/note) whose text is
// "closedpaw audit\nSIZE\nBASE64 ROOT HASH\n"; Consistency is a golang.org/x/mod/sumdb/tlog tree proof, base64 hashes.
type Proof struct {
	Key         string   `json:"key"` // the verifier key of the note
	Checkpoint  string   `json:"checkpoint"`
	Consistency []string `json:"consistency"`
	Rehashed    int64    `json:"rehashed"` // records that the audit role read again and hashed for this answer
}
