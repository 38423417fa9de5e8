package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/guard"
	"github.com/closedpaw/closedpaw/daemon/internal/route"
	"github.com/closedpaw/closedpaw/daemon/internal/session"
	"github.com/closedpaw/closedpaw/policy"
)

// owners tells the routes whose things are.
type owners struct{ d *daemon }

func (o owners) SessionOwner(id string) (uint32, error)  { return o.d.sessions.Owner(id) }
func (o owners) ApprovalOwner(id string) (uint32, error) { return o.d.broker.Owner(id) }

// table is all that a client can ask for.
func (d *daemon) table() []route.Route {
	return []route.Route{
		route.Line("GET /v1/status", policy.ActionStatus, route.Daemon, route.Get(d.status)),
		route.Line("GET /v1/checks", policy.ActionCheck, route.Daemon, route.Get(d.checks)),
		route.Line("GET /v1/models", policy.ActionModelList, route.Daemon, route.Get(d.models)),
		route.Line("POST /v1/handover", policy.ActionHandover, route.Daemon, route.Upgrade(d.handover)),
		route.Line("POST /v1/ask", policy.ActionAsk, route.Daemon, route.Stream(d.ask)),
		route.Line("POST /v1/run", policy.ActionRun, route.Daemon, route.Stream(d.run)),
		route.Line("GET /v1/sessions", policy.ActionSessionList, route.Daemon, route.Get(d.listSessions)),
		route.Line("GET /v1/sessions/{id}", policy.ActionSessionRead, route.Session, route.Get(d.showSession)),
		route.Line("DELETE /v1/sessions/{id}", policy.ActionSessionRemove, route.Session, route.Get(d.removeSession)),
		route.Line("POST /v1/sessions/{id}/changes", policy.ActionChangesFetch, route.Session, route.Upgrade(d.changes)),
		route.Line("POST /v1/sessions/{id}/applied", policy.ActionChangesReport, route.Session, route.Post(d.applied)),
		route.Line("GET /v1/approvals", policy.ActionApprovalList, route.Daemon, route.Get(d.listApprovals)),
		route.Line("GET /v1/approvals/{id}", policy.ActionApprovalRead, route.Approval, route.Get(d.showApproval)),
		route.Line("POST /v1/approvals/{id}", policy.ActionApprovalAnswer, route.Approval, route.Post(d.answer)),
		route.Line("GET /v1/audit", policy.ActionAuditRead, route.Daemon, route.Get(d.readAudit)),
		route.Line("POST /v1/audit/proof", policy.ActionAuditProve, route.Daemon, route.Post(d.proof)),
	}
}

func (d *daemon) status(r *http.Request, c guard.Caller) (api.Status, error) {
	page, err := d.audit.Read(r.Context(), -1, 1, -1)
	if err != nil {
		return api.Status{}, err
	}
	mine := func(owner uint32) bool { return owner == c.UID() }
	return api.Status{Version: d.begin.Version, PID: d.begin.PID, Since: d.since, Tier: d.runtime.Tier(), Dev: d.begin.Dev,
		PolicySerial: d.bundle.Serial(), Sessions: d.sessions.Running(mine), Pending: len(d.broker.Open(mine)),
		AuditSize: page.Size, Ollama: d.config.Ollama}, nil
}

func (d *daemon) models(r *http.Request, _ guard.Caller) ([]api.Model, error) {
	a, err := d.sessions.Models(r.Context())
	if err != nil {
		return nil, err
	}
	return a.Models, nil
}

func (d *daemon) ask(r *http.Request, c guard.Caller, in api.AskRequest, out session.Sink) error {
	return d.sessions.Ask(r.Context(), c, in, out)
}

func (d *daemon) run(r *http.Request, c guard.Caller, in api.RunRequest, out session.Sink) error {
	return d.sessions.Run(r.Context(), c, in, out)
}

func (d *daemon) listSessions(_ *http.Request, c guard.Caller) ([]api.Session, error) {
	return d.sessions.List(c.Sees), nil
}

func (d *daemon) showSession(r *http.Request, _ guard.Caller) (api.SessionDetail, error) {
	return d.sessions.Show(r.PathValue("id"))
}

func (d *daemon) removeSession(r *http.Request, _ guard.Caller) (api.Empty, error) {
	return api.Empty{}, d.sessions.Remove(r.PathValue("id"))
}

func (d *daemon) applied(r *http.Request, _ guard.Caller, in api.ApplyReport) (api.Empty, error) {
	return api.Empty{}, d.sessions.Applied(r.PathValue("id"), in)
}

func (d *daemon) listApprovals(_ *http.Request, c guard.Caller) ([]api.Approval, error) {
	return d.broker.Open(c.Sees), nil
}

func (d *daemon) showApproval(r *http.Request, c guard.Caller) (api.Approval, error) {
	return d.broker.Get(r.PathValue("id"), c.Sees)
}

func (d *daemon) answer(r *http.Request, c guard.Caller, in api.Answer) (api.Approval, error) {
	return d.guard.Answer(c, r.PathValue("id"), in)
}

// maxPage bounds the records of one answer.
const maxPage = 1000

func (d *daemon) readAudit(r *http.Request, c guard.Caller) ([]api.AuditRecord, error) {
	after, limit, uid := int64(-1), int64(maxPage), int64(c.UID())
	for name, v := range map[string]*int64{"after": &after, "limit": &limit} {
		if s := r.URL.Query().Get(name); s != "" {
			n, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				return nil, &api.Error{Code: api.CodeBadRequest, Message: fmt.Sprintf("bad request: %s is %q, not a number", name, s)}
			}
			*v = n
		}
	}
	if d.guard.May(c, policy.ActionAuditReadAll, policy.Daemon{}) {
		uid = -1
	}
	limit = min(max(limit, 1), maxPage)
	out := []api.AuditRecord{}
	for int64(len(out)) < limit && after >= -1 {
		page, err := d.audit.Read(r.Context(), after, int(limit)-len(out), uid)
		if err != nil {
			return nil, err
		}
		out = append(out, page.Records...)
		if page.Next < 0 {
			break
		}
		after = page.Next
	}
	return out, nil
}

func (d *daemon) proof(r *http.Request, _ guard.Caller, in api.ProofRequest) (*api.Proof, error) {
	if in.Size < 0 {
		return nil, &api.Error{Code: api.CodeBadRequest, Message: "bad request: size is negative"}
	}
	return d.audit.Prove(r.Context(), in.Size)
}

// handover takes descriptors from a client.
func (d *daemon) handover(r *http.Request, c guard.Caller, u *net.UnixConn) error {
	kind := r.URL.Query().Get("kind")
	if session.Files(kind) == 0 {
		return &api.Error{Code: api.CodeBadRequest, Message: fmt.Sprintf("bad request: there is no handover of kind %q", kind)}
	}
	files, err := receive(u)
	if err != nil {
		return &api.Error{Code: api.CodeBadRequest, Message: "cannot take what was handed over: " + err.Error()}
	}
	token, err := d.sessions.Accept(c.UID(), kind, files)
	if err != nil {
		return err
	}
	b, err := json.Marshal(api.Handover{Token: token})
	if err != nil {
		return err
	}
	_, err = u.Write(append(b, '\n'))
	return err
}

// maxHanded bounds the descriptors that a client may send at once; more than fit are closed by the kernel.
const maxHanded = 3

// receive reads the one message of a handover.
func receive(u *net.UnixConn) (files []*os.File, err error) {
	buf, oob := make([]byte, 2), make([]byte, unix.CmsgSpace(maxHanded*4))
	n, on, flags, _, err := u.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	scms, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil {
		return nil, err
	}
	strange := false
	for i := range scms {
		fds, err := unix.ParseUnixRights(&scms[i])
		if err != nil {
			continue // not descriptors: nothing of ours to close
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			if !harmless(fd) {
				unix.Close(fd)
				strange = true
				continue
			}
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	if n != 1 || strange || buf[0] != 'D' || flags&(unix.MSG_CTRUNC|unix.MSG_TRUNC) != 0 {
		for _, f := range files {
			f.Close()
		}
		return nil, errors.New("not one message with the descriptors of the kind")
	}
	return files, nil
}

// harmless says that a descriptor is a folder or a pipe. os.NewFile gives any other that does not block to the poller of
// the whole process, and a file of a user's FUSE server never answers that. The type of a file never changes; asked for
// like this, no server is asked for it.
func harmless(fd int) bool {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	kind := st.Mode & unix.S_IFMT
	return err == nil && (kind == unix.S_IFDIR || kind == unix.S_IFIFO)
}

// changes hands the approved files to the client.
func (d *daemon) changes(r *http.Request, _ guard.Caller, u *net.UnixConn) error {
	err := d.sessions.Approved(r.Context(), r.PathValue("id"), func(f *os.File) error { return sendFile(u, f) })
	if err == nil {
		_, err = u.Write([]byte("E"))
	}
	for !taken(u, 0) { // the connection counts as the user's until nothing of ours is in it
		time.Sleep(time.Second)
	}
	return err
}

const (
	maxUntaken = 16 << 10 // what may lie unread in a connection, as the kernel counts it: about 16 descriptors
	takeTime   = time.Minute
)

// sendFile passes a descriptor on once the client has taken those before it. The kernel bounds the descriptors of
// control that lie in all sockets together, so clients that leave them there would stop it for everybody.
func sendFile(u *net.UnixConn, f *os.File) error {
	end := time.Now().Add(takeTime) // for each file: writing it to disk takes the client its time
	for pause := 100 * time.Microsecond; !taken(u, maxUntaken); pause = min(2*pause, 50*time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("the client does not take the files")
		}
		time.Sleep(pause)
	}
	if err := u.SetDeadline(end); err != nil {
		return err
	}
	_, _, err := u.WriteMsgUnix([]byte("F"), unix.UnixRights(int(f.Fd())), nil)
	return err
}

// taken says that at most most bytes, as the kernel counts them, wait to be read at the other end.
func taken(u *net.UnixConn, most int) bool {
	n := 0
	raw, err := u.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	}
	return err != nil || n <= most
}
