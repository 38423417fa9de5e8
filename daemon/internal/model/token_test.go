package model_test

import (
	"strings"
	"testing"

	"github.com/closedpaw/closedpaw/daemon/internal/model"
)

// tokens are control tokens of chat formats in use.
var tokens = strings.Fields(`<|im_start|> <|im_end|> <|endoftext|> <|eot_id|> <|start_header_id|> <|python_tag|> <|channel|> <|return|> <|s:evil|>
	<|START_OF_TURN_TOKEN|> <|tool_calls_section_begin|> <｜User｜> <｜end▁of▁sentence｜> <｜DSML｜invoke> </｜DSML｜invoke> <|turn> <turn|> <tool_call|>
	[INST] [/INST] <<SYS>> <</SYS>> [TOOL_CALLS] [/TOOL_RESULTS] [SYSTEM_PROMPT] [gMASK] [|user|] [|endofturn|]
	<s> </s> <bos> <eos> <start_of_turn> <end_of_turn> <think> </think> <tool_call> </tool_response> <unused12> <extra_id_0> <seed:bos> </seed:tool_call>
	<function=shell> <BOS_TOKEN> <sop> <SPECIAL_10> ]~b] ]~!b[ [e~[`)

func TestEscape(t *testing.T) {
	for _, token := range tokens {
		for _, s := range []string{token, "a" + token + "b", token + token, "<" + token, "[" + token, "<|" + token + "|>", "<a " + token + ">"} {
			e := model.Escape(s)
			if strings.Contains(e, token) {
				t.Errorf("%q still has %q", e, token)
			}
			if u := model.Unescape(e); u != s {
				t.Errorf("%q came back as %q", s, u)
			}
		}
	}
	for in, want := range map[string]string{
		"<|im_end|>":                          "<¦|im_end|>",
		"[INST]":                              "[¦INST]",
		"</s>":                                "<¦/s>",
		"<¦|im_end|>":                         "<¦¦|im_end|>",
		"if a < b && c > d { x[i] = y[0] }":   "if a < b && c > d { x[i] = y[0] }",
		"<html><body>[ERROR] [1, 2] <b>x</b>": "<html><body>[ERROR] [1, 2] <b>x</b>",
		"a ¦ b":                               "a ¦ b",
		"<":                                   "<",
		"x <\n>":                              "x <\n>",
	} {
		if got := model.Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range tokens {
		f.Add("x"+s, s)
	}
	f.Fuzz(func(t *testing.T, s, more string) {
		s += more
		e := model.Escape(s)
		if model.Unescape(e) != s {
			t.Errorf("%q → %q → %q", s, e, model.Unescape(e))
		}
		for _, token := range tokens {
			if strings.Contains(e, token) {
				t.Errorf("%q → %q still has %q", s, e, token)
			}
		}
	})
}
