// The seam between a backend's dense parts and the caches of the baselines: attention of one token in one layer. A backend that has
// been given one calls it in place of its own cache.
#pragma once
#include <cstdint>

#include "backend/backend.h"

namespace rum::baseline {

class Attention {
 public:
  virtual ~Attention() = default;
  // Takes in the K and V of the token at `position` and attends with its queries over what the policy shows them, itself included.
  // q, out [heads, head_dim]; k, v [kv_heads, head_dim]; q and k after RoPE. live [kv_heads]: the tokens read, written.
  // Tokens of one chain come in order within a layer. Different chains may come from different threads.
  virtual void Attend(const Row& row, int32_t layer, int32_t position, const float* q, const float* k, const float* v, float* out,
                      int32_t* live) = 0;
};

}  // namespace rum::baseline
