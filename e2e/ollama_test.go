package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/internal/testollama"
)

// events runs an ask with --stream-json and returns its events with when each came.
func events(t *testing.T, cmd *exec.Cmd) (list []api.Event, at []time.Duration, code int) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(out)
	s.Buffer(nil, 8<<20)
	for s.Scan() {
		var e api.Event
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			t.Fatalf("%s: %v", s.Bytes(), err)
		}
		list, at = append(list, e), append(at, time.Since(begin))
	}
	_ = cmd.Wait()
	return list, at, cmd.ProcessState.ExitCode()
}

// The main job with a real model's server: prompt → tool call → gVisor → final text, streamed.
func TestOllama(t *testing.T) {
	needRoot(t)
	long := "The folder has one file. " + strings.Repeat("It is counted among the many. ", 20)
	s := testollama.Start(t, testollama.Scripted{Name: "scripted", Dialogue: [][]string{
		{testollama.Call("shell", map[string]string{"command": "ls | wc -l; uname -v; cat /proc/version; dmesg | head -3"}), long},
		{"You are welcome."},
	}}, testollama.Scripted{Name: "toolless", NoTools: true, Dialogue: [][]string{{"hello"}}})
	d := startDaemon(t, options{ollama: s.URL})
	uid := newUID()
	folder := newFolder(t, uid, map[string]string{"a.txt": "a\n"})
	list, at, code := events(t, d.ctl(uid, "ask", "--stream-json", "-m", "scripted", "-w", folder, "how many files are there?"))
	if code != 0 || len(list) == 0 {
		t.Fatalf("exit code %d, events %+v", code, list)
	}
	answer, pieces := "", 0
	var tool *api.ToolEvent
	var first, last time.Duration
	for i, e := range list {
		switch e.Type {
		case api.EventText:
			if answer += e.Text; pieces == 0 {
				first = at[i]
			}
			pieces++
			last = at[i]
		case api.EventToolFinished:
			tool = e.Tool
		}
	}
	if strings.TrimSpace(answer) != strings.TrimSpace(long) {
		t.Errorf("the answer is %q", answer)
	}
	if pieces < 3 || last == first {
		t.Errorf("it was not streamed: %d pieces from %v to %v", pieces, first, last)
	}
	if tool == nil || tool.ExitCode == nil || !strings.HasPrefix(tool.Output, "1\n") || !strings.Contains(strings.ToLower(tool.Output), "gvisor") {
		t.Errorf("the tool was not run in gVisor: %+v", tool)
	}
	if list[0].Type != api.EventSession || list[len(list)-1].Type != api.EventDone {
		t.Errorf("the stream runs from %s to %s", list[0].Type, list[len(list)-1].Type)
	}
	if code, out, errs := exitCode(t, d.ctl(uid, "ask", "-c", "thank", "you")); code != 0 || !strings.Contains(out, "You are welcome.") {
		t.Errorf("the conversation does not go on: %d %q %s", code, out, errs)
	}

	// Which models there are, which is taken, and what is said of those that cannot be.
	if code, out, _ := exitCode(t, d.ctl(uid, "models", "--json")); code != 0 || !strings.Contains(out, `"scripted`) || !strings.Contains(out, `"demo"`) {
		t.Errorf("models: %d %s", code, out)
	}
	for model, want := range map[string]string{"absent": "ollama pull absent", "toolless": "tool"} {
		code, _, errs := exitCode(t, d.ctl(uid, "ask", "-m", model, "hello"))
		if code != 1 || !strings.Contains(errs, want) {
			t.Errorf("%s: exit code %d, want 1 and %q: %s", model, code, want, errs)
		}
	}
}

// kill -9 of Ollama in mid-stream: a clear error, a code, and nothing half-said taken for an answer.
func TestOllamaKilled(t *testing.T) {
	needRoot(t)
	s := testollama.Start(t, testollama.Scripted{Name: "scripted", Dialogue: [][]string{{strings.Repeat("This goes on and on. ", 500)}}})
	d := startDaemon(t, options{ollama: s.URL})
	cmd := d.ctl(newUID(), "ask", "-m", "scripted", "talk")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if _, err := r.ReadByte(); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	for err = nil; err == nil; _, err = r.ReadByte() {
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(errs.String(), "cut off") && !strings.Contains(errs.String(), "Ollama") {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	well(t, d)
}

// A model that calls tools at random, 500 times and more: nothing crashes, nothing outside the sandbox is touched, and
// each call is in the audit.
func TestMonkey(t *testing.T) {
	needRoot(t)
	s := testollama.Start(t, testollama.Random{Name: "random"})
	str := func(pattern string) map[string]any { return map[string]any{"type": "string", "pattern": pattern} }
	call := func(name string, props map[string]any, required ...string) map[string]any {
		return map[string]any{"type": "object", "required": []string{"name", "parameters"}, "properties": map[string]any{"name": map[string]any{"const": name},
			"parameters": map[string]any{"type": "object", "properties": props, "required": required}}}
	}
	schema, err := json.Marshal(map[string]any{"anyOf": []any{
		call("shell", map[string]any{"command": str("^(ls|rm|cat|echo|touch|ln -s|mv|chmod 777|mkdir) [a-z./*-]{1,12}$")}, "command"),
		call("read_file", map[string]any{"path": str("^[a-z/.]{0,6}$")}, "path"), // the empty path is refused
		call("write_file", map[string]any{"path": str("^[a-z/.]{1,12}$"), "content": str("^[a-z ]{1,12}$")}, "path", "content"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	url, stop, err := s.Constrain(schema)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	d := startDaemon(t, options{ollama: url})
	uid := newUID()
	folder := newFolder(t, uid, map[string]string{"a": "a\n", "b/c": "c\n"})
	before := snapshot(t, folder, "/etc", filepath.Join(d.dir, "etc"))
	const want = 500
	calls, asks := 0, 0
	for ; calls < want && asks < 60; asks++ {
		cmd := d.ctl(uid, "ask", "--stream-json", "--apply=never", "-m", "random", "--max-turns", "40", "-w", folder, "do something "+strconv.Itoa(asks))
		list, _, code := events(t, cmd)
		for _, e := range list {
			switch e.Type {
			case api.EventToolFinished:
				calls++
			case api.EventError:
				t.Errorf("ask %d: %v", asks, e.Error)
			}
		}
		if code != 0 && code != 4 {
			t.Errorf("ask %d: exit code %d", asks, code)
		}
		if t.Failed() {
			return
		}
	}
	if calls < want {
		t.Errorf("only %d calls in %d asks", calls, asks)
	}
	if after := snapshot(t, folder, "/etc", filepath.Join(d.dir, "etc")); after != before {
		t.Error("something outside the sandbox was touched")
	}
	// Every call has an intent, and every intent that was allowed an outcome.
	intents, outcomes, allowed := 0, 0, 0
	for _, r := range records(t, d, uid) {
		switch {
		case r.Tool == "model":
		case r.Event == "tool.intent":
			if intents++; r.Decision == "allow" {
				allowed++
			}
		case r.Event == "tool.outcome":
			outcomes++
		}
	}
	if intents != calls || outcomes != allowed {
		t.Errorf("%d calls: %d intents, %d allowed, %d outcomes", calls, intents, allowed, outcomes)
	}
	t.Logf("%d calls in %d asks, %d of them allowed", calls, asks, allowed)
	well(t, d)
}

// records returns uid's part of the audit.
func records(t *testing.T, d *daemon, uid int) (list []api.AuditRecord) {
	t.Helper()
	code, out, errs := exitCode(t, d.ctl(uid, "audit", "list", "--json", "--limit", "100000"))
	if code != 0 {
		t.Fatalf("audit list: %d %s", code, errs)
	}
	for line := range strings.Lines(out) {
		var r api.AuditRecord
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// snapshot is what these folders hold: names, modes, sizes, times of change.
func snapshot(t *testing.T, dirs ...string) string {
	t.Helper()
	var b strings.Builder
	for _, dir := range dirs {
		err := filepath.Walk(dir, func(p string, st os.FileInfo, err error) error {
			if err == nil {
				fmt.Fprintln(&b, p, st.Mode(), st.Size(), st.ModTime().UnixNano())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// One session's sandbox finds nothing of another's, which runs at the same time.
func TestSessionsAreApart(t *testing.T) {
	d := startDaemon(t, options{})
	uid := newUID()
	const mark = "mark-of-another-session"
	mine := newFolder(t, uid, map[string]string{mark: mark})
	other, errs := sleeping(t, d, uid, "run", "-w", mine, "--", "sh", "-c", "echo "+mark+" >/tmp/"+mark+"; sleep 1000")
	code, out, _ := exitCode(t, d.ctl(uid, "run", "--", "sh", "-c",
		`find / \( -path /usr -o -path /sys \) -prune -o -name 'mark-of-another*' -print 2>/dev/null; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\0' '\n' | grep -c 'sleep 100[0]'`))
	if out != "0\n" || code != 1 {
		t.Errorf("exit code %d, found %q", code, out)
	}
	_ = other.Process.Signal(os.Interrupt)
	ends(t, other, errs, 130)
}

// What the sandbox plants cannot make the client write elsewhere.
func TestPlantedLinks(t *testing.T) {
	d := startDaemon(t, options{})
	uid := newUID()
	outside := newFolder(t, uid, map[string]string{"target": "untouched\n"})
	folder := newFolder(t, uid, map[string]string{"sub/file": "old\n", "gone/x": "x\n"})
	script := `ln -s ` + outside + ` out; echo evil >out/target 2>/dev/null; rm -r sub; ln -s ` + outside + ` sub; ln -s sub/target chain; ln -s ../../../../../../../../..` + outside + `/target up
rm -r gone; ln -s . gone; mkdir d; ln -s ../d d/self; echo good >good; echo evil >suid; chmod 4755 suid`
	code, _, errs := exitCode(t, d.ctl(uid, "run", "-w", folder, "--apply=yes", "--", "sh", "-c", script))
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	if b, err := os.ReadFile(filepath.Join(outside, "target")); err != nil || string(b) != "untouched\n" {
		t.Errorf("outside holds %q, %v", b, err)
	}
	if es, err := os.ReadDir(outside); err != nil || len(es) != 1 {
		t.Errorf("outside has %d entries, %v", len(es), err)
	}
	err := filepath.Walk(folder, func(p string, st os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		if st.Mode()&os.ModeSymlink != 0 {
			if to, err := filepath.EvalSymlinks(p); err == nil && to != folder && !strings.HasPrefix(to, folder+"/") {
				t.Errorf("%s leads to %s", p, to)
			}
		} else if !st.IsDir() && !st.Mode().IsRegular() || st.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 {
			t.Errorf("%s is %s", p, st.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(folder, "good")); err != nil || string(b) != "good\n" {
		t.Errorf("what could be applied was not: %q, %v", b, err)
	}
	for _, what := range []string{"out", "sub", "up", "suid"} {
		if !strings.Contains(errs, what) {
			t.Errorf("the refusal of %s is not told: %s", what, errs)
		}
	}
}
