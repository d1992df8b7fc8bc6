// Weights as the kernels read them: panels of 32 rows, all columns of a panel in one sequential stream. One layout and one
// k-order for every batch shape (docs/NUMERICS.md, PERF.md 1).
#pragma once
#include <cstdint>
#include <initializer_list>
#include <vector>

#include "cache/page_pool.h"
#include "model/weights.h"

namespace rum {

inline constexpr int32_t kPanelRows = 32;

// Several matrices with the same number of columns, stacked; each starts on a panel border and is padded with zero rows.
//   F32:  [panels][cols][32]        F16: [panels][cols][32]        BF16: [panels][cols_padded / 2][32][2]
struct PackedMatrix {
  DType dtype = DType::kF32;
  int64_t cols = 0;               // K
  int64_t panels = 0;
  int64_t panel_bytes = 0;
  std::vector<int64_t> row_begin; // first output row of each stacked matrix: a multiple of 32
  MappedBuffer storage;
  const uint8_t* panel(int64_t p) const { return storage.data() + p * panel_bytes; }
  int64_t rows() const { return panels * kPanelRows; }  // padding included
  int64_t bytes() const { return storage.size(); }
};

// Matrices of one type keep it; mixed types are widened to F32. Returns false when memory cannot be had.
bool Pack(std::initializer_list<TensorView> parts, PackedMatrix* out);

// A view widened to float, exactly.
std::vector<float> Widen(const TensorView& view);
// Vectors widened and laid out as the rows of `matrix`, which was packed from as many parts: [matrix.rows()], padding +0.
std::vector<float> WidenStacked(std::initializer_list<TensorView> parts, const PackedMatrix& matrix);

}  // namespace rum
