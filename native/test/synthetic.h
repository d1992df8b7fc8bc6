// Models of any shape from a seed, in memory: odd head sizes, group sizes and weight types that no shipped checkpoint has.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "core/exact_math.h"
#include "model/weights.h"

namespace rum::test {

struct SyntheticModel {
  Model model;
  std::vector<std::unique_ptr<std::vector<uint8_t>>> storage;
};

// Nearest F16 by truncation; enough to make bit patterns, the widening is what is tested.
inline uint16_t TruncateToF16(float f) {
  const auto u = std::bit_cast<uint32_t>(f);
  const int32_t e = static_cast<int32_t>((u >> 23) & 0xffu) - 112;
  const uint32_t sign = (u >> 16) & 0x8000u;
  if (e <= 0) return static_cast<uint16_t>(sign | ((u >> 13) & 0x3ffu));  // a small subnormal of the same sign
  return static_cast<uint16_t>(sign | (static_cast<uint32_t>(e) << 10) | ((u >> 13) & 0x3ffu));
}

class SyntheticBuilder {
 public:
  SyntheticBuilder(SyntheticModel* out, DType dtype, uint64_t seed) : out_(out), dtype_(dtype), state_(seed * 2 + 1) {}

  // Uniform in [center - spread, center + spread].
  TensorView Tensor(int64_t rows, int64_t cols, float center, float spread) {
    auto bytes = std::make_unique<std::vector<uint8_t>>(static_cast<size_t>(rows * cols * ElementBytes(dtype_)));
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float f = center + spread * Uniform();
      if (dtype_ == DType::kF32) {
        std::memcpy(bytes->data() + 4 * i, &f, 4);
      } else {
        const uint16_t h = dtype_ == DType::kBF16 ? ToBf16(f) : TruncateToF16(f);
        std::memcpy(bytes->data() + 2 * i, &h, 2);
      }
    }
    out_->storage.push_back(std::move(bytes));
    return {dtype_, rows, cols, out_->storage.back()->data()};
  }

 private:
  float Uniform() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<float>(static_cast<int32_t>(state_ >> 32)) * (1.0f / 2147483648.0f);
  }
  SyntheticModel* out_;
  DType dtype_;
  uint64_t state_;
};

// config: the shape; qk_norm, biases and policy are honoured. The scale of the weights keeps activations near 1.
inline std::shared_ptr<const Model> MakeSynthetic(const ModelConfig& config, DType dtype, uint64_t seed) {
  auto owner = std::make_shared<SyntheticModel>();
  SyntheticBuilder b(owner.get(), dtype, seed);
  Model& m = owner->model;
  m.config = config;
  m.dtype = dtype;
  const int64_t hidden = config.hidden_size, q = int64_t{config.num_heads} * config.head_dim, kv = int64_t{config.num_kv_heads} * config.head_dim;
  const float in = 1.5f / std::sqrt(static_cast<float>(hidden));
  m.embed = b.Tensor(config.vocab_size, hidden, 0.0f, 1.0f);
  m.lm_head = b.Tensor(config.vocab_size, hidden, 0.0f, in);
  m.final_norm = b.Tensor(1, hidden, 1.0f, 0.2f);
  for (int32_t i = 0; i < config.num_layers; ++i) {
    LayerWeights w;
    w.input_norm = b.Tensor(1, hidden, 1.0f, 0.2f);
    w.post_norm = b.Tensor(1, hidden, 1.0f, 0.2f);
    w.q_proj = b.Tensor(q, hidden, 0.0f, 2.0f * in);
    w.k_proj = b.Tensor(kv, hidden, 0.0f, 2.0f * in);
    w.v_proj = b.Tensor(kv, hidden, 0.0f, in);
    w.o_proj = b.Tensor(hidden, q, 0.0f, 1.5f / std::sqrt(static_cast<float>(q)));
    w.gate_proj = b.Tensor(config.intermediate_size, hidden, 0.0f, in);
    w.up_proj = b.Tensor(config.intermediate_size, hidden, 0.0f, in);
    w.down_proj = b.Tensor(hidden, config.intermediate_size, 0.0f, 1.5f / std::sqrt(static_cast<float>(config.intermediate_size)));
    if (config.qk_norm) {
      w.q_norm = b.Tensor(1, config.head_dim, 1.0f, 0.2f);
      w.k_norm = b.Tensor(1, config.head_dim, 1.0f, 0.2f);
    }
    if (config.qkv_bias) {
      w.q_bias = b.Tensor(1, q, 0.0f, 0.5f);
      w.k_bias = b.Tensor(1, kv, 0.0f, 0.5f);
      w.v_bias = b.Tensor(1, kv, 0.0f, 0.5f);
    }
    if (config.o_bias) w.o_bias = b.Tensor(1, hidden, 0.0f, 0.5f);
    if (config.policy.kind == PolicyKind::kDmsSeparate) {
      if (config.alpha_bias) w.alpha_bias = b.Tensor(1, config.num_kv_heads, 0.0f, 0.2f);
      w.alpha_proj = b.Tensor(config.num_kv_heads, hidden, 0.0f, in);
      w.alpha_norm = b.Tensor(1, hidden, 1.0f, 0.2f);
    }
    m.layers.push_back(w);
  }
  return {owner, &owner->model};
}

}  // namespace rum::test
