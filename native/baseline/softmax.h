// Attention of one query over contiguous keys, in the arithmetic of docs/NUMERICS.md, that also gives the weights.
#pragma once
#include <cstddef>

namespace rum::baseline {

struct Keys {
  const float* k;  // [count, head_dim]
  const float* v;
  size_t count;    // at least 1
  size_t head_dim;
};

// q, out [head_dim]; weights [count]: the softmax.
void Attend(const Keys& keys, const float* q, float* weights, float* out);

}  // namespace rum::baseline
