// A Model's weights as the cpu backend keeps them: matrices in panels, vectors widened.
#pragma once
#include <cstdint>
#include <vector>

#include "backend/cpu/packed.h"
#include "model/weights.h"

namespace rum {

struct PackedLayer {
  std::vector<float> input_norm, post_norm;  // [hidden]
  std::vector<float> q_norm, k_norm;         // [head_dim] or empty
  PackedMatrix qkv;                          // q [heads * head_dim] | k | v [kv_heads * head_dim], all [., hidden]
  std::vector<float> qkv_bias;               // [rows of qkv], zero in its padding, or empty
  PackedMatrix o;                            // [hidden, heads * head_dim]
  std::vector<float> o_bias;                 // [hidden] or empty
  PackedMatrix gate_up;                      // gate | up [intermediate, hidden]
  PackedMatrix down;                         // [hidden, intermediate]
};

struct PackedModel {
  std::vector<PackedLayer> layers;
  PackedMatrix head;               // [vocab, hidden]
  std::vector<float> final_norm;   // [hidden]
  std::vector<float> frequencies;  // of RoPE, [head_dim / 2]

  // False when memory cannot be had.
  bool Pack(const Model& model);
  int64_t bytes() const;  // of the matrices
};

}  // namespace rum
