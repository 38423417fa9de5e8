package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/clienttest"
)

// fake plays the files of a folder:
//
//	x.json         answers GET /v1/x (the slashes of a longer path are _)
//	x.error        answers any request for /v1/x: a line with the status, then the body
//	ask.stream     answers POST /v1/ask, run.stream /v1/run: a line is an event, or one of the orders of play
//	approved/      has the approved files, by path
//
// What the client sends is written to x.request.
type fake struct {
	*clienttest.Server
	t   testing.TB
	dir string

	mu       sync.Mutex
	answered map[string]chan struct{}
	changes  *api.Changes
	stdio    []*os.File
}

func startFake(t testing.TB, dir string) *fake {
	f := &fake{Server: clienttest.Start(t), t: t, dir: dir, answered: map[string]chan struct{}{}}
	f.HandleFunc("POST /v1/ask", f.stream)
	f.HandleFunc("POST /v1/run", f.stream)
	f.HandleFunc("POST /v1/sessions/{id}/changes", f.sendFiles)
	f.HandleFunc("/v1/", f.file)
	return f
}

func (f *fake) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fake) file(w http.ResponseWriter, r *http.Request) {
	name := strings.ReplaceAll(strings.TrimPrefix(r.URL.Path, "/v1/"), "/", "_")
	if r.Method != http.MethodGet {
		f.save(name, r)
	}
	if f.refused(w, name) {
		return
	}
	if id, ok := strings.CutPrefix(name, "approvals_"); ok && r.Method == http.MethodPost {
		f.answer(id) <- struct{}{}
	}
	b, err := os.ReadFile(f.path(name + ".json"))
	switch {
	case r.URL.Query().Get("after") != "" && r.URL.Query().Get("after") != "-1":
		b = []byte("[]")
	case err != nil && r.Method == http.MethodGet:
		clienttest.Error(w, 404, api.Error{Code: api.CodeNotFound, Message: "no " + name})
		return
	case err != nil:
		b = []byte("{}")
	}
	w.Write(b)
}

func (f *fake) save(name string, r *http.Request) []byte {
	b, err := io.ReadAll(r.Body)
	if err == nil {
		err = os.WriteFile(f.path(name+".request"), append(b, '\n'), 0o644)
	}
	if err != nil {
		f.t.Error(err)
	}
	return b
}

func (f *fake) refused(w http.ResponseWriter, name string) bool {
	b, err := os.ReadFile(f.path(name + ".error"))
	if err != nil {
		return false
	}
	var status int
	first, body, _ := strings.Cut(string(b), "\n")
	fmt.Sscan(first, &status)
	w.WriteHeader(status)
	io.WriteString(w, body)
	return true
}

func (f *fake) answer(id string) chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.answered[id] == nil {
		f.answered[id] = make(chan struct{}, 8)
	}
	return f.answered[id]
}

func (f *fake) stream(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/v1/")
	body := f.save(name, r)
	if f.refused(w, name) {
		return
	}
	var req struct{ Stdio string }
	json.Unmarshal(body, &req)
	f.stdio = f.Handed(req.Stdio)
	script, err := os.Open(f.path(name + ".stream"))
	if err != nil {
		f.t.Error(err)
		return
	}
	defer script.Close()
	lines := bufio.NewScanner(script)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		if line := lines.Text(); strings.HasPrefix(line, "{") {
			f.send(w, line)
		} else if !f.play(r, strings.Fields(line)) {
			return
		}
	}
}

func (f *fake) send(w http.ResponseWriter, line string) {
	var e api.Event
	if err := json.Unmarshal([]byte(line), &e); err != nil {
		f.t.Errorf("%s: %v", line, err)
	}
	if e.Changes != nil {
		f.changes = e.Changes
		if e.Changes.Digest == "" {
			e.Changes.Digest = api.Digest(e.Changes)
		}
	}
	if e.Apply != nil && e.Apply.Digest == "" {
		e.Apply.Digest = f.changes.Digest
	}
	clienttest.Send(w, e)
}

// play carries out an order of a script; false ends it.
func (f *fake) play(r *http.Request, order []string) bool {
	if len(order) == 0 {
		return true
	}
	arg := strings.Join(order[1:], " ")
	switch order[0] {
	case "cut": // the stream ends without a last event
		panic(http.ErrAbortHandler)
	case "answer": // wait for the answer to a question
		select {
		case <-f.answer(arg):
		case <-r.Context().Done():
			return false
		}
	case "hang": // wait for the client's end
		os.WriteFile(f.path("hanging"), nil, 0o644)
		<-r.Context().Done()
		os.WriteFile(f.path("cancelled"), nil, 0o644)
		return false
	case "sleep":
		d, err := time.ParseDuration(arg)
		if err != nil {
			f.t.Error(err)
		}
		time.Sleep(d)
	case "flag": // wait until the test has made a file
		for {
			if _, err := os.Stat(f.path(arg)); err == nil || r.Context().Err() != nil {
				return r.Context().Err() == nil
			}
			time.Sleep(5 * time.Millisecond)
		}
	case "stdin": // copy the command's stdin to a file
		var b bytes.Buffer
		io.Copy(&b, f.stdio[0])
		os.WriteFile(f.path(arg), b.Bytes(), 0o644)
	case "line": // read a line of the command's stdin
		b := make([]byte, 1)
		line := ""
		for !strings.HasSuffix(line, "\n") {
			if n, err := f.stdio[0].Read(b); n == 0 || err != nil {
				break
			}
			line += string(b)
		}
		fmt.Fprintf(f.stdio[1], "got %q\n", line)
	case "stdout", "stderr":
		i := map[string]int{"stdout": 1, "stderr": 2}[order[0]]
		var s string
		if err := json.Unmarshal([]byte(arg), &s); err != nil {
			f.t.Errorf("%s: %v", arg, err)
		}
		io.WriteString(f.stdio[i], s)
	case "flood": // that many bytes to stdout
		var n int
		fmt.Sscan(arg, &n)
		f.stdio[1].Write(bytes.Repeat([]byte("x"), n))
	case "end": // the command's ends of its pipes are closed
		for _, s := range f.stdio {
			s.Close()
		}
	default:
		f.t.Errorf("no order %q", order)
	}
	return true
}

func (f *fake) sendFiles(w http.ResponseWriter, r *http.Request) {
	u, err := clienttest.Upgrade(w)
	if err != nil {
		f.t.Error(err)
		return
	}
	defer u.Close()
	for _, list := range [][]api.Change{f.changes.Added, f.changes.Modified, f.changes.Renamed} {
		for _, c := range list {
			if c.Type != api.TypeFile {
				continue
			}
			file, err := os.Open(filepath.Join(f.dir, "approved", c.Path))
			if err == nil {
				err = clienttest.SendFile(u, file)
				file.Close()
			}
			if err != nil {
				f.t.Error(err)
				return
			}
		}
	}
	u.Write([]byte("E"))
}

// eventually waits for what another process does.
func eventually(f func() bool) bool {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if f() {
			return true
		}
	}
	return false
}
