// Package model is what a language model is asked and what it answers, whoever provides it: the form that an agent and
// the gateway speak on the stream between them. Requests and chunks are JSON, one a line. Nothing in it is trusted by
// either side: sizes are bounded, unknown fields and trailing bytes are errors.
package model

import (
	"context"
	"encoding/json"

	"github.com/closedpaw/closedpaw/client/api"
)

// MaxRequest bounds one request, MaxChunk one chunk, as encoded lines.
const (
	MaxRequest = 8 << 20
	MaxChunk   = 256 << 10
)

// Request asks for one answer. The model's name is not in it: the gateway was told by control which one this stream may ask.
type Request struct {
	System   string    `json:"system,omitempty"`
	Messages []Message `json:"messages"`
	Tools    []Tool    `json:"tools,omitempty"`
}

// Message is one of the conversation. Role is user, assistant or tool.
type Message struct {
	Role   string         `json:"role"`
	Text   string         `json:"text"`
	Calls  []api.ToolCall `json:"calls,omitempty"`   // of an assistant
	Tool   string         `json:"tool,omitempty"`    // name, of a tool's result
	CallID string         `json:"call_id,omitempty"` // of a tool's result
	Error  bool           `json:"error,omitempty"`   // of a tool's result: the call failed or was denied
}

// Tool is one that the model may call.
type Tool struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Schema      json.RawMessage `json:"schema"` // JSON schema of the arguments
}

// Chunk is a piece of an answer; exactly one field is set. The last one of an answer has Done or Error.
type Chunk struct {
	Text     string        `json:"text,omitempty"`
	Thinking string        `json:"thinking,omitempty"`
	Call     *api.ToolCall `json:"call,omitempty"`
	Done     *Done         `json:"done,omitempty"`
	Error    *api.Error    `json:"error,omitempty"`
}

// Done ends an answer.
type Done struct {
	PromptTokens int `json:"prompt_tokens"`
	OutputTokens int `json:"output_tokens"`
}

// Provider asks models of one kind. It runs in role gateway.
type Provider interface {
	// Chat streams the answer of the named model to emit and returns when it is complete. An error, or the end of ctx,
	// means that the answer is not complete, whatever was emitted. It never emits Done or Error; it returns them.
	Chat(ctx context.Context, name string, r Request, emit func(Chunk) error) (Done, error)
	// Models lists what Chat accepts.
	Models(ctx context.Context) ([]api.Model, error)
}
