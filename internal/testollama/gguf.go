package testollama

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
)

// file is a model file in the making: GGUF version 3, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
type file struct {
	meta    []entry
	tensors []tensor
}

type entry struct {
	key   string
	value any // uint32, float32, bool, string, []string, []float32 or []int32
}

type tensor struct {
	name  string
	shape []uint64 // the fastest dimension first
	data  []float32
}

// Type numbers of the format.
const (
	typeUint32  uint32 = 4
	typeInt32   uint32 = 5
	typeFloat32 uint32 = 6
	typeBool    uint32 = 7
	typeString  uint32 = 8
	typeArray   uint32 = 9

	alignment = 32
)

func (f *file) set(key string, value any) { f.meta = append(f.meta, entry{key, value}) }

func (f *file) add(name string, data []float32, shape ...int) {
	t := tensor{name: name, data: data}
	for _, n := range shape {
		t.shape = append(t.shape, uint64(n))
	}
	f.tensors = append(f.tensors, t)
}

func (f *file) bytes() []byte {
	var w writer
	w.WriteString("GGUF")
	w.put(uint32(3), uint64(len(f.tensors)), uint64(len(f.meta)))
	for _, e := range f.meta {
		w.text(e.key)
		w.value(e.value)
	}
	offset := uint64(0)
	for _, t := range f.tensors {
		w.text(t.name)
		w.put(uint32(len(t.shape)), t.shape, uint32(0), offset) // 0: float32
		offset += (uint64(len(t.data))*4 + alignment - 1) &^ (alignment - 1)
	}
	w.pad()
	for _, t := range f.tensors {
		w.put(t.data)
		w.pad()
	}
	return w.Bytes()
}

type writer struct{ bytes.Buffer }

func (w *writer) put(values ...any) {
	for _, v := range values {
		if err := binary.Write(&w.Buffer, binary.LittleEndian, v); err != nil {
			panic(err) // a buffer takes all; the type is wrong
		}
	}
}

func (w *writer) text(s string) {
	w.put(uint64(len(s)))
	w.WriteString(s)
}

func (w *writer) value(v any) {
	switch v := v.(type) {
	case uint32:
		w.put(typeUint32, v)
	case float32:
		w.put(typeFloat32, v)
	case bool:
		w.put(typeBool, v)
	case string:
		w.put(typeString)
		w.text(v)
	case []string:
		w.put(typeArray, typeString, uint64(len(v)))
		for _, s := range v {
			w.text(s)
		}
	case []float32:
		w.put(typeArray, typeFloat32, uint64(len(v)), v)
	case []int32:
		w.put(typeArray, typeInt32, uint64(len(v)), v)
	default:
		panic(fmt.Sprintf("testollama: no GGUF type for %T", v))
	}
}

func (w *writer) pad() {
	for w.Len()%alignment != 0 {
		w.WriteByte(0)
	}
}

// build writes a model of the llama architecture with the vocabulary v: random weights, and for scripts a table.
//
// A script works by taking the blocks' outputs to zero, so that what is left at the end is the embedding of the last
// token alone; output.weight then holds, for every token of the chain, the embedding of the one before it. Dimension 0
// of all embeddings is constant, so that row 0 of output.weight is a bias.
func build(v *vocabulary) []byte {
	const (
		heads   = 1
		narrow  = 16 // the blocks do nothing useful: what they cost is what a prompt costs
		context = 16384
	)
	scripted := len(v.next) > 0
	dim, layers := 64, 2
	if scripted {
		dim, layers = 256, 1 // wide enough that two tokens are hardly alike
	}
	n := len(v.tokens)
	random := rand.New(rand.NewPCG(1, 7)) //nolint:gosec // weights, the same each time
	gauss := func(count int, deviation float64) []float32 {
		d := make([]float32, count)
		for i := range d {
			d[i] = float32(random.NormFloat64() * deviation)
		}
		return d
	}
	width := math.Sqrt(float64(dim))

	embedding := gauss(dim*n, 1/width)
	for t := range n {
		embedding[t*dim] = 0.5
	}
	output := gauss(dim*n, 0.2)
	bias := func(token int, by float64) { output[token*dim] += float32(by * math.Sqrt(1.25) / (0.5 * width)) }
	for t := range n {
		output[t*dim] = 0
		if k := v.kinds[t]; k == kindUnknown || k == kindByte || k == kindControl && t != v.eos {
			bias(t, -30) // no stray bytes or control tokens
		}
	}
	// A random model must come to an end: of strings, objects, lists, and of its answer.
	for _, t := range []int{v.index[`"`], v.index["}"], v.index["]"], v.eos} {
		bias(t, 3)
	}
	for t, next := range v.next {
		for i := 1; i < dim; i++ {
			output[next*dim+i] += 6 * embedding[t*dim+i]
		}
		if v.kinds[next] == kindNormal {
			bias(next, -10)
		}
	}

	var f file
	f.set("general.architecture", "llama")
	f.set("general.name", "testollama")
	f.set("general.file_type", uint32(0))
	f.set("llama.vocab_size", uint32(n))
	f.set("llama.block_count", uint32(layers))
	f.set("llama.context_length", uint32(context))
	f.set("llama.embedding_length", uint32(dim))
	f.set("llama.feed_forward_length", uint32(2*narrow))
	f.set("llama.attention.head_count", uint32(heads))
	f.set("llama.attention.head_count_kv", uint32(heads))
	f.set("llama.attention.key_length", uint32(narrow))
	f.set("llama.attention.value_length", uint32(narrow))
	f.set("llama.attention.layer_norm_rms_epsilon", float32(1e-5))
	f.set("llama.rope.dimension_count", uint32(narrow))
	f.set("llama.rope.freq_base", float32(10000))
	f.set("tokenizer.ggml.model", "llama")
	f.set("tokenizer.ggml.pre", "default")
	f.set("tokenizer.ggml.tokens", v.tokens)
	f.set("tokenizer.ggml.scores", v.scores)
	f.set("tokenizer.ggml.token_type", v.kinds)
	f.set("tokenizer.ggml.bos_token_id", uint32(v.bos))
	f.set("tokenizer.ggml.eos_token_id", uint32(v.eos))
	f.set("tokenizer.ggml.unknown_token_id", uint32(0))
	f.set("tokenizer.ggml.add_bos_token", true)
	f.set("tokenizer.ggml.add_eos_token", false)
	f.set("tokenizer.ggml.add_space_prefix", false)

	f.add("token_embd.weight", embedding, dim, n)
	f.add("output_norm.weight", ones(dim), dim)
	f.add("output.weight", output, dim, n)
	blocks := 0.3 / width
	if scripted {
		blocks = 0
	}
	constant := func(d []float32, row int) []float32 { clear(d[:row]); return d } // leaves dimension 0 as it is
	for i := range layers {
		p := "blk." + string(rune('0'+i)) + "."
		f.add(p+"attn_norm.weight", ones(dim), dim)
		f.add(p+"attn_q.weight", gauss(dim*narrow, 1/width), dim, narrow)
		f.add(p+"attn_k.weight", gauss(dim*narrow, 1/width), dim, narrow)
		f.add(p+"attn_v.weight", gauss(dim*narrow, 1/width), dim, narrow)
		f.add(p+"attn_output.weight", constant(gauss(dim*narrow, blocks), narrow), narrow, dim)
		f.add(p+"ffn_norm.weight", ones(dim), dim)
		f.add(p+"ffn_gate.weight", gauss(dim*2*narrow, 1/width), dim, 2*narrow)
		f.add(p+"ffn_up.weight", gauss(dim*2*narrow, 1/width), dim, 2*narrow)
		f.add(p+"ffn_down.weight", constant(gauss(2*narrow*dim, blocks), 2*narrow), 2*narrow, dim)
	}
	return f.bytes()
}

func ones(n int) []float32 {
	d := make([]float32, n)
	for i := range d {
		d[i] = 1
	}
	return d
}
