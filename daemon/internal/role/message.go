package role

import (
	"encoding/json"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
)

// Message is one that the table knows; see messages.
type Message interface{ kind() string }

// rule says who may say a message to whom, and how many descriptors it carries.
type rule struct {
	from, to Name
	min, max int
	new      func() Message
}

func to[M any, P interface {
	*M
	Message
}](from, dest Name, files ...int) rule {
	r := rule{from: from, to: dest, new: func() Message { return P(new(M)) }}
	if len(files) > 0 {
		r.min, r.max = files[0], files[len(files)-1]
	}
	return r
}

// messages is the list of all that may be said. A name stands in it once; Failed alone goes every way.
var messages = map[string]rule{
	"failed": to[Failed]("", ""),

	// The launcher tells control once what it needs to begin: its listeners.
	"begin":        to[Begin](Launcher, Control, 1, 4),
	"died":         to[Died](Launcher, Control),
	"stop":         to[Stop](Launcher, Control),
	"ready":        to[Ready](Control, Launcher),
	"idle":         to[Idle](Control, Launcher),
	"start_agent":  to[StartAgent](Control, Launcher),
	"end_agent":    to[EndAgent](Control, Launcher),
	"start_review": to[StartReview](Control, Launcher),
	"started":      to[Started](Launcher, Control, 1),
	"create":       to[CreateSandbox](Control, Launcher, 0, 1),
	"created":      to[CreatedSandbox](Launcher, Control, 1, 8),
	"kill":         to[KillSandbox](Control, Launcher),
	"remove":       to[RemoveSandbox](Control, Launcher),
	"check":        to[CheckHost](Control, Launcher),
	"checked":      to[CheckedHost](Launcher, Control),
	"finished":     to[Finished](Launcher, Control),

	"append":   to[Append](Control, Audit),
	"appended": to[Appended](Audit, Control),
	"read":     to[ReadAudit](Control, Audit),
	"records":  to[Records](Audit, Control),
	"prove":    to[Prove](Control, Audit),
	"proof":    to[Proof](Audit, Control),

	"open_model":   to[OpenModel](Control, Gateway, 1),
	"opened_model": to[OpenedModel](Gateway, Control),
	"list_models":  to[ListModels](Control, Gateway),
	"models":       to[Models](Gateway, Control),

	"converse":    to[Converse](Control, Agent, 1),
	"turn":        to[Turn](Control, Agent),
	"go":          to[Go](Control, Agent),
	"tool_result": to[ToolResult](Control, Agent),
	"delta":       to[Delta](Agent, Control),
	"tool_call":   to[ToolCall](Agent, Control),
	"said":        to[Said](Agent, Control),
	"over":        to[Over](Agent, Control),

	"scan":      to[Scan](Control, Review),
	"change":    to[Change](Review, Control),
	"diff":      to[Diff](Review, Control),
	"scanned":   to[Scanned](Review, Control),
	"open_file": to[OpenFile](Control, Review),
	"file":      to[File](Review, Control, 1),
}

// Failed answers a request that could not be carried out.
type Failed struct {
	Code api.Code `json:"code"`
	Text string   `json:"text"`
	Hint string   `json:"hint,omitempty"`
}

func (f *Failed) Error() string { return f.Text }

// Begin gives control its listening sockets (its descriptors), and what it was started with.
type Begin struct {
	PID       int    `json:"pid"` // the launcher's
	Version   string `json:"version"`
	Dev       bool   `json:"dev"`
	Ollama    string `json:"ollama,omitempty"` // overrides the configuration
	IdleExit  int64  `json:"idle_exit_ms"`     // 0: never
	Leftovers int    `json:"leftovers"`        // what an earlier life had left behind and was removed
}

// Ready says that control serves; the launcher tells systemd.
type Ready struct{}

// Idle asks the launcher to end all, as nobody has been there for long.
type Idle struct{}

// Stop asks control to end gracefully: no new request, sessions cancelled, audit closed.
type Stop struct{}

// Died says that a role or a sandbox has ended by itself.
type Died struct {
	Role    Name   `json:"role,omitempty"`
	Sandbox string `json:"sandbox,omitempty"`
	ID      string `json:"id,omitempty"` // of the agent, or of the sandbox under review
	Why     string `json:"why"`
}

// StartAgent asks for a fresh agent; Started carries control's end of the connection.
type StartAgent struct {
	ID string `json:"id"` // its own: an agent may be started before there is a session for it
}

// EndAgent ends an agent at once.
type EndAgent struct {
	ID string `json:"id"`
}

// StartReview asks for a review of a sandbox that was killed; it runs as the sandbox's own uid, which alone can read the layers.
type StartReview struct {
	Sandbox string `json:"sandbox"`
}

// Started carries control's end of the new role's connection.
type Started struct{}

// CreateSandbox asks for a started sandbox; a descriptor is the folder that a client handed over.
type CreateSandbox struct {
	ID          string `json:"id"`        // [a-z0-9]{8,32}
	OwnerUID    uint32 `json:"owner_uid"` // of the folder
	MemoryBytes int64  `json:"memory_bytes"`
	Processes   int64  `json:"processes"`   // RLIMIT_NPROC inside
	UpperBytes  int64  `json:"upper_bytes"` // size of the copy-on-write layer
}

// CreatedSandbox carries connected control sockets of the sandbox (gVisor's URPC).
type CreatedSandbox struct{}

// KillSandbox ends all processes of a sandbox; its layers stay.
type KillSandbox struct {
	ID string `json:"id"`
}

// RemoveSandbox ends it and removes its layers, mounts, cgroup and folders.
type RemoveSandbox struct {
	ID string `json:"id"`
}

// Finished says that a request was carried out.
type Finished struct{}

// CheckHost asks for what only root can see of the host, for doctor.
type CheckHost struct{}

// CheckedHost answers CheckHost.
type CheckedHost struct {
	Checks []api.Check `json:"checks"`
}

// Append asks for one record to be made durable. Seq and Time are audit's to set.
type Append struct {
	Record api.AuditRecord `json:"record"`
}

// Appended says that the record with this number is on disk.
type Appended struct {
	Seq int64 `json:"seq"`
}

// ReadAudit asks for records; UID -1 means those of all.
type ReadAudit struct {
	After int64 `json:"after"` // -1: from the start
	Limit int   `json:"limit"`
	UID   int64 `json:"uid"`
}

// Records answers ReadAudit; there is more while Next is not -1: ask again with After = Next.
type Records struct {
	Records []api.AuditRecord `json:"records"`
	Next    int64             `json:"next"`
	Size    int64             `json:"size"` // of the log
}

// Prove asks audit to read the whole log again and prove that it extends the tree of Size records.
type Prove struct {
	Size int64 `json:"size"`
}

// Proof answers Prove.
type Proof struct {
	Proof api.Proof `json:"proof"`
}

// OpenModel gives the gateway its end of a stream on which an agent asks this model, and no other.
type OpenModel struct {
	Provider string `json:"provider"`
	URL      string `json:"url,omitempty"`
	Model    string `json:"model"`
}

// OpenedModel answers OpenModel.
type OpenedModel struct{}

// ListModels asks for the models that a provider has.
type ListModels struct {
	URL string `json:"url"` // of Ollama
}

// Models answers ListModels. Problem says why Ollama's are missing, if they are, and Hint what to do about it.
type Models struct {
	Models  []api.Model `json:"models"`
	Problem string      `json:"problem,omitempty"`
	Hint    string      `json:"hint,omitempty"`
	Version string      `json:"version,omitempty"` // of Ollama
}

// Tool is one that the agent may offer the model.
type Tool struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Schema      json.RawMessage `json:"schema"`
}

// Converse begins: its descriptor is the stream to the gateway.
type Converse struct {
	System   string `json:"system"`
	Tools    []Tool `json:"tools"`
	MaxTurns int    `json:"max_turns"`
}

// Turn gives the agent one message of the conversation so far, or a piece of one: More says that the next Turn goes on with it.
type Turn struct {
	Role   string         `json:"role"` // user, assistant or tool
	Text   string         `json:"text"`
	Tool   string         `json:"tool,omitempty"`
	CallID string         `json:"call_id,omitempty"`
	Calls  []api.ToolCall `json:"calls,omitempty"`
	More   bool           `json:"more,omitempty"`
}

// Go tells the agent to answer.
type Go struct{}

// ToolResult answers a ToolCall. Text is at most MaxToolResult.
type ToolResult struct {
	ID    string `json:"id"`
	Text  string `json:"text"`
	Error bool   `json:"error,omitempty"`
}

// MaxToolResult bounds the text of a tool's result, in bytes before encoding.
const MaxToolResult = 32 << 10

// MaxToolArgs bounds the arguments of a tool call as JSON.
const MaxToolArgs = 128 << 10

// Delta is a piece of what the model says, as it says it.
type Delta struct {
	Text     string `json:"text,omitempty"`
	Thinking string `json:"thinking,omitempty"`
}

// ToolCall is what the model wants; control decides.
type ToolCall struct {
	ID   string          `json:"id"`
	Name string          `json:"name"`
	Args json.RawMessage `json:"args"`
}

// Said ends one model call. Control has the text from the deltas, so this carries none.
type Said struct {
	PromptTokens int `json:"prompt_tokens"`
	OutputTokens int `json:"output_tokens"`
}

// Over ends the agent's work: stop, max_turns or error.
type Over struct {
	Reason string     `json:"reason"`
	Error  *api.Error `json:"error,omitempty"`
}

// Scan tells review to look, within these bounds.
type Scan struct {
	Entries   int   `json:"entries"`
	Bytes     int64 `json:"bytes"`
	DiffBytes int   `json:"diff_bytes"`
}

// Change is one path of the change set. Kind: added, modified, deleted, renamed or refused.
type Change struct {
	Kind   string     `json:"kind"`
	Change api.Change `json:"change"`
}

// Diff is a piece of the unified diff.
type Diff struct {
	Text string `json:"text"`
}

// Scanned ends a scan.
type Scanned struct {
	DiffCut bool `json:"diff_cut"`
}

// OpenFile asks for a descriptor of a file's new bytes.
type OpenFile struct {
	Path string `json:"path"`
}

// File carries it, read-only.
type File struct{}

// Timeout bounds a request between roles that should answer at once.
const Timeout = 30 * time.Second
