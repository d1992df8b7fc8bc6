#include "backend/cpu/packed.h"

#include <bit>
#include <cstring>

#include "cache/layout.h"

namespace rum {
namespace {

uint16_t Half(const TensorView& t, int64_t i) {
  uint16_t h;
  std::memcpy(&h, static_cast<const uint8_t*>(t.data) + 2 * i, 2);
  return h;
}

// Row by row, so that the source is read in order; the 32 rows of a panel fit the cache.
void PackPlain(const TensorView& t, const PackedPart& part, uint8_t* panels) {
  const int64_t cols = t.cols;
  std::vector<float> floats(static_cast<size_t>(part.dtype == DType::kF32 ? cols : 0));
  for (int64_t row = 0; row < t.rows; ++row) {
    uint8_t* base = panels + row / kPanelRows * part.panel_bytes;
    const int64_t lane = row % kPanelRows, from = row * cols;
    if (part.dtype == DType::kF32) {
      auto* p = reinterpret_cast<float*>(base) + lane;
      DequantiseRow(t, row, floats.data());
      for (int64_t k = 0; k < cols; ++k) p[k * kPanelRows] = floats[static_cast<size_t>(k)];
    } else if (part.dtype == DType::kF16) {
      auto* p = reinterpret_cast<uint16_t*>(base) + lane;
      for (int64_t k = 0; k < cols; ++k) p[k * kPanelRows] = Half(t, from + k);
    } else {
      auto* p = reinterpret_cast<uint16_t*>(base) + lane * 2;
      for (int64_t k = 0; k < cols; ++k) p[k / 2 * (2 * kPanelRows) + k % 2] = Half(t, from + k);
    }
  }
}

DType PackedType(const TensorView& t) {
  if (t.dtype != DType::kNf4) return t.dtype;
  return t.cols % t.nf4->block == 0 && t.nf4->block % 64 == 0 ? DType::kNf4 : DType::kF32;
}

int64_t PanelBytes(const TensorView& t, DType packed) {
  if (IsPlain(packed)) return (packed == DType::kBF16 ? RoundUp(t.cols, 2) : t.cols) * kPanelRows * ElementBytes(packed);
  return t.cols / (packed == DType::kNf4 ? t.nf4->block : BlockOf(packed).weights) * PackedBlockBytes(t);
}

// Entries of nested_absmax for the rows of whole panels; 0: no double quantisation.
int64_t NestedCount(const PackedPart& part) {
  if (part.dtype != DType::kNf4 || part.nf4->absmax_codes == nullptr) return 0;
  return part.panels * kPanelRows * (part.cols / part.nf4->block) / part.nf4->nested_block + 1;
}

}  // namespace

bool Pack(std::initializer_list<TensorView> views, PackedMatrix* out) {
  constexpr int64_t kAlign = 64;
  out->cols = views.begin()->cols;
  int64_t bytes = 0;
  for (const TensorView& t : views) {
    PackedPart& part = out->parts[out->part_count++];
    part.dtype = PackedType(t);
    part.nf4 = t.nf4;
    part.cols = t.cols;
    part.panel_begin = out->panels;
    part.panels = RoundUp(t.rows, kPanelRows) / kPanelRows;
    part.panel_bytes = PanelBytes(t, part.dtype);
    out->panels += part.panels;
    bytes += RoundUp(part.panels * part.panel_bytes, kAlign) + RoundUp(NestedCount(part) * 4, kAlign);
  }
  if (!out->storage.Allocate(bytes)) return false;
  uint8_t* at = out->storage.data();
  PackedPart* part = out->parts;
  for (const TensorView& t : views) {
    part->data = at;
    IsPlain(part->dtype) ? PackPlain(t, *part, at) : PackBlocks(t, *part, at);
    at += RoundUp(part->panels * part->panel_bytes, kAlign);
    if (const int64_t nested = NestedCount(*part); nested != 0) {
      const int64_t stored = (Nf4BlockCount(t) + t.nf4->nested_block - 1) / t.nf4->nested_block;
      std::memcpy(at, t.nf4->nested_absmax, static_cast<size_t>(stored) * 4);
      part->nested = reinterpret_cast<const float*>(at);
      part->nested_shift = std::countr_zero(static_cast<uint32_t>(t.nf4->nested_block));
      at += RoundUp(nested * 4, kAlign);
    }
    ++part;
  }
  return true;
}

std::vector<float> Widen(const TensorView& view) {
  std::vector<float> out(static_cast<size_t>(view.rows * view.cols));
  for (int64_t r = 0; r < view.rows; ++r) DequantiseRow(view, r, out.data() + r * view.cols);
  return out;
}

std::vector<float> WidenStacked(std::initializer_list<TensorView> parts, const PackedMatrix& matrix) {
  std::vector<float> out(static_cast<size_t>(matrix.rows()));
  int32_t part = 0;
  for (const TensorView& t : parts) DequantiseRow(t, 0, out.data() + matrix.row_begin(part++));
  return out;
}

}  // namespace rum
