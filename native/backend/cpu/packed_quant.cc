// Blocks of the file into blocks of 32 rows (packed.h): codes and scales are moved, never computed with.
#include <algorithm>
#include <cstring>

#include "backend/cpu/packed.h"

namespace rum {
namespace {

constexpr int64_t kHalves = 2 * kPanelRows;  // bytes of one F16 for each row

void PutHalf(const uint8_t* half, int64_t lane, uint8_t* out) { std::memcpy(out + 2 * lane, half, 2); }

// A code of `bits` bits at column k of zeroed [columns * bits / 8][32].
void PutCode(int code, int bits, int64_t k, int64_t lane, uint8_t* out) {
  const int64_t per_byte = 8 / bits;
  uint8_t& byte = out[k / per_byte * kPanelRows + lane];
  byte = static_cast<uint8_t>(byte | code << (k % per_byte * bits));
}

// --- One block `b` of a row of the file into row `lane` of `out` -----------------------------------------------------------------

void PackQ8_0(const uint8_t* b, int64_t lane, uint8_t* out) {
  PutHalf(b, lane, out);
  for (int k = 0; k < 32; ++k) out[kHalves + k * kPanelRows + lane] = b[2 + k];
}

// Q4_0 and Q4_1: `scales` F16 numbers, then column k low and k + 16 high.
void PackQ4(const uint8_t* b, int scales, int64_t lane, uint8_t* out) {
  for (int s = 0; s < scales; ++s) PutHalf(b + 2 * s, lane, out + s * kHalves);
  const uint8_t* q = b + 2 * scales;
  uint8_t* codes = out + scales * kHalves;
  for (int k = 0; k < 16; ++k) {
    PutCode(q[k] & 15, 4, k, lane, codes);
    PutCode(q[k] >> 4, 4, k + 16, lane, codes);
  }
}
void PackQ4_0(const uint8_t* b, int64_t lane, uint8_t* out) { PackQ4(b, 1, lane, out); }
void PackQ4_1(const uint8_t* b, int64_t lane, uint8_t* out) { PackQ4(b, 2, lane, out); }

void PackQ4_K(const uint8_t* b, int64_t lane, uint8_t* out) {
  PutHalf(b, lane, out);
  PutHalf(b + 2, lane, out + kHalves);
  out += 2 * kHalves;
  for (int s = 0; s < 8; ++s, out += 18 * kPanelRows) {
    const ScaleAndMin c = Q4KScale(b + 4, s);
    out[lane] = c.scale;
    out[kPanelRows + lane] = c.min;
    const uint8_t* q = b + 16 + s / 2 * 32;
    for (int k = 0; k < 32; ++k) PutCode(s % 2 == 0 ? q[k] & 15 : q[k] >> 4, 4, k, lane, out + 2 * kPanelRows);
  }
}

void PackQ6_K(const uint8_t* b, int64_t lane, uint8_t* out) {
  PutHalf(b + 208, lane, out);
  out += kHalves;
  for (int s = 0; s < 16; ++s, out += 13 * kPanelRows) {
    out[lane] = b[192 + s];
    for (int k = 0; k < 16; ++k) {
      const int code = Q6KCode(b, 16 * s + k) + 32;
      PutCode(code & 15, 4, k, lane, out + kPanelRows);
      PutCode(code >> 4, 2, k, lane, out + 9 * kPanelRows);
    }
  }
}

void PackGguf(const TensorView& t, const PackedPart& part, uint8_t* panels,
              void (*pack)(const uint8_t* b, int64_t lane, uint8_t* out)) {
  const BlockShape shape = BlockOf(t.dtype);
  const int64_t blocks = t.cols / shape.weights, packed_bytes = PackedBlockBytes(t);
  const auto* from = static_cast<const uint8_t*>(t.data);
  for (int64_t row = 0; row < t.rows; ++row) {
    uint8_t* panel = panels + row / kPanelRows * part.panel_bytes;
    for (int64_t i = 0; i < blocks; ++i, from += shape.bytes) pack(from, row % kPanelRows, panel + i * packed_bytes);
  }
}

// --- NF4 -------------------------------------------------------------------------------------------------------------------------

void PackNf4(const TensorView& t, const PackedPart& part, uint8_t* panels) {
  const Nf4Scales& s = *t.nf4;
  const bool nested = s.absmax_codes != nullptr;
  const int64_t blocks = t.cols / s.block, packed_bytes = PackedBlockBytes(t), scale_bytes = nested ? 1 : 4;
  const auto* codes = static_cast<const uint8_t*>(t.data);
  // Padding rows have scales too (nested_offset), so their codes must mean zero; bitsandbytes' table has one at 7.
  const int zero = static_cast<int>(std::find(s.table, s.table + 15, 0.0f) - s.table);
  for (int64_t row = 0; row < part.panels * kPanelRows; ++row) {
    uint8_t* panel = panels + row / kPanelRows * part.panel_bytes;
    const int64_t lane = row % kPanelRows;
    for (int64_t b = 0; b < blocks; ++b) {
      uint8_t* out = panel + b * packed_bytes;
      const int64_t index = row * blocks + b;
      if (row < t.rows) {
        const auto* absmax = nested ? s.absmax_codes : static_cast<const uint8_t*>(s.absmax);
        std::memcpy(out + lane * scale_bytes, absmax + index * scale_bytes, static_cast<size_t>(scale_bytes));
      }
      for (int64_t k = 0; k < s.block; ++k) {
        const int64_t i = index * s.block + k;  // the file has even columns high
        const int code = row >= t.rows ? zero : i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15;
        PutCode(code, 4, k, lane, out + scale_bytes * kPanelRows);
      }
    }
  }
}

}  // namespace

int64_t PackedBlockBytes(const TensorView& t) {
  switch (t.dtype) {
    case DType::kQ4_K: return 148 * kPanelRows;
    case DType::kNf4: return ((t.nf4->absmax_codes != nullptr ? 1 : 4) + t.nf4->block / 2) * kPanelRows;
    default: return BlockOf(t.dtype).bytes * kPanelRows;
  }
}

void PackBlocks(const TensorView& t, const PackedPart& part, uint8_t* panels) {
  switch (t.dtype) {
    case DType::kNf4: return PackNf4(t, part, panels);
    case DType::kQ8_0: return PackGguf(t, part, panels, PackQ8_0);
    case DType::kQ4_0: return PackGguf(t, part, panels, PackQ4_0);
    case DType::kQ4_1: return PackGguf(t, part, panels, PackQ4_1);
    case DType::kQ4_K: return PackGguf(t, part, panels, PackQ4_K);
    case DType::kQ6_K: return PackGguf(t, part, panels, PackQ6_K);
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16: return;
  }
}

}  // namespace rum
