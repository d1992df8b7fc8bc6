// Log-probabilities of the tokens of one chain, and of the likeliest ones in the place of each: the model's own distribution, before
// penalties, biases, masks, temperature and filters (docs/NUMERICS.md).
#pragma once
#include <cstdint>
#include <vector>

namespace rum {

inline constexpr int32_t kTopLogprobsMax = 20;

struct Logprobs {
  int32_t top = -1;               // alternatives for each token; -1: nothing is kept
  std::vector<float> tokens = {};     // [tokens]
  std::vector<int32_t> top_ids = {};  // [tokens, top] best first, equals by id
  std::vector<float> top_values = {};  // [tokens, top]

  bool kept() const { return top >= 0; }
  void Reserve(size_t count) {
    if (!kept()) return;
    tokens.reserve(count);
    top_ids.reserve(count * static_cast<size_t>(top));
    top_values.reserve(count * static_cast<size_t>(top));
  }
  // Those of tokens [begin, end), both within what there is.
  Logprobs Slice(size_t begin, size_t end) const {
    Logprobs part;
    part.top = top;
    if (!kept()) return part;
    const auto k = static_cast<size_t>(top);
    part.tokens.assign(tokens.begin() + static_cast<std::ptrdiff_t>(begin), tokens.begin() + static_cast<std::ptrdiff_t>(end));
    part.top_ids.assign(top_ids.begin() + static_cast<std::ptrdiff_t>(begin * k), top_ids.begin() + static_cast<std::ptrdiff_t>(end * k));
    part.top_values.assign(top_values.begin() + static_cast<std::ptrdiff_t>(begin * k), top_values.begin() + static_cast<std::ptrdiff_t>(end * k));
    return part;
  }
  // `more` has the same `top`.
  void Append(const Logprobs& more) {
    tokens.insert(tokens.end(), more.tokens.begin(), more.tokens.end());
    top_ids.insert(top_ids.end(), more.top_ids.begin(), more.top_ids.end());
    top_values.insert(top_values.end(), more.top_values.begin(), more.top_values.end());
  }
};

}  // namespace rum
