package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/closedpaw/closedpaw/client/api"
)

// outputLines is how much of a tool's output is shown while it works.
const outputLines = 8

// summary is the JSON form of an ask.
type summary struct {
	Session string         `json:"session"`
	Model   string         `json:"model"`
	Answer  string         `json:"answer"`
	Tools   []toolSummary  `json:"tools"`
	Changes askChanges     `json:"changes"`
	Usage   api.Usage      `json:"usage"`
	open    map[string]int // calls that have not ended, by an id that the model may use again
}

type toolSummary struct {
	Name       string `json:"name"`
	Decision   string `json:"decision"`  // allow, ask or deny
	ExitCode   *int   `json:"exit_code"` // null: it has none, or did not run
	DurationMS int64  `json:"duration_ms"`
}

// askChanges has no renames: one is a deleted and an added file.
type askChanges struct {
	Added    []string `json:"added"`
	Modified []string `json:"modified"`
	Deleted  []string `json:"deleted"`
	Applied  bool     `json:"applied"`
}

func (s *summary) init() {
	s.Tools, s.open = []toolSummary{}, map[string]int{}
	s.Changes = askChanges{Added: []string{}, Modified: []string{}, Deleted: []string{}}
}

func (s *summary) add(e *api.Event) {
	switch e.Type {
	case api.EventSession:
		s.Session, s.Model = e.Session.ID, e.Session.Model
	case api.EventToolStarted, api.EventToolFinished:
		i, open := s.open[e.Tool.ID]
		if !open || e.Type == api.EventToolStarted {
			i = len(s.Tools)
			s.Tools = append(s.Tools, toolSummary{Name: e.Tool.Name})
		}
		t := &s.Tools[i]
		if e.Tool.Decision != "" {
			t.Decision = e.Tool.Decision
		}
		s.open[e.Tool.ID] = i
		if e.Type == api.EventToolFinished {
			t.ExitCode, t.DurationMS = e.Tool.ExitCode, e.Tool.DurationMS
			delete(s.open, e.Tool.ID)
		}
	case api.EventChanges:
		c := e.Changes
		s.Changes.Added = paths(c.Added)
		s.Changes.Modified = paths(c.Modified)
		s.Changes.Deleted = paths(c.Deleted)
		for _, r := range c.Renamed {
			s.Changes.Deleted = append(s.Changes.Deleted, r.From)
			s.Changes.Added = append(s.Changes.Added, r.Path)
		}
	case api.EventUsage:
		s.Usage = *e.Usage
	}
}

func paths(list []api.Change) []string {
	out := make([]string, 0, len(list))
	for _, c := range list {
		out = append(out, c.Path)
	}
	return out
}

func toolLine(t *api.ToolEvent) string {
	if t.Shown == "" {
		return t.Name
	}
	return t.Name + ": " + strings.TrimSpace(t.Shown)
}

func toolEnd(t *api.ToolEvent) string {
	took := (time.Duration(t.DurationMS) * time.Millisecond).Round(time.Millisecond)
	switch {
	case t.Denied != "":
		return fmt.Sprintf("%s was denied: %s", t.Name, t.Denied)
	case t.ExitCode != nil && *t.ExitCode != 0:
		return fmt.Sprintf("%s ended with exit code %d after %s", t.Name, *t.ExitCode, took)
	}
	return fmt.Sprintf("%s took %s", t.Name, took)
}

func firstLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) <= n {
		return strings.Join(lines, "\n")
	}
	return strings.Join(lines[:n], "\n") + fmt.Sprintf("\n… %d more lines", len(lines)-n)
}
