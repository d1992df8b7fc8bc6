#include "backend/cpu/packed.h"

#include <cstring>

#include "cache/layout.h"
#include "model/quant.h"

namespace rum {
namespace {

uint16_t Half(const TensorView& t, int64_t i) {
  uint16_t h;
  std::memcpy(&h, static_cast<const uint8_t*>(t.data) + 2 * i, 2);
  return h;
}

// Rows of `t` into panels from `panel` on. Rows are walked in the inner loop's outer position so that the source is read in order
// within a row block of 32, which fits the cache.
void PackInto(const TensorView& t, int64_t first_panel, PackedMatrix* out) {
  const int64_t cols = t.cols;
  std::vector<float> floats(static_cast<size_t>(cols));
  for (int64_t row = 0; row < t.rows; ++row) {
    uint8_t* base = out->storage.data() + (first_panel + row / kPanelRows) * out->panel_bytes;
    const int64_t lane = row % kPanelRows, from = row * cols;
    switch (out->dtype) {
      case DType::kF32: {
        auto* p = reinterpret_cast<float*>(base) + lane;
        DequantiseRow(t, row, floats.data());
        for (int64_t k = 0; k < cols; ++k) p[k * kPanelRows] = floats[static_cast<size_t>(k)];
        break;
      }
      case DType::kF16: {
        auto* p = reinterpret_cast<uint16_t*>(base) + lane;
        for (int64_t k = 0; k < cols; ++k) p[k * kPanelRows] = Half(t, from + k);
        break;
      }
      case DType::kBF16: {
        auto* p = reinterpret_cast<uint16_t*>(base) + lane * 2;
        for (int64_t k = 0; k < cols; ++k) p[k / 2 * (2 * kPanelRows) + k % 2] = Half(t, from + k);
        break;
      }
      default: break;
    }
  }
}

}  // namespace

bool Pack(std::initializer_list<TensorView> parts, PackedMatrix* out) {
  out->dtype = parts.begin()->dtype;
  out->cols = parts.begin()->cols;
  out->panels = 0;
  for (const TensorView& t : parts) {
    if (t.dtype != out->dtype || !IsPlain(t.dtype)) out->dtype = DType::kF32;
    out->row_begin.push_back(out->panels * kPanelRows);
    out->panels += RoundUp(t.rows, kPanelRows) / kPanelRows;
  }
  const int64_t padded_cols = out->dtype == DType::kBF16 ? RoundUp(out->cols, 2) : out->cols;
  out->panel_bytes = padded_cols * kPanelRows * ElementBytes(out->dtype);
  if (!out->storage.Allocate(out->panels * out->panel_bytes)) return false;
  size_t i = 0;
  for (const TensorView& t : parts) PackInto(t, out->row_begin[i++] / kPanelRows, out);
  return true;
}

std::vector<float> Widen(const TensorView& view) {
  std::vector<float> out(static_cast<size_t>(view.rows * view.cols));
  for (int64_t r = 0; r < view.rows; ++r) DequantiseRow(view, r, out.data() + r * view.cols);
  return out;
}

std::vector<float> WidenStacked(std::initializer_list<TensorView> parts, const PackedMatrix& matrix) {
  std::vector<float> out(static_cast<size_t>(matrix.rows()));
  size_t i = 0;
  for (const TensorView& t : parts) DequantiseRow(t, 0, out.data() + matrix.row_begin[i++]);
  return out;
}

}  // namespace rum
