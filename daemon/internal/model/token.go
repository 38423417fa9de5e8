package model

import (
	"strings"
	"unicode"

	"github.com/closedpaw/closedpaw/daemon/internal/text"
)

// Control tokens of chat formats (<|im_end|>, [INST], </s>, <think>…) are live wherever they stand in a prompt: a web
// page that contains one could end its own turn and speak as the system. So text from outside is escaped before it
// reaches a model: a broken bar is put behind the first character of each token, which no longer is one then, stays
// readable, and can be taken out again exactly: <|im_end|> becomes <¦|im_end|>, [INST] becomes [¦INST].
const bar = "¦"

// maxToken is the longest token looked for, in bytes between its brackets.
const maxToken = 80

// angle are the names of control tokens in angle brackets, without a leading slash, in lower case. Tokens with a bar
// at either end (<|x|>, <|x>, <x|>, and with the wide bar of DeepSeek) need no name.
var angle = names(`s unk pad bos eos eot eod sot eop sop eoh eoa mask cls sep
	start_of_turn end_of_turn start_of_image end_of_image image_soft_token end_of_utterance
	think thinking thought reasoning answer_start scratch_pad
	tool tools tool_call tool_calls tool_response tool_result tool_results function_call function_calls function_results
	start_function_call end_function_call start_function_response end_function_response
	start_function_declaration end_function_declaration escape invoke arg_key arg_value
	bos_token eos_token eop_token pad_token unk_token`)

// anglePrefix are starts of families of such names.
var anglePrefix = []string{"unused", "reserved", "extra_id_", "special_", "seed:", "minimax:", "function=", "parameter="}

// square are control tokens in square brackets, without a leading slash, as they are written.
var square = names(`INST AVAILABLE_TOOLS TOOL_CALLS TOOL_CALL TOOL_RESULTS TOOL_CONTENT SYSTEM_PROMPT MODEL_SETTINGS
	THINK ARGS CALL_ID IMG IMG_BREAK IMG_END PREFIX SUFFIX MIDDLE AUDIO BEGIN_AUDIO TRANSCRIBE gMASK sMASK MASK CLS SEP PAD UNK BOS EOS
	REFERENCE_DOC_0 STRIKETHROUGH`)

func names(s string) map[string]bool {
	m := map[string]bool{}
	for _, n := range strings.Fields(s) {
		m[n] = true
	}
	return m
}

// Escape changes s so that no control token is left in it. Unescape gives s back.
func Escape(s string) string {
	return mapBrackets(s, func(out *strings.Builder, rest string) int {
		out.WriteByte(rest[0])
		if strings.HasPrefix(rest[1:], bar) || isToken(rest) {
			out.WriteString(bar)
		}
		return 1
	})
}

// Unescape takes out what Escape put in.
func Unescape(s string) string {
	if !strings.Contains(s, bar) {
		return s
	}
	return mapBrackets(s, func(out *strings.Builder, rest string) int {
		out.WriteByte(rest[0])
		if strings.HasPrefix(rest[1:], bar) {
			return 1 + len(bar)
		}
		return 1
	})
}

// mapBrackets copies s; at each bracket f writes what it wants and says how much of s that was.
func mapBrackets(s string, f func(out *strings.Builder, rest string) int) string {
	i := strings.IndexAny(s, "<[]")
	if i < 0 {
		return s
	}
	var out strings.Builder
	out.Grow(len(s) + 64)
	for ; i >= 0; i = strings.IndexAny(s, "<[]") {
		out.WriteString(s[:i])
		s = s[i:]
		s = s[f(&out, s):]
	}
	out.WriteString(s)
	return out.String()
}

// isToken says whether a control token begins at the start of s.
func isToken(s string) bool {
	open, s := s[0], s[1:]
	window, _ := text.Cut(s, maxToken)
	switch open {
	case ']': // MiniMax writes ]~b] and ]~!b[
		return strings.HasPrefix(s, "~")
	case '[':
		if strings.HasPrefix(s, "e~[") {
			return true
		}
		end := strings.IndexAny(window, "[]\n")
		if end < 0 || window[end] != ']' {
			return false
		}
		n := strings.TrimPrefix(window[:end], "/")
		return barred(n) || square[n] || strings.HasPrefix(n, "CONTROL_") || strings.HasPrefix(n, "control_")
	}
	if double, ok := strings.CutPrefix(window, "<"); ok { // <<SYS>>
		double = strings.ToLower(strings.TrimPrefix(double, "/"))
		return strings.HasPrefix(double, "sys>>")
	}
	end := strings.IndexAny(window, "<>\n")
	if end < 0 || window[end] != '>' {
		return false
	}
	n := strings.ToLower(strings.TrimFunc(strings.TrimPrefix(window[:end], "/"), unicode.IsSpace))
	if barred(n) || angle[n] {
		return true
	}
	for _, p := range anglePrefix {
		if strings.HasPrefix(n, p) {
			return true
		}
	}
	return false
}

// barred says whether a name has a bar, plain or wide, at either end.
func barred(n string) bool {
	return strings.HasPrefix(n, "|") || strings.HasSuffix(n, "|") || strings.HasPrefix(n, "｜") || strings.HasSuffix(n, "｜")
}
