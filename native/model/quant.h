// What the codes of a block format mean, in binary32: the definition for both backends. A weight is first dequantised as its format
// says (GGUF: ggml's dequantize_row; NF4: METHOD.md 4), then used as any F32 weight; nothing else ever depends on the format.
#pragma once
#include <cstdint>

#include "model/weights.h"

namespace rum {

// Scales of one bitsandbytes NF4 matrix; blocks of `block` weights run over the flattened matrix. Pointers into the mapped file.
struct Nf4Scales {
  int32_t block = 64;
  float table[16] = {};                 // quant_map
  const float* absmax = nullptr;        // [blocks], without double quantisation; may be unaligned
  const uint8_t* absmax_codes = nullptr;  // [blocks], with it: absmax = nested_table[code] * nested_absmax[i / nested_block] + nested_offset
  const void* nested_absmax = nullptr;  // float [ceil(blocks / nested_block)]; may be unaligned
  int32_t nested_block = 256;
  float nested_table[256] = {};
  float nested_offset = 0.0f;
};

// Row `row` of any matrix as floats [cols], exactly as its type defines them.
void DequantiseRow(const TensorView& view, int64_t row, float* out);

// Bytes the format itself spends on the matrix, scales included: what "kept quantised in memory" is measured against.
int64_t FormatBytes(const TensorView& view);

}  // namespace rum
