#include "baseline/softmax.h"

#include <algorithm>
#include <cmath>

#include "backend/reference/math.h"

namespace rum::baseline {
namespace {

inline void AttendInline(const Keys& keys, const float* q, float* weights, float* out) {
  const size_t n = keys.count, d = keys.head_dim;
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d)));
  for (size_t r = 0; r < n; ++r) weights[r] = reference::ChainSum(q, keys.k + r * d, d) * scale;
  float max = weights[0];
  for (size_t r = 1; r < n; ++r) max = std::max(max, weights[r]);
  reference::LaneSum<float> sum;
  for (size_t r = 0; r < n; ++r) {
    weights[r] = ExpF(weights[r] - max);
    sum.Add(r, weights[r]);
  }
  const float inv = 1.0f / sum.Total();
  std::fill(out, out + d, 0.0f);
  for (size_t r = 0; r < n; ++r) {
    for (size_t c = 0; c < d; ++c) out[c] = std::fma(weights[r], keys.v[r * d + c], out[c]);
  }
  for (size_t c = 0; c < d; ++c) out[c] = out[c] * inv;
  for (size_t r = 0; r < n; ++r) weights[r] = weights[r] * inv;
}

}  // namespace

#if defined(__x86_64__) && defined(__GNUC__)
namespace {
// The same code, and the same bits, with the instruction: else every fma is a call.
__attribute__((target("fma"), flatten)) void AttendFma(const Keys& keys, const float* q, float* weights, float* out) {
  AttendInline(keys, q, weights, out);
}
}  // namespace

void Attend(const Keys& keys, const float* q, float* weights, float* out) {
  static const bool has_fma = __builtin_cpu_supports("fma");
  (has_fma ? AttendFma : AttendInline)(keys, q, weights, out);
}
#else
void Attend(const Keys& keys, const float* q, float* weights, float* out) { AttendInline(keys, q, weights, out); }
#endif

}  // namespace rum::baseline
