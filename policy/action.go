package policy

import "slices"

// Action is what somebody wants to do, as the schema names it.
type Action string

// Requests to the daemon: one for each route of client/api.
const (
	ActionStatus         Action = "status"
	ActionCheck          Action = "check"
	ActionModelList      Action = "model_list"
	ActionHandover       Action = "handover"
	ActionAsk            Action = "ask" // on Daemon: a new conversation; on Session: one more turn
	ActionRun            Action = "run"
	ActionSessionList    Action = "session_list"
	ActionSessionRead    Action = "session_read"
	ActionSessionRemove  Action = "session_remove" // also: to cancel it
	ActionApprovalList   Action = "approval_list"
	ActionApprovalRead   Action = "approval_read"
	ActionApprovalAnswer Action = "approval_answer"
	ActionChangesFetch   Action = "changes_fetch"
	ActionChangesReport  Action = "changes_report"
	ActionAuditRead      Action = "audit_read" // one's own records
	ActionAuditReadAll   Action = "audit_read_all"
	ActionAuditProve     Action = "audit_prove"
)

// Effects: what a request or a model makes the daemon do.
const (
	ActionSandboxUse   Action = "sandbox_use"   // on Daemon
	ActionModelUse     Action = "model_use"     // on Model
	ActionToolCall     Action = "tool_call"     // on Tool
	ActionChangesApply Action = "changes_apply" // on Session
)

var actions = []Action{
	ActionStatus, ActionCheck, ActionModelList, ActionHandover, ActionAsk, ActionRun,
	ActionSessionList, ActionSessionRead, ActionSessionRemove,
	ActionApprovalList, ActionApprovalRead, ActionApprovalAnswer,
	ActionChangesFetch, ActionChangesReport,
	ActionAuditRead, ActionAuditReadAll, ActionAuditProve,
	ActionSandboxUse, ActionModelUse, ActionToolCall, ActionChangesApply,
}

// Actions lists all that the schema knows.
func Actions() []Action { return slices.Clone(actions) }
