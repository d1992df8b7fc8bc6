// Matrix times columns, for every weight type. Part of kernels.inc.h, once per level.
#include "backend/cpu/quant.inc.h"

namespace rum {
namespace {

// How a panel of a plain type is read: kStep columns at a time, 16 rows each, from row `lane` of the panel on.
struct F32Weights {
  static constexpr int kStep = 1;
  using T = float;
  static RUM_INLINE void Read(const T* panel, int64_t k, int lane, Vec* w) { w[0] = Load(panel + k * kPanelRows + lane); }
};
struct F16Weights {
  static constexpr int kStep = 1;
  using T = uint16_t;
  static RUM_INLINE void Read(const T* panel, int64_t k, int lane, Vec* w) { w[0] = LoadF16(panel + k * kPanelRows + lane); }
};
struct Bf16Weights {
  static constexpr int kStep = 2;
  using T = uint16_t;
  static RUM_INLINE void Read(const T* panel, int64_t k, int lane, Vec* w) {
    LoadBf16Pairs(panel + k * kPanelRows + 2 * lane, &w[0], &w[1]);
  }
};

// Rows [lane, lane + 16 V) of a panel times NC columns: V * NC independent chains over k, begun at +0 or, with `resume`, at y.
template <class W, int V, int NC>
void LinearTile(const typename W::T* panel, int lane, int64_t cols, const float* x, int64_t x_stride, float* y, int64_t y_stride,
                bool resume) {
  Vec acc[NC][V];
#pragma GCC unroll 16
  for (int c = 0; c < NC; ++c) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) acc[c][v] = resume ? Load(y + c * y_stride + lane + 16 * v) : Zero();
  }
  for (int64_t k = 0; k < cols; k += W::kStep) {
    Vec w[V][W::kStep];
    if constexpr (NC <= 2) __builtin_prefetch(reinterpret_cast<const char*>(panel + k * kPanelRows) + 4096);
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) W::Read(panel, k, lane + 16 * v, w[v]);
#pragma GCC unroll 16
    for (int c = 0; c < NC; ++c) {
#pragma GCC unroll 2
      for (int s = 0; s < W::kStep; ++s) {
        const Vec b = Set1(x[c * x_stride + k + s]);
#pragma GCC unroll 2
        for (int v = 0; v < V; ++v) acc[c][v] = Fma(w[v][s], b, acc[c][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int c = 0; c < NC; ++c) {
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) Store(y + c * y_stride + lane + 16 * v, acc[c][v]);
  }
}

// One panel times all columns, in tiles that fit the registers.
template <class W>
void PanelTimes(const typename W::T* panel, int64_t cols, const float* x, int64_t x_stride, int32_t columns, float* y, int64_t y_stride,
                bool resume) {
  const bool wide = columns <= kWideColumnsMax || kWideColumnsMax == kColumnsMax;
  const int32_t tile_max = wide ? kWideColumnsMax : kColumnsMax;
  const int32_t tiles = (columns + tile_max - 1) / tile_max;
  const int32_t tile = (columns + tiles - 1) / tiles;  // even tiles: 16 columns are 8 + 8, not 12 + 4
  for (int32_t c = 0; c < columns; c += tile) {
    const float* xc = x + c * x_stride;
    float* yc = y + c * y_stride;
    const int n = static_cast<int>(MinOf(tile, columns - c));
    if (wide) {
      WithInt<kWideColumnsMax>(n, [&](auto nc) {
        LinearTile<W, 2, decltype(nc)::value>(panel, 0, cols, xc, x_stride, yc, y_stride, resume);
      });
    } else {
      for (int lane = 0; lane < kPanelRows; lane += 16) {
        WithInt<kColumnsMax>(n, [&](auto nc) {
          LinearTile<W, 1, decltype(nc)::value>(panel, lane, cols, xc, x_stride, yc, y_stride, resume);
        });
      }
    }
  }
}

// Panels [begin, end) of a part; y is at its first row. Padding columns of an odd K are zero weights: fma(0, x, acc) == acc.
template <class W>
void PlainPanels(const PackedPart& part, int64_t begin, int64_t end, const float* x, int64_t x_stride, int32_t columns, float* y,
                 int64_t y_stride) {
  for (int64_t p = begin; p < end; ++p) {
    const auto* panel = reinterpret_cast<const typename W::T*>(part.data + p * part.panel_bytes);
    PanelTimes<W>(panel, part.cols, x, x_stride, columns, y + p * kPanelRows, y_stride, false);
  }
}

// NC columns of P panels, dequantised in registers: 2 P NC independent chains over k.
template <class Q, int P, int NC>
void QuantColumns(const PackedPart& part, int64_t panel, const float* x, int64_t x_stride, float* y, int64_t y_stride) {
  Vec acc[NC][2 * P];
#pragma GCC unroll 16
  for (int c = 0; c < NC; ++c) {
#pragma GCC unroll 4
    for (int v = 0; v < 2 * P; ++v) acc[c][v] = Zero();
  }
  const typename Q::Tables tables(part);
  for (int64_t u = 0; u < part.cols / Q::kUnit; ++u, x += Q::kUnit) {
    typename Q::Unit unit[2 * P];
#pragma GCC unroll 4
    for (int v = 0; v < 2 * P; ++v) unit[v] = Q::Begin(part, panel + v / 2, u, v % 2 * 16);
    for (int k = 0; k < Q::kUnit; k += Q::kStep) {
      Vec w[2 * P][Q::kStep];
#pragma GCC unroll 4
      for (int v = 0; v < 2 * P; ++v) Q::Read(tables, unit[v], k, w[v]);
#pragma GCC unroll 16
      for (int c = 0; c < NC; ++c) {
#pragma GCC unroll 4
        for (int s = 0; s < Q::kStep; ++s) {
          const Vec b = Set1(x[c * x_stride + k + s]);
#pragma GCC unroll 4
          for (int v = 0; v < 2 * P; ++v) acc[c][v] = Fma(w[v][s], b, acc[c][v]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int c = 0; c < NC; ++c) {
#pragma GCC unroll 4
    for (int v = 0; v < 2 * P; ++v) Store(y + c * y_stride + 16 * v, acc[c][v]);
  }
}

// Many columns: kTileColumns columns of a panel are dequantised once, then all columns of x go on from their sums in y.
template <class Q>
void QuantPanel(const PackedPart& part, int64_t panel, const float* x, int64_t x_stride, int32_t columns, float* y, int64_t y_stride) {
  constexpr int kTileColumns = 64;
  alignas(64) float tile[kTileColumns * kPanelRows];
  const typename Q::Tables tables(part);
  for (int64_t k0 = 0; k0 < part.cols; k0 += kTileColumns) {
    const int64_t width = MinOf(kTileColumns, part.cols - k0);
    for (int64_t k1 = 0; k1 < width; k1 += Q::kUnit) {
      for (int lane = 0; lane < kPanelRows; lane += 16) {
        const typename Q::Unit unit = Q::Begin(part, panel, (k0 + k1) / Q::kUnit, lane);
        for (int k = 0; k < Q::kUnit; k += Q::kStep) {
          Vec w[Q::kStep];
          Q::Read(tables, unit, k, w);
#pragma GCC unroll 4
          for (int s = 0; s < Q::kStep; ++s) Store(tile + (k1 + k + s) * kPanelRows + lane, w[s]);
        }
      }
    }
    PanelTimes<F32Weights>(tile, width, x + k0, x_stride, columns, y, y_stride, k0 != 0);
  }
}

template <class Q>
void QuantPanels(const PackedPart& part, int64_t begin, int64_t end, const float* x, int64_t x_stride, int32_t columns, float* y,
                 int64_t y_stride) {
  int64_t p = begin;
  // One column has too few chains in a panel to keep the FMA units busy.
  if (columns == 1) {
    for (; p + kQuantPanels <= end; p += kQuantPanels) {
      QuantColumns<Q, kQuantPanels, 1>(part, p, x, x_stride, y + p * kPanelRows, y_stride);
    }
  }
  for (; p < end; ++p) {
    float* out = y + p * kPanelRows;
    if (columns > kQuantColumns) {
      QuantPanel<Q>(part, p, x, x_stride, columns, out, y_stride);
    } else {
      WithInt<kQuantColumns>(columns, [&](auto nc) { QuantColumns<Q, 1, decltype(nc)::value>(part, p, x, x_stride, out, y_stride); });
    }
  }
}

void LinearPart(const PackedPart& part, int64_t begin, int64_t end, const float* x, int64_t x_stride, int32_t columns, float* y,
                int64_t y_stride) {
  switch (part.dtype) {
    case DType::kF32: return PlainPanels<F32Weights>(part, begin, end, x, x_stride, columns, y, y_stride);
    case DType::kF16: return PlainPanels<F16Weights>(part, begin, end, x, x_stride, columns, y, y_stride);
    case DType::kBF16: return PlainPanels<Bf16Weights>(part, begin, end, x, x_stride, columns, y, y_stride);
    case DType::kNf4: return QuantPanels<Nf4Weights>(part, begin, end, x, x_stride, columns, y, y_stride);
    case DType::kQ8_0: return QuantPanels<Q8_0Weights>(part, begin, end, x, x_stride, columns, y, y_stride);
    case DType::kQ4_0: return QuantPanels<Q4_0Weights>(part, begin, end, x, x_stride, columns, y, y_stride);
    case DType::kQ4_1: return QuantPanels<Q4_1Weights>(part, begin, end, x, x_stride, columns, y, y_stride);
    case DType::kQ4_K: return QuantPanels<Q4_KWeights>(part, begin, end, x, x_stride, columns, y, y_stride);
    case DType::kQ6_K: return QuantPanels<Q6_KWeights>(part, begin, end, x, x_stride, columns, y, y_stride);
  }
}

void Linear(const PackedMatrix& m, const float* x, int64_t x_stride, int32_t columns, float* y, int64_t y_stride, int64_t panel_begin,
            int64_t panel_end) {
  for (int32_t i = 0; i < m.part_count; ++i) {
    const PackedPart& part = m.parts[i];
    const int64_t begin = panel_begin > part.panel_begin ? panel_begin - part.panel_begin : 0;
    const int64_t end = MinOf(panel_end - part.panel_begin, part.panels);
    if (begin < end) LinearPart(part, begin, end, x, x_stride, columns, y + part.panel_begin * kPanelRows, y_stride);
  }
}

}  // namespace
}  // namespace rum
