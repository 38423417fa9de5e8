package api

import "time"

// Levels of an approval.
const (
	LevelConfirm      = "confirm"      // some process of this user says yes
	LevelAuthenticate = "authenticate" // the person proves who they are
)

// Approval is a question to a person, and later its answer.
type Approval struct {
	ID      string    `json:"id"`
	Session string    `json:"session"`
	Tool    string    `json:"tool"`             // the tool, or "apply"
	Summary string    `json:"summary"`          // one sentence: what will happen
	Detail  string    `json:"detail,omitempty"` // the exact bytes, for people; at most 64 KiB. Neutralise it
	Reason  string    `json:"reason,omitempty"` // why policy asks
	Level   string    `json:"level"`
	Digest  string    `json:"digest"` // sha256 of the exact bytes; an Answer must repeat it
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Outcome string    `json:"outcome,omitempty"` // allow, deny or expired, once closed
}

// Answer is a person's. Anything but Allow: true with the right digest denies or is refused.
type Answer struct {
	Allow  bool   `json:"allow"`
	Digest string `json:"digest"`
}
