package policy

import (
	"strconv"

	"github.com/cedar-policy/cedar-go"
)

// Request is one question to a bundle: may User do Action to Resource in this Context?
type Request struct {
	User     User
	Action   Action
	Resource Resource
	Context  Context
}

// User is who asks, as the kernel says. Root is uid 0 and nothing else makes it so.
type User struct {
	UID    uint32
	Person bool // somebody who logs in, see uid_min and uid_max of config.json
}

// Context is what is known when the decision is taken. World and Private are the session's Label; a caller that leaves
// them false says that the session has seen neither.
type Context struct {
	Tier        string // of the sandbox that would be used
	Interactive bool   // a person can be asked where the request came from
	World       bool   // the session has seen text that anybody may have written
	Private     bool   // the session has seen the person's own files
	Requested   bool   // the person ordered exactly this; never set it because of what a model said
	MemoryBytes int64  // wanted for the sandbox; 0: the profile's
}

// Resource is what is acted upon: Daemon, Session, Approval, Model or Tool.
type Resource interface {
	entity(Profile) cedar.Entity
}

// Daemon is the daemon as a whole.
type Daemon struct{}

// Session is a conversation or a run.
type Session struct {
	ID    string
	Owner uint32 // uid of who began it
}

// Approval is a question to a person.
type Approval struct {
	ID    string
	Owner uint32 // uid of the session's owner
}

// Model is a language model.
type Model struct {
	Name     string
	Provider string // ollama or demo
	Local    bool   // what it is told stays on this machine
}

func (Daemon) entity(p Profile) cedar.Entity {
	return entity("Daemon", "closedpaw", cedar.RecordMap{
		"tier":         cedar.String(p.Tier),
		"memory_bytes": cedar.Long(p.MemoryBytes),
	})
}

func (s Session) entity(Profile) cedar.Entity {
	return entity("Session", s.ID, cedar.RecordMap{"owner": cedar.Long(s.Owner)})
}

func (a Approval) entity(Profile) cedar.Entity {
	return entity("Approval", a.ID, cedar.RecordMap{"owner": cedar.Long(a.Owner)})
}

func (m Model) entity(Profile) cedar.Entity {
	return entity("Model", m.Name, cedar.RecordMap{
		"provider": cedar.String(m.Provider),
		"local":    cedar.Boolean(m.Local),
	})
}

func (t Tool) entity(Profile) cedar.Entity {
	return entity("Tool", t.Name, cedar.RecordMap{"effect": cedar.String(t.Effect)})
}

func (u User) entity() cedar.Entity {
	return entity("User", strconv.FormatUint(uint64(u.UID), 10), cedar.RecordMap{
		"uid":    cedar.Long(u.UID),
		"root":   cedar.Boolean(u.UID == 0),
		"person": cedar.Boolean(u.Person),
	})
}

func (c Context) record() cedar.Record {
	return cedar.NewRecord(cedar.RecordMap{
		"tier":         cedar.String(c.Tier),
		"interactive":  cedar.Boolean(c.Interactive),
		"world":        cedar.Boolean(c.World),
		"private":      cedar.Boolean(c.Private),
		"requested":    cedar.Boolean(c.Requested),
		"memory_bytes": cedar.Long(c.MemoryBytes),
	})
}

func entity(kind cedar.EntityType, id string, attributes cedar.RecordMap) cedar.Entity {
	return cedar.Entity{
		UID:        cedar.NewEntityUID(kind, cedar.String(id)),
		Attributes: cedar.NewRecord(attributes),
	}
}

// cedar translates r; its Resource must not be nil.
func (r Request) cedar(p Profile) (cedar.Request, cedar.EntityMap) {
	user, resource := r.User.entity(), r.Resource.entity(p)
	return cedar.Request{
		Principal: user.UID,
		Action:    cedar.NewEntityUID("Action", cedar.String(r.Action)),
		Resource:  resource.UID,
		Context:   r.Context.record(),
	}, cedar.EntityMap{user.UID: user, resource.UID: resource}
}
