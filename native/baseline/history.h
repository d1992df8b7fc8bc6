// What one KV head holds under a baseline, in ascending order of position. A token that goes is gone.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

namespace rum::baseline {

struct History {
  std::vector<int32_t> positions;  // [n]
  std::vector<float> k, v;         // [n, head_dim]; k after RoPE, both rounded to the KV type
  std::vector<double> mass;        // [n] H2O: attention received so far, summed over the group; else empty

  size_t size() const { return positions.size(); }

  // Keeps these indices, ascending.
  void Keep(std::span<const int32_t> indices, size_t head_dim) {
    const auto gather = [&](auto& values, size_t width) {
      size_t to = 0;
      for (const int32_t index : indices) {
        const auto from = values.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(index) * width);
        std::copy_n(from, width, values.begin() + static_cast<std::ptrdiff_t>(width * to++));
      }
      values.resize(width * to);
    };
    gather(positions, 1);
    gather(k, head_dim);
    gather(v, head_dim);
    if (!mass.empty()) gather(mass, 1);
  }
};

// Indices of the `count` highest scores, ascending; of equal ones the later. NaN is below all: what made it ends in ERR_NUMERICS.
template <class T>
std::vector<int32_t> Highest(std::span<const T> scores, size_t count) {
  std::vector<int32_t> indices(scores.size());
  std::iota(indices.begin(), indices.end(), 0);
  const auto score = [&](int32_t index) {
    const T x = scores[static_cast<size_t>(index)];
    return x == x ? x : -std::numeric_limits<T>::infinity();
  };
  const auto higher = [&](int32_t a, int32_t b) {
    const T x = score(a), y = score(b);
    return x > y || (x == y && a > b);
  };
  if (count < indices.size()) {
    std::ranges::nth_element(indices, indices.begin() + static_cast<std::ptrdiff_t>(count), higher);
    indices.resize(count);
    std::ranges::sort(indices);
  }
  return indices;
}

}  // namespace rum::baseline
