package demo

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/closedpaw/closedpaw/daemon/internal/model"
)

// requests is all that the model understands.
var requests = []request{
	{"run the command: CMD", []string{"shell"}, parseRun},
	{"edit the file F: replace A by B", []string{"read_file", "write_file"}, parseEdit},
	{"create the file F: TEXT", []string{"write_file"}, parseCreate},
	{"summarise this folder", []string{"shell"}, parseSummarise},
}

// exitLine is the end of a command's result when it failed.
var exitLine = regexp.MustCompile(`(?:^|\n)\[exit code (\d+)\]\s*$`)

// truncated is the end of a result that was cut off.
const truncated = "[truncated]"

func parseRun(line string) (task, bool) {
	cmd, ok := after(line, "run the command:")
	cmd = strings.TrimSpace(cmd)
	if !ok || cmd == "" {
		return nil, false
	}
	return func(results []model.Message) reply {
		if len(results) == 0 {
			return reply{tool: "shell", args: map[string]string{"command": cmd}}
		}
		r := results[0]
		out, ended := r.Text, "It ended well.\n"
		m := exitLine.FindStringSubmatchIndex(out)
		switch {
		case r.Error && m == nil:
			return say("The command %s did not run: %s", code(cmd), r.Text)
		case m != nil:
			ended = fmt.Sprintf("It ended with exit code %s.\n", out[m[2]:m[3]])
			out = out[:m[0]]
		}
		if strings.TrimSpace(out) == "" {
			return say("The command %s printed nothing. %s", code(cmd), ended)
		}
		return say("The command %s printed:\n\n%s\n%s", code(cmd), block(out), ended)
	}, true
}

func parseEdit(line string) (task, bool) {
	rest, ok := after(line, "edit the file ")
	if !ok {
		return nil, false
	}
	file, rest, ok := cut(rest, ": replace ")
	if !ok {
		return nil, false
	}
	sep := " by "
	quoted := strings.HasPrefix(rest, `"`) && strings.HasSuffix(rest, `"`)
	if quoted {
		rest, sep = rest[1:max(1, len(rest)-1)], `" by "`
	}
	old, repl, ok := cut(rest, sep)
	file = strings.TrimSpace(file)
	if !ok || old == "" || file == "" {
		return nil, false
	}
	return func(results []model.Message) reply {
		if len(results) == 0 {
			return reply{tool: "read_file", args: map[string]string{"path": file}}
		}
		content := results[0].Text
		n := strings.Count(content, old)
		switch {
		case results[0].Error:
			return say("I could not read %s: %s", code(file), content)
		case strings.HasSuffix(strings.TrimRight(content, "\n"), truncated):
			return say("The file %s is too large for me to edit. Nothing was changed.", code(file))
		case n == 0:
			return say("%s does not occur in %s. Nothing was changed.", code(old), code(file))
		case len(results) == 1:
			return reply{tool: "write_file", args: map[string]string{"path": file, "content": strings.ReplaceAll(content, old, repl)}}
		case results[1].Error:
			return say("I could not write %s: %s", code(file), results[1].Text)
		}
		return say("I replaced %s by %s in %s of the file %s.", code(old), code(repl), plural(n, "place"), code(file))
	}, true
}

func parseCreate(line string) (task, bool) {
	rest, ok := after(line, "create the file ")
	if !ok {
		return nil, false
	}
	file, text, ok := strings.Cut(rest, ":")
	file, text = strings.TrimSpace(file), strings.TrimSpace(text)
	if !ok || file == "" {
		return nil, false
	}
	return func(results []model.Message) reply {
		if len(results) == 0 {
			return reply{tool: "write_file", args: map[string]string{"path": file, "content": text + "\n"}}
		}
		if results[0].Error {
			return say("I could not create %s: %s", code(file), results[0].Text)
		}
		return say("I created the file %s with %s.", code(file), plural(len(text)+1, "byte"))
	}, true
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// code marks s as literal text, as Markdown does.
func code(s string) string {
	if strings.Contains(s, "`") {
		return "`` " + s + " ``"
	}
	return "`" + s + "`"
}

func block(s string) string { return "```\n" + strings.TrimRight(s, "\n") + "\n```\n" }
