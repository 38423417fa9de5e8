package api

// Trust of a part of the prompt.
const (
	LabelUser  = "user"  // the person typed it
	LabelWorld = "world" // anybody may have written it
)

// Part is a piece of a prompt with where it came from.
type Part struct {
	Label string `json:"label"`          // LabelUser or LabelWorld
	Name  string `json:"name,omitempty"` // of an attachment: a file's base name, or "stdin"
	Text  string `json:"text"`
}

// AskRequest begins a turn of a conversation. The answer is a stream of Event.
type AskRequest struct {
	Parts       []Part `json:"parts"` // in order; control splits user parts again and may only lower a label
	Model       string `json:"model,omitempty"`
	System      string `json:"system,omitempty"`
	Session     string `json:"session,omitempty"`     // continue this one
	Continue    bool   `json:"continue,omitempty"`    // continue the newest one
	Folder      string `json:"folder,omitempty"`      // token of a handover
	Apply       string `json:"apply"`                 // ask or never
	MaxTurns    int    `json:"max_turns,omitempty"`   // model calls; 0: the daemon's default (20)
	TimeoutMS   int64  `json:"timeout_ms,omitempty"`  // 0: the daemon's default
	TrustStdin  bool   `json:"trust_stdin,omitempty"` // the person says that all of the prompt is theirs
	Interactive bool   `json:"interactive"`           // a person can be asked at this client
}

// RunRequest runs a command in the sandbox without a model. The answer is a stream of Event; the command's standard
// streams go through the pipes of the stdio handover.
type RunRequest struct {
	Argv        []string `json:"argv"`
	Env         []string `json:"env,omitempty"`    // NAME=VALUE, added to the sandbox's own
	Folder      string   `json:"folder,omitempty"` // token of a handover
	Stdio       string   `json:"stdio"`            // token of a handover
	Apply       string   `json:"apply"`            // ask, yes or never
	TimeoutMS   int64    `json:"timeout_ms,omitempty"`
	MemoryBytes int64    `json:"memory_bytes,omitempty"` // 0: the policy's limit; more than that is denied
	Interactive bool     `json:"interactive"`
}

// EventType says which field of an Event is set.
type EventType string

// The events of a stream, in the order in which they may come. A stream ends with exactly one done or error;
// one that ends otherwise was cut off and has failed.
const (
	EventSession      EventType = "session"       // Session: which one it is; only questions about the model may come before
	EventText         EventType = "text"          // Text: a piece of the answer
	EventThinking     EventType = "thinking"      // Text: a piece of the model's reasoning
	EventToolStarted  EventType = "tool_started"  // Tool
	EventToolFinished EventType = "tool_finished" // Tool
	EventApproval     EventType = "approval"      // Approval: a question is open
	EventAnswered     EventType = "answered"      // Approval: it is closed, whoever answered
	EventExit         EventType = "exit"          // Exit: a run's command ended
	EventChanges      EventType = "changes"       // Changes: what the sandbox did to the folder
	EventApply        EventType = "apply"         // Apply: approved; fetch the files, apply them, report
	EventUsage        EventType = "usage"         // Usage
	EventNotice       EventType = "notice"        // Text: something the person should know, one sentence
	EventError        EventType = "error"         // Error: the last event
	EventDone         EventType = "done"          // Done: the last event
)

// Event is one Server-Sent Event: "data: " + JSON + "\n\n".
type Event struct {
	Type     EventType     `json:"type"`
	Text     string        `json:"text,omitempty"`
	Session  *SessionEvent `json:"session,omitempty"`
	Tool     *ToolEvent    `json:"tool,omitempty"`
	Approval *Approval     `json:"approval,omitempty"`
	Exit     *Exit         `json:"exit,omitempty"`
	Changes  *Changes      `json:"changes,omitempty"`
	Apply    *Apply        `json:"apply,omitempty"`
	Usage    *Usage        `json:"usage,omitempty"`
	Error    *Error        `json:"error,omitempty"`
	Done     *Done         `json:"done,omitempty"`
}

// SessionEvent names the session that a stream belongs to.
type SessionEvent struct {
	ID    string `json:"id"`
	Model string `json:"model,omitempty"`
	Tier  string `json:"tier,omitempty"`
}

// ToolEvent says that a tool call begins or has ended. Shown is for people and may hold anything: neutralise it.
type ToolEvent struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Shown      string `json:"shown,omitempty"`    // tool_started: the command or the path, at most 4 KiB
	Decision   string `json:"decision,omitempty"` // allow, ask or deny: what policy said
	Denied     string `json:"denied,omitempty"`   // why it did not run
	ExitCode   *int   `json:"exit_code,omitempty"`
	Output     string `json:"output,omitempty"` // tool_finished: at most 8 KiB of it
	DurationMS int64  `json:"duration_ms,omitempty"`
}

// Exit is the end of a run's command.
type Exit struct {
	Code   int    `json:"code"` // 0–255; 128 + signal where a signal ended it
	Signal int    `json:"signal,omitempty"`
	Why    string `json:"why,omitempty"` // why there was nothing to run, for people
}

// Usage counts a turn. Tokens are the model's own.
type Usage struct {
	PromptTokens int   `json:"prompt_tokens"`
	OutputTokens int   `json:"output_tokens"`
	ModelCalls   int   `json:"model_calls"`
	ToolCalls    int   `json:"tool_calls"`
	DurationMS   int64 `json:"duration_ms"`
}

// Done closes a stream that went well.
type Done struct {
	Reason  string `json:"reason"` // stop, or max_turns: the model wanted more turns than it was given
	Denied  int    `json:"denied"` // questions and calls that were denied
	Applied bool   `json:"applied"`
}
