package session

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client/api"
)

// Kinds of a handover, and how many descriptors each has.
const (
	Folder = "folder"
	Stdio  = "stdio"
)

const (
	tokenLife    = time.Minute
	maxHandovers = 16 // that wait to be used, of one user
)

// handovers keeps descriptors that clients handed over until the request that uses them comes.
type handovers struct {
	mu  sync.Mutex
	all map[string]*handover
}

type handover struct {
	uid   uint32
	kind  string
	files []*os.File
	timer *time.Timer
}

func newHandovers() *handovers { return &handovers{all: map[string]*handover{}} }

// Files says how many descriptors a kind of handover has; 0 is no kind.
func Files(kind string) int {
	return map[string]int{Folder: 1, Stdio: 3}[kind]
}

// Accept checks descriptors of uid and keeps them for a minute under a token, which only uid can use, once.
// It takes the files over, also when it fails.
func (m *Manager) Accept(uid uint32, kind string, files []*os.File) (token string, err error) {
	defer func() {
		if err != nil {
			closeAll(files)
		}
	}()
	if err := check(uid, kind, files); errors.Is(err, errOwner) {
		return "", &api.Error{Code: api.CodeDenied, Message: "cannot take what was handed over: " + err.Error(), Hint: "hand over a folder of your own"}
	} else if err != nil {
		return "", &api.Error{Code: api.CodeBadRequest, Message: "cannot take what was handed over: " + err.Error(),
			Hint: "hand over a folder of your own, opened for reading"}
	}
	h := m.handovers
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, e := range h.all {
		if e.uid == uid {
			n++
		}
	}
	if n >= maxHandovers {
		return "", fmt.Errorf("%w: %d handovers wait to be used", ErrTooMany, n)
	}
	token = rand.Text()
	h.all[token] = &handover{uid: uid, kind: kind, files: files, timer: time.AfterFunc(tokenLife, func() {
		if files, err := h.take(uid, kind, token); err == nil {
			closeAll(files)
		}
	})}
	return token, nil
}

var errOwner = errors.New("the folder is another user's")

func check(uid uint32, kind string, files []*os.File) error {
	if len(files) != Files(kind) || len(files) == 0 {
		return fmt.Errorf("%d descriptors are not a %q", len(files), kind)
	}
	for i, f := range files {
		fl, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		var st unix.Statx_t // not Fstat: a user's FUSE server could keep it waiting
		if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE|unix.STATX_UID, &st); err != nil {
			return err
		}
		mode, want := fl&unix.O_ACCMODE, unix.O_WRONLY
		if kind == Folder || i == 0 {
			want = unix.O_RDONLY
		}
		switch {
		case fl&unix.O_PATH != 0 || mode != want:
			return errors.New("a descriptor is not opened as it must be")
		case kind == Stdio && st.Mode&unix.S_IFMT != unix.S_IFIFO:
			return errors.New("a standard stream is not a pipe")
		case kind == Folder && st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return errors.New("it is not a folder")
		case kind == Folder && st.Uid != uid:
			return fmt.Errorf("%w: it is uid %d's, not uid %d's", errOwner, st.Uid, uid)
		}
	}
	return nil
}

// take returns what was handed over under token.
func (h *handovers) take(uid uint32, kind, token string) ([]*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e, ok := h.all[token]
	if !ok || e.uid != uid || e.kind != kind {
		return nil, &api.Error{Code: api.CodeBadRequest, Message: fmt.Sprintf("no %s was handed over under this token", kind),
			Hint: "a token is good once, for a minute"}
	}
	delete(h.all, token)
	e.timer.Stop()
	return e.files, nil
}

func (h *handovers) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.all {
		e.timer.Stop()
		closeAll(e.files)
	}
	clear(h.all)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
