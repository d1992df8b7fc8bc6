// The kernels of the exact mode, one table per instruction-set level; every level gives the same bits (docs/NUMERICS.md).
#pragma once
#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/packed.h"
#include "cache/layout.h"

namespace rum {

inline constexpr int64_t kWeightBlock = 256;          // candidates of a sum of weights: about the root of a large vocabulary
inline constexpr double kWeightExponentMin = -37.0;  // below it a weight is 0: a 53-bit random number resolves no less

// What a logit weighs when a token is drawn: with x = (logit - top) * scale in double, 0 if x < kWeightExponentMin, else ExpD(x), and
// 0 if that is below `least`.
struct WeightRule {
  double top, scale, least;
};

struct Kernels {
  Isa isa;
  // y[c][r] = chain over k of (W[r][k], x[c][k]) for the rows of panels [panel_begin, panel_end) and all columns c < columns.
  // x [columns][x_stride], readable and zero up to the next even column; y [columns][y_stride], padding rows get +0.
  void (*linear)(const PackedMatrix& w, const float* x, int64_t x_stride, int32_t columns, float* y, int64_t y_stride,
                 int64_t panel_begin, int64_t panel_end);
  // y = RMSNorm(x; w, eps), all [n]; y may be x.
  void (*rms_norm)(const float* x, const float* w, float eps, int64_t n, float* y);
  // Half-split RoPE in place. x [2 * half]; cos, sin [half].
  void (*rope)(float* x, const float* cos, const float* sin, int64_t half);
  // cos and sin [half] of position * inv_freq: RopeAngle of core/exact_math.h for each.
  void (*rope_angles)(int32_t position, const float* inv_freq, double attention_factor, int64_t half, float* cos, float* sin);
  // out = silu(gate) * up, all [n]; out may be gate.
  void (*silu_mul)(const float* gate, const float* up, float* out, int64_t n);
  // Copies [n]; false if a value is not finite.
  bool (*copy_finite)(const float* from, float* to, int64_t n);
  // h += y, both [n].
  void (*add)(float* h, const float* y, int64_t n);
  // Attention of the `group` query heads of one KV head. q, out [group][head_dim]; scratch: AttendScratchFloats.
  void (*attend)(const CacheLayout& layout, const HeadView& view, const float* q, int32_t group, float scale, float* scratch,
                 float* out);
  // The largest of each kWeightBlock of x [n]; of the last, shorter one too.
  void (*block_maxima)(const float* x, int64_t n, float* maxima);
  // first + i for each x[i] >= least of x [n], ascending; returns how many.
  int64_t (*select_at_least)(const float* x, int64_t n, float least, int32_t first, int32_t* ids);
  // The sum of the weights of each kWeightBlock of logits [n], by lanes in double (docs/NUMERICS.md).
  void (*weight_sums)(const float* logits, int64_t n, const WeightRule& rule, double* sums);
  // The weights themselves [n].
  void (*weights)(const float* logits, int64_t n, const WeightRule& rule, double* weights);
};

// Floats of scratch that attend needs for `live` keys at most.
inline int64_t AttendScratchFloats(const CacheLayout& layout, int32_t group, int64_t live) {
  const int64_t row = RoundUp(live, kLanes) + layout.page_k_slots + 64;
  return group * (row + layout.ring_k_slots) + 64;
}

// nullptr: this build or this machine does not have the level.
const Kernels* PortableKernels();
const Kernels* Avx2Kernels();
const Kernels* Avx512Kernels();
const Kernels* KernelsFor(Isa isa);

}  // namespace rum
