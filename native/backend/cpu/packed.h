// Weights as the kernels read them: panels of 32 rows, all columns of a panel in one sequential stream. One layout and one
// k-order for every batch shape (docs/NUMERICS.md, PERF.md 1).
#pragma once
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "core/mapped_buffer.h"
#include "model/quant.h"
#include "model/weights.h"

namespace rum {

inline constexpr int32_t kPanelRows = 32;

// One matrix of a stack, in the type it has in the file: block formats stay as small as they are there (Q4_K: 148 bytes a block
// instead of 144, its 6-bit scales as bytes). Lane = row everywhere; of two codes in a byte the even column is the low one.
//   F32, F16  [panels][cols][32]          BF16  [panels][cols_padded / 2][32][2]
//   Q8_0   [panels][cols / 32] of { f16 d[32]; i8 code[32][32] }
//   Q4_0   [panels][cols / 32] of { f16 d[32]; u8 codes[16][32] }
//   Q4_1   [panels][cols / 32] of { f16 d[32]; f16 m[32]; u8 codes[16][32] }
//   Q4_K   [panels][cols / 256] of { f16 d[32]; f16 dmin[32]; 8 x { u8 scale[32]; u8 min[32]; u8 codes[16][32] } }
//   Q6_K   [panels][cols / 256] of { f16 d[32]; 16 x { i8 scale[32]; u8 low[8][32]; u8 high[4][32] } }, high: 2 bits of 4 columns
//   NF4    [panels][cols / block] of { f32 absmax[32] or u8 absmax_code[32]; u8 codes[block / 2][32] }
// NF4 whose blocks cross rows, or are shorter than the kernel's 64 columns, is widened to F32: no real model has such matrices.
struct PackedPart {
  DType dtype = DType::kF32;
  int64_t cols = 0;             // K
  int64_t panel_begin = 0;      // first panel of the stack; padded with rows of zeros to a whole number of panels
  int64_t panels = 0;
  int64_t panel_bytes = 0;
  const uint8_t* data = nullptr;
  const Nf4Scales* nf4 = nullptr;   // the Model's, for the tables
  const float* nested = nullptr;    // nested_absmax, aligned and padded for the padding rows; nullptr: no double quantisation
  int32_t nested_shift = 0;         // nested_block is 1 << nested_shift
};

// Up to three matrices with the same number of columns, stacked.
struct PackedMatrix {
  static constexpr int32_t kPartsMax = 3;
  int64_t cols = 0;
  int64_t panels = 0;
  int32_t part_count = 0;
  PackedPart parts[kPartsMax];
  MappedBuffer storage;
  int64_t rows() const { return panels * kPanelRows; }  // padding included
  int64_t row_begin(int32_t part) const { return parts[part].panel_begin * kPanelRows; }
  int64_t bytes() const { return storage.size(); }
};

// Returns false when memory cannot be had.
bool Pack(std::initializer_list<TensorView> parts, PackedMatrix* out);

// A block format's rows into the zeroed panels of `part` (packed_quant.cc), and the size of one block of 32 rows.
void PackBlocks(const TensorView& t, const PackedPart& part, uint8_t* panels);
int64_t PackedBlockBytes(const TensorView& t);

// A view widened to float, exactly.
std::vector<float> Widen(const TensorView& view);
// Vectors widened and laid out as the rows of `matrix`, which was packed from as many parts: [matrix.rows()], padding +0.
std::vector<float> WidenStacked(std::initializer_list<TensorView> parts, const PackedMatrix& matrix);

}  // namespace rum
