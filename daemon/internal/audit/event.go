package audit

// The events, as they stand in a record's Event. Each has one function of Writer, which says what the record holds.
// Intent comes before an effect, outcome after it; an intent without an outcome means that the daemon or the machine ended in
// between, and that the effect may have happened or not.
const (
	EventStarted      = "daemon.started"    // Detail: version
	EventStopped      = "daemon.stopped"    // Reason
	EventPolicy       = "policy.loaded"     // Detail: serial; Digest: of the bundle
	EventDenied       = "request.denied"    // Tool: the action; Decision deny; Reason
	EventSessionBegan = "session.began"     // Detail: kind and model; Tier
	EventSessionEnded = "session.ended"     // Reason
	EventToolIntent   = "tool.intent"       // Tool, Decision, Reason, Tier, Digest, Detail: what was decided, also if that was deny
	EventToolOutcome  = "tool.outcome"      // as the intent; Detail: exit code or error, and how long it took
	EventAsked        = "approval.asked"    // Tool, Reason, Digest; Decision ask; Detail: approval and level
	EventAnswered     = "approval.answered" // Decision: allow, deny or expired; Reason: by whom; Detail: approval
	EventChanges      = "changes.found"     // Digest: of the set; Detail: how many of each kind
	EventApplyOutcome = "apply.outcome"     // Digest: of the set; the intent is a tool.intent of "apply"; Detail: what the client reported
	EventRoleDied     = "role.died"         // Tool: the role; Reason
	EventLeftovers    = "leftovers.removed" // Detail: how many
	EventRecovered    = "audit.recovered"   // written by audit itself, see the package comment
)
