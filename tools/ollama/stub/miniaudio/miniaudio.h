// Stands for the single-header library miniaudio, which lies in a folder named "vendor" and is therefore not in the
// module's zip. Decoding audio always fails here; text models need nothing of it.
#pragma once
#include <cstddef>
#include <cstdint>

typedef int ma_result;
typedef std::uint32_t ma_uint32;
typedef std::uint64_t ma_uint64;

enum { MA_SUCCESS = 0, MA_ERROR = -1 };
enum ma_format { ma_format_unknown = 0, ma_format_f32 = 5 };
enum ma_encoding_format { ma_encoding_format_wav = 1 };

struct ma_decoder_config { int none; };
struct ma_decoder { int none; };
struct ma_encoder_config { int none; };
struct ma_encoder { int none; };

static inline ma_decoder_config ma_decoder_config_init(ma_format, ma_uint32, ma_uint32) { return {}; }
static inline ma_result ma_decoder_init_memory(const void *, std::size_t, const ma_decoder_config *, ma_decoder *) { return MA_ERROR; }
static inline ma_result ma_decoder_get_length_in_pcm_frames(ma_decoder *, ma_uint64 *) { return MA_ERROR; }
static inline ma_result ma_decoder_read_pcm_frames(ma_decoder *, void *, ma_uint64, ma_uint64 *) { return MA_ERROR; }
static inline ma_result ma_decoder_uninit(ma_decoder *) { return MA_SUCCESS; }
