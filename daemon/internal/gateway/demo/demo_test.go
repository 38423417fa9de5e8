package demo_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/closedpaw/closedpaw/client/api"
	"github.com/closedpaw/closedpaw/daemon/internal/gateway/demo"
	"github.com/closedpaw/closedpaw/daemon/internal/model"
)

var tools = []model.Tool{{Name: "shell"}, {Name: "read_file"}, {Name: "write_file"}}

// ask returns the call, as control sees it, or else the text.
func ask(t *testing.T, offered []model.Tool, messages ...model.Message) (tool string, args map[string]string, text string) {
	t.Helper()
	pieces := 0
	done, err := demo.Model{}.Chat(context.Background(), "demo", model.Request{Messages: messages, Tools: offered}, func(c model.Chunk) error {
		if c.Call != nil {
			tool = c.Call.Name
			if err := json.Unmarshal(c.Call.Args, &args); err != nil {
				t.Error(err)
			}
			for k, v := range args {
				args[k] = model.Unescape(v)
			}
		}
		text += c.Text
		pieces++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if done.OutputTokens != pieces || text != "" && pieces < strings.Count(text, " ") {
		t.Errorf("%q came in %d pieces, counted %d", text, pieces, done.OutputTokens)
	}
	return tool, args, text
}

func user(text string) model.Message { return model.Message{Role: "user", Text: model.Escape(text)} }
func result(text string) model.Message {
	return model.Message{Role: "tool", Text: model.Escape(text)}
}
func failure(text string) model.Message { return model.Message{Role: "tool", Text: text, Error: true} }

func TestDemo(t *testing.T) {
	type args = map[string]string
	for _, tt := range []struct {
		name     string
		messages []model.Message
		tool     string
		args     args
		text     []string // parts of the answer
	}{
		{"run", []model.Message{user("run the command: echo hi | wc -c")}, "shell", args{"command": "echo hi | wc -c"}, nil},
		{"run, any case", []model.Message{user("Run The Command:  id")}, "shell", args{"command": "id"}, nil},
		{"attached data is no request", []model.Message{user("run the command: id\n\nrun the command: rm -rf .")}, "shell", args{"command": "id"}, nil},
		{"request in attached data", []model.Message{user("hello\nrun the command: rm -rf .")}, "", nil, []string{"not a language model"}},
		{"output", []model.Message{user("run the command: id"), result("uid=0\nx\n")}, "", nil, []string{"`id` printed:\n\n```\nuid=0\nx\n```\n", "ended well"}},
		{"exit code", []model.Message{user("run the command: id"), result("oops\n[exit code 3]")}, "", nil, []string{"```\noops\n```", "exit code 3"}},
		{"only exit code", []model.Message{user("run the command: false"), result("[exit code 1]")}, "", nil, []string{"printed nothing", "exit code 1"}},
		{"denied", []model.Message{user("run the command: id"), failure("policy denies it")}, "", nil, []string{"did not run: policy denies it"}},
		{"second question", []model.Message{user("run the command: id"), result("x"), user("run the command: ls")}, "shell", args{"command": "ls"}, nil},

		{"edit", []model.Message{user("edit the file a b.txt: replace x y by z")}, "read_file", args{"path": "a b.txt"}, nil},
		{"edit, write", []model.Message{user("edit the file a: replace x by yy"), result("x1\nx2\n")}, "write_file", args{"path": "a", "content": "yy1\nyy2\n"}, nil},
		{"edit, done", []model.Message{user("edit the file a: replace x by y"), result("x1\nx2\n"), result("ok")}, "", nil, []string{"2 places"}},
		{"edit, once", []model.Message{user("edit the file a: replace x by y"), result("x"), result("ok")}, "", nil, []string{"1 place "}},
		{"edit, absent", []model.Message{user("edit the file a: replace x by y"), result("abc")}, "", nil, []string{"does not occur"}},
		{"edit, no file", []model.Message{user("edit the file a: replace x by y"), failure("no such file")}, "", nil, []string{"could not read `a`: no such file"}},
		{"edit, refused", []model.Message{user("edit the file a: replace x by y"), result("x"), failure("denied")}, "", nil, []string{"could not write"}},
		{"edit, cut off", []model.Message{user("edit the file a: replace x by y"), result("x\n[truncated]")}, "", nil, []string{"too large"}},
		{"edit, quoted", []model.Message{user(`edit the file a: replace "step by step" by ""`), result("go step by step.")}, "write_file", args{"path": "a", "content": "go ."}, nil},
		{"edit, tokens stay", []model.Message{user("edit the file a: replace </s> by [INST]"), result("<¦x> </s> <|im_end|>")}, "write_file", args{"path": "a", "content": "<¦x> [INST] <|im_end|>"}, nil},

		{"create", []model.Message{user("create the file n.txt: some text: here")}, "write_file", args{"path": "n.txt", "content": "some text: here\n"}, nil},
		{"created", []model.Message{user("create the file n.txt: some"), result("ok")}, "", nil, []string{"created", "5 bytes"}},
		{"create, refused", []model.Message{user("create the file n.txt: some"), failure("denied")}, "", nil, []string{"could not create"}},

		{"summary", []model.Message{user("summarise this folder"), result("        4 bytes      2 lines  x y.txt\nlargest: x y.txt\ntotal: 1 files, 4 bytes, 2 lines\n")}, "", nil, []string{"4 bytes and 2 lines", "largest is `x y.txt`", "```\n        4 bytes      2 lines  x y.txt\n```"}},
		{"summary, empty", []model.Message{user("Summarize this folder."), result("total: 0 files, 0 bytes, 0 lines\n")}, "", nil, []string{"no files"}},
		{"summary, odd", []model.Message{user("summarise this folder"), result("sh: not found")}, "", nil, []string{"could not count", "sh: not found"}},

		{"other", []model.Message{user("what is the meaning of life?")}, "", nil, []string{"not a language model", "run the command: CMD", "edit the file F: replace A by B", "summarise this folder", "create the file F: TEXT"}},
		{"nothing", nil, "", nil, []string{"not a language model"}},
		{"no command", []model.Message{user("run the command:  ")}, "", nil, []string{"not a language model"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tool, got, text := ask(t, tools, tt.messages...)
			if tool != tt.tool {
				t.Errorf("calls %q, want %q", tool, tt.tool)
			}
			if d := cmp.Diff(tt.args, got); d != "" {
				t.Error(d)
			}
			for _, part := range tt.text {
				if !strings.Contains(text, part) {
					t.Errorf("%q is not in: %s", part, text)
				}
			}
		})
	}
	if _, _, text := ask(t, nil, user("run the command: id")); !strings.Contains(text, "tool shell") {
		t.Errorf("without tools: %s", text)
	}
	var e *api.Error
	if _, err := (demo.Model{}).Chat(context.Background(), "gpt", model.Request{}, nil); !errors.As(err, &e) || e.Code != api.CodeNotFound {
		t.Errorf("another name: %v", err)
	}
}

// TestListing runs the command that the model asks for, by the shell of this machine.
func TestListing(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a.txt": "one\ntwo\n", "sub/deep er/b": "x", ".hidden": "yy\n", ".git/config": "no\n", "-n": "z\n"} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	_, args, _ := ask(t, tools, user("summarise this folder"))
	cmd := exec.Command("sh", "-c", args["command"])
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	_, _, text := ask(t, tools, user("summarise this folder"), result(string(out)))
	for _, want := range []string{"4 files with 14 bytes and 4 lines", "largest is `a.txt`", "  sub/deep er/b", "  .hidden", "  -n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in: %s", want, text)
		}
	}
	if strings.Contains(text, "config") || strings.Contains(text, "passwd") {
		t.Errorf("looks where it should not: %s", text)
	}
}

func FuzzDemo(f *testing.F) {
	f.Add("edit the file a: replace \"x\" by \"y\"", "x", "[exit code 1]")
	f.Add("edit the file a: replace \" by \"", "", "")
	f.Fuzz(func(t *testing.T, line, first, second string) {
		msgs := []model.Message{user(line), result(first), result(second)}
		for n := range msgs {
			_, err := demo.Model{}.Chat(context.Background(), "demo", model.Request{Messages: msgs[:n+1], Tools: tools}, func(model.Chunk) error { return nil })
			if err != nil {
				t.Error(err)
			}
		}
	})
}
