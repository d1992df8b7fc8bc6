// What the codes of a block format mean, in binary32: the definition for both backends. A weight is first dequantised as its format
// says (GGUF: ggml's dequantize_row; NF4: METHOD.md 4), then used as any F32 weight; nothing else ever depends on the format.
#pragma once
#include <cstdint>

#include "model/weights.h"

namespace rum {

// Scales of one bitsandbytes NF4 matrix; blocks of `block` weights run over the flattened matrix. Pointers into the mapped file.
struct Nf4Scales {
  int32_t block = 64;
  float table[16] = {};                   // quant_map
  const void* absmax = nullptr;           // float [blocks], without double quantisation; may be unaligned
  const uint8_t* absmax_codes = nullptr;  // [blocks], with it: absmax = nested_table[code] * nested_absmax[i / nested_block] + nested_offset
  const void* nested_absmax = nullptr;    // float [ceil(blocks / nested_block)]; may be unaligned
  int32_t nested_block = 256;
  float nested_table[256] = {};
  float nested_offset = 0.0f;
};

// Weights that share a block, and its bytes in the file (ggml-common.h). Not for NF4, whose scales stand apart, nor for plain types.
struct BlockShape {
  int64_t weights = 0;
  int64_t bytes = 0;
};
BlockShape BlockOf(DType type);

// The 6-bit scale and min of 32-weight part s (< 8) of a Q4_K block, from its 12 packed bytes; and weight i (< 256) of a Q6_K block
// before scaling, in [-32, 31].
struct ScaleAndMin {
  uint8_t scale, min;
};
ScaleAndMin Q4KScale(const uint8_t* packed, int s);
int32_t Q6KCode(const uint8_t* block, int i);

// "f32", "q4_k", ... as the API writes it.
const char* DTypeName(DType type);

// The scale of block i of an NF4 matrix: two roundings with double quantisation, none without.
float Nf4AbsMax(const Nf4Scales& scales, int64_t i);
int64_t Nf4BlockCount(const TensorView& view);

// Row `row` of any matrix as floats [cols], exactly as its type defines them.
void DequantiseRow(const TensorView& view, int64_t row, float* out);

// Whether every weight of the tensor is a finite number. Of a block format only the scales are read: its codes are whole numbers.
bool AllFinite(const TensorView& view);

// Bytes the format itself spends on the matrix, scales included: what "kept quantised in memory" is measured against. NF4's tables
// are not counted: every matrix of a checkpoint has the same.
int64_t FormatBytes(const TensorView& view);

}  // namespace rum
