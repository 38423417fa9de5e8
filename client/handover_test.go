package client_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/closedpaw/closedpaw/client"
	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/client/clienttest"
)

func TestHandover(t *testing.T) {
	s := clienttest.Start(t)
	c := client.New(s.Socket)
	dir := t.TempDir()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	token, err := c.HandFolder(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	got := s.Handed(token)
	if len(got) != 1 {
		t.Fatalf("%d descriptors", len(got))
	}
	var a, b unix.Stat_t
	if unix.Fstat(int(root.Fd()), &a) != nil || unix.Fstat(int(got[0].Fd()), &b) != nil || a.Ino != b.Ino || a.Dev != b.Dev {
		t.Error("another folder arrived")
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if token, err = c.HandStdio(t.Context(), r, w, w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	for i, f := range s.Handed(token) {
		if fl, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || fl&unix.O_NONBLOCK != 0 {
			t.Errorf("descriptor %d: flags %x, %v: a command would not expect O_NONBLOCK", i, fl, err)
		}
		if i > 0 {
			fmt.Fprintf(f, "%d", i)
			f.Close()
		}
	}
	if b, err := io.ReadAll(io.LimitReader(r, 2)); err != nil || string(b) != "12" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestHandoverRefused(t *testing.T) {
	s := clienttest.Start(t)
	c := client.New(s.Socket)
	s.HandleFunc("POST /v1/sessions/{id}/changes", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") == "early" {
			clienttest.Error(w, 404, api.Error{Code: api.CodeNotFound, Message: "no such session"})
			return
		}
		u, err := clienttest.Upgrade(w)
		if err != nil {
			t.Error(err)
			return
		}
		defer u.Close()
		if r.PathValue("id") == "late" {
			u.Write([]byte(`{"error":{"code":"conflict","message":"nothing waits"}}` + "\n"))
		}
	})
	var e *api.Error
	if _, err := c.ChangedFiles(t.Context(), "early"); !errors.As(err, &e) || e.Code != api.CodeNotFound {
		t.Errorf("before the upgrade: %v", err)
	}
	f, err := c.ChangedFiles(t.Context(), "late")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Next(); !errors.As(err, &e) || e.Code != api.CodeConflict {
		t.Errorf("after the upgrade: %v", err)
	}
	cut, err := c.ChangedFiles(t.Context(), "cut")
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	if _, err := cut.Next(); !errors.Is(err, client.ErrCutOff) {
		t.Errorf("cut off: %v", err)
	}
}

// TestChangedFiles sends more files at once than one read could hold, right behind the answer's head: each has to come
// with its own descriptor.
func TestChangedFiles(t *testing.T) {
	const n = 300
	s := clienttest.Start(t)
	c := client.New(s.Socket)
	dir := t.TempDir()
	s.HandleFunc("POST /v1/sessions/x/changes", func(w http.ResponseWriter, r *http.Request) {
		u, err := clienttest.Upgrade(w)
		if err != nil {
			t.Error(err)
			return
		}
		defer u.Close()
		for i := range n {
			name := filepath.Join(dir, fmt.Sprint(i))
			if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
				t.Error(err)
				return
			}
			f, err := os.Open(name)
			if err == nil {
				err = clienttest.SendFile(u, f)
				f.Close()
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
		u.Write([]byte("E"))
	})
	files, err := c.ChangedFiles(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	for i := range n {
		f, err := files.Next()
		if err != nil {
			t.Fatalf("file %d: %v", i, err)
		}
		if b, err := io.ReadAll(f); err != nil || string(b) != filepath.Join(dir, fmt.Sprint(i)) {
			t.Errorf("file %d is %q, %v", i, b, err)
		}
		f.Close()
	}
	for range 2 {
		if _, err := files.Next(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
}
