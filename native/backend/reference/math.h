// The sums and functions of docs/NUMERICS.md as plain scalar loops. Compiled with -ffp-contract=off.
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/exact_math.h"

namespace rum::reference {

// acc = +0; k ascending: acc = fma(a[k], b[k], acc).
inline float ChainSum(const float* a, const float* b, size_t n) {
  float acc = 0.0f;
  for (size_t k = 0; k < n; ++k) acc = std::fma(a[k], b[k], acc);
  return acc;
}

// 16 partial sums; element i goes to lane i mod 16, in ascending order; folded 8, 4, 2, 1.
template <class T>
class LaneSum {
 public:
  void AddSquare(size_t i, T x) { lane_[i % 16] = std::fma(x, x, lane_[i % 16]); }
  void Add(size_t i, T x) { lane_[i % 16] = lane_[i % 16] + x; }
  T Total() const {
    std::array<T, 16> s = lane_;
    for (size_t width = 8; width >= 1; width /= 2) {
      for (size_t i = 0; i < width; ++i) s[i] = s[i] + s[i + width];
    }
    return s[0];
  }

 private:
  std::array<T, 16> lane_ = {};
};

// y[i] = (x[i] * inv) * w[i], inv = 1 / sqrt(mean square + eps). y may be x.
inline void RmsNorm(const float* x, const float* w, size_t n, float eps, float* y) {
  LaneSum<float> squares;
  for (size_t i = 0; i < n; ++i) squares.AddSquare(i, x[i]);
  const float inv = 1.0f / std::sqrt(squares.Total() / static_cast<float>(n) + eps);
  for (size_t i = 0; i < n; ++i) y[i] = (x[i] * inv) * w[i];
}

// cos and sin of every pair of one position.
struct RopeTable {
  std::vector<float> cos, sin;  // [head_dim / 2]
};

inline RopeTable MakeRopeTable(const std::vector<float>& frequencies, double attention_factor, int32_t position) {
  RopeTable table;
  for (const float frequency : frequencies) {
    float c, s;
    RopeAngle(position, frequency, attention_factor, &c, &s);
    table.cos.push_back(c);
    table.sin.push_back(s);
  }
  return table;
}

// Half-split pairs (i, i + head_dim / 2), in place.
inline void Rope(const RopeTable& table, float* x) {
  const size_t half = table.cos.size();
  for (size_t i = 0; i < half; ++i) {
    const float low = x[i], high = x[i + half], c = table.cos[i], s = table.sin[i];
    x[i] = std::fma(low, c, -(high * s));
    x[i + half] = std::fma(high, c, low * s);
  }
}

// In place: s -> exp(s - max). Returns 1 / sum, which the caller multiplies onto the weighted sum of V.
inline float SoftmaxNumerators(std::vector<float>& s) {
  float max = s[0];
  for (const float x : s) max = std::max(max, x);
  LaneSum<float> sum;
  for (size_t r = 0; r < s.size(); ++r) {
    s[r] = ExpF(s[r] - max);
    sum.Add(r, s[r]);
  }
  return 1.0f / sum.Total();
}

}  // namespace rum::reference
