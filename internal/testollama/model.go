package testollama

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Scripted is a model that says, word for word, what a test wants. It can call tools.
type Scripted struct {
	Name string

	// Dialogue[u][k] is the answer to the user's message number u when there were k results of tools since that message.
	// A text that Call made is a tool call. One that begins with "<think>…</think>" thinks, if Thinks is set. What it
	// says where the dialogue has no answer is undefined, and so is an answer with which another one begins.
	Dialogue [][]string
	Thinks   bool
	NoTools  bool // its template knows no tools, so Ollama refuses them
	Open     bool // its prompt ends with the last message's own text: what stands there is what it does (see Token)
}

// Token is the control token, written out as text, by which an Open model gives the first answer of its dialogue.
const Token = "<|s:u|>"

// Random is a model that says random things: with a JSON schema as the request's format, random but valid values.
type Random struct{ Name string }

// Call is the text by which a model calls a tool.
func Call(tool string, args any) string {
	b, err := json.Marshal(args)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"name": %q, "parameters": %s}`, tool, b)
}

// The templates turn a conversation into a prompt. The one of a dialogue counts: $u user messages, $k results since.
const (
	templateBegin = `{{- if .System }}[SYS]{{ .System }}[/SYS]{{ end }}{{- if .Tools }}[TOOLS]{{ json .Tools }}[/TOOLS]{{ end }}{{- $u := "" }}{{- $k := "" }}{{- range .Messages }}{{- if eq .Role "user" }}[U]{{ .Content }}[/U]{{ $u = printf "%su" $u }}{{ $k = "" }}{{- else if eq .Role "assistant" }}`
	templateThink = `{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}`
	templateEnd   = `{{ if .ToolCalls }}{{ range .ToolCalls }}{"name": "{{ .Function.Name }}", "parameters": {{ .Function.Arguments }}}{{ end }}{{ else }}{{ .Content }}{{ end }}{{- else if eq .Role "tool" }}[R]{{ .Content }}[/R]{{ $k = printf "%sk" $k }}{{- end }}{{- end }}`
	templateSay   = `<|s:{{ $u }}{{ $k }}|>`
)

func (m Scripted) name() string { return m.Name }

func (m Scripted) weights() []byte {
	scripts := map[string]string{} // named as the template does
	u := ""
	for _, answers := range m.Dialogue {
		u += "u"
		k := ""
		for _, text := range answers {
			scripts[u+k] = text
			k += "k"
		}
	}
	return build(newVocabulary(scripts))
}

func (m Scripted) template() string {
	if m.Open {
		return `{{- range .Messages }}{{ .Content }}{{ end }}`
	}
	if m.NoTools {
		return `{{- $u := "" }}{{- range .Messages }}{{- if eq .Role "user" }}{{ $u = printf "%su" $u }}{{ end }}[M]{{ .Content }}[/M]{{- end }}<|s:{{ $u }}|>`
	}
	if m.Thinks {
		return templateBegin + templateThink + templateEnd + templateSay
	}
	return templateBegin + templateEnd + templateSay
}

func (Scripted) parameters() map[string]any { return parameters(4096, 0) }

func (m Random) name() string { return m.Name }

func (Random) weights() []byte { return build(newVocabulary(nil)) }

func (Random) template() string { return templateBegin + templateEnd }

func (Random) parameters() map[string]any { return parameters(256, 0.8) }

// parameters has one thread: more of them spin and take the CPU from the test.
func parameters(tokens int, temperature float64) map[string]any {
	return map[string]any{"num_thread": 1, "num_ctx": 16384, "num_predict": tokens, "temperature": temperature}
}

// Kinds of tokens, as SentencePiece numbers them.
const (
	kindNormal  int32 = 1
	kindUnknown int32 = 2
	kindControl int32 = 3
	kindByte    int32 = 6
)

// vocabulary is the tokens of a model, and for a scripted one the chain in which they follow each other.
type vocabulary struct {
	tokens []string
	scores []float32
	kinds  []int32
	index  map[string]int
	next   map[int]int // token → the one that always follows it
	bos    int
	eos    int
}

// newVocabulary has bytes and ASCII, and the pieces of the scripts: name of a script → its text.
func newVocabulary(scripts map[string]string) *vocabulary {
	v := &vocabulary{index: map[string]int{}, next: map[int]int{}}
	v.add("<unk>", kindUnknown)
	v.bos, v.eos = v.add("<s>", kindControl), v.add("</s>", kindControl)
	for i := range 256 {
		v.add(fmt.Sprintf("<0x%02X>", i), kindByte)
	}
	v.add("▁", kindNormal)
	for c := '!'; c <= '~'; c++ {
		v.add(string(c), kindNormal)
	}
	for _, name := range slices.Sorted(maps.Keys(scripts)) {
		at := v.add(control(name), kindControl)
		for _, piece := range v.split([]rune(strings.ReplaceAll(scripts[name], " ", "▁"))) {
			t := v.add(piece, kindNormal)
			v.scores[t] = -1e6 // never chosen when a prompt is cut into tokens
			v.next[at], at = t, t
		}
		v.next[at] = v.eos
	}
	return v
}

// control is the token that makes the model say a script, when it is the last one of the prompt.
func control(script string) string { return "<|s:" + script + "|>" }

func (v *vocabulary) add(s string, kind int32) int {
	if i, ok := v.index[s]; ok {
		return i
	}
	i := len(v.tokens)
	v.index[s] = i
	v.tokens, v.kinds, v.scores = append(v.tokens, s), append(v.kinds, kind), append(v.scores, -float32(i))
	return i
}

// split cuts a script into pieces that are not tokens yet: each stands once in all scripts, so it has one successor.
func (v *vocabulary) split(text []rune) []string {
	const shortest = 4
	var pieces []string
	seen := map[string]bool{}
	used := func(p string) bool { _, ok := v.index[p]; return ok || seen[p] }
	for len(text) > 0 {
		n := min(shortest, len(text))
		for n < len(text) && used(string(text[:n])) {
			n++
		}
		p := string(text[:n])
		for used(p) { // at the end of the text: glue it to the piece before
			if len(pieces) == 0 {
				panic(fmt.Sprintf("testollama: the script %q is the beginning of another one: make it longer", p))
			}
			p = pieces[len(pieces)-1] + p
			pieces = pieces[:len(pieces)-1]
		}
		pieces, text = append(pieces, p), text[n:]
		seen[p] = true
	}
	return pieces
}
