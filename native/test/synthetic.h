// Models of any shape from a seed, in memory: odd head sizes, group sizes and weight types that no shipped checkpoint has.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "core/exact_math.h"
#include "model/quant.h"
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

// What the tensors of a synthetic model are stored as. Vectors of a block format's model are F32, as everywhere.
struct SyntheticTypes {
  SyntheticTypes(DType all) : dtype(all), v_down(all) {}
  SyntheticTypes(DType all, DType v_and_down) : dtype(all), v_down(v_and_down) {}
  DType dtype;
  DType v_down;  // v_proj and down_proj: GGUF files mix types there
  int32_t nf4_block = 64, nested_block = 64;
  bool nf4_double = true;
};

class SyntheticBuilder {
 public:
  SyntheticBuilder(SyntheticModel* out, const SyntheticTypes& types, uint64_t seed) : out_(out), types_(types), state_(seed * 2 + 1) {}

  // Uniform in [center - spread, center + spread].
  TensorView Tensor(int64_t rows, int64_t cols, float center, float spread) { return Tensor(types_.dtype, rows, cols, center, spread); }
  TensorView Tensor(DType dtype, int64_t rows, int64_t cols, float center, float spread) {
    if (!IsPlain(dtype)) {
      if (rows > 1) return dtype == DType::kNf4 ? Nf4(rows, cols, spread) : Blocks(dtype, rows, cols, spread);
      dtype = DType::kF32;
    }
    uint8_t* bytes = Allocate(rows * cols * ElementBytes(dtype));
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float f = center + spread * Uniform();
      if (dtype == DType::kF32) {
        std::memcpy(bytes + 4 * i, &f, 4);
      } else {
        const uint16_t h = dtype == DType::kBF16 ? ToBf16(f) : TruncateToF16(f);
        std::memcpy(bytes + 2 * i, &h, 2);
      }
    }
    return {dtype, rows, cols, bytes};
  }

 private:
  uint8_t* Allocate(int64_t bytes) {
    out_->storage.push_back(std::make_unique<std::vector<uint8_t>>(static_cast<size_t>(bytes)));
    return out_->storage.back()->data();
  }
  uint8_t* RandomBytes(int64_t count) {
    uint8_t* bytes = Allocate(count);
    for (int64_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(Next() >> 56);
    return bytes;
  }

  // Random codes are valid codes; the F16 scales are such that the weights fill [-spread, spread].
  TensorView Blocks(DType dtype, int64_t rows, int64_t cols, float spread) {
    const BlockShape shape = BlockOf(dtype);
    const int64_t count = rows * cols / shape.weights;
    uint8_t* bytes = RandomBytes(count * shape.bytes);
    const auto put = [&](uint8_t* at, float scale) {
      const uint16_t h = TruncateToF16(scale * (1.0f + 0.3f * Uniform()));
      std::memcpy(at, &h, 2);
    };
    for (uint8_t* b = bytes; b < bytes + count * shape.bytes; b += shape.bytes) {
      if (dtype == DType::kQ8_0) put(b, spread / 128.0f);
      if (dtype == DType::kQ4_0) put(b, spread / -8.0f);
      if (dtype == DType::kQ4_1) put(b, spread / 7.5f), put(b + 2, -spread);
      if (dtype == DType::kQ4_K) put(b, spread / (7.5f * 63.0f)), put(b + 2, spread / 63.0f);
      if (dtype == DType::kQ6_K) put(b + 208, spread / (32.0f * 128.0f));
    }
    return {dtype, rows, cols, bytes};
  }

  TensorView Nf4(int64_t rows, int64_t cols, float spread) {
    static constexpr float kTable[16] = {-1.0f, -0.6961928f, -0.52507305f, -0.39491749f, -0.28444138f, -0.18477343f, -0.09105004f, 0.0f,
                                         0.0795803f, 0.1609302f, 0.2461123f, 0.33791524f, 0.44070983f, 0.562617f, 0.72295684f, 1.0f};
    auto scales = std::make_shared<Nf4Scales>();
    std::memcpy(scales->table, kTable, sizeof kTable);
    scales->block = types_.nf4_block;
    const int64_t blocks = (rows * cols + scales->block - 1) / scales->block;
    const auto floats = [&](int64_t count, float center, float width) {
      uint8_t* bytes = Allocate(4 * count + 1) + 1;  // unaligned, as in a file
      for (int64_t i = 0; i < count; ++i) {
        const float f = center + width * Uniform();
        std::memcpy(bytes + 4 * i, &f, 4);
      }
      return bytes;
    };
    if (types_.nf4_double) {
      scales->nested_block = types_.nested_block;
      scales->absmax_codes = RandomBytes(blocks);
      scales->nested_absmax = floats((blocks + scales->nested_block - 1) / scales->nested_block, 0.5f * spread, 0.1f * spread);
      for (float& f : scales->nested_table) f = Uniform();
      scales->nested_offset = 0.5f * spread;
    } else {
      scales->absmax = floats(blocks, 0.7f * spread, 0.3f * spread);
    }
    out_->model.nf4_scales.push_back(scales);
    return {DType::kNf4, rows, cols, RandomBytes((rows * cols + 1) / 2), scales.get()};
  }

  uint64_t Next() { return state_ = state_ * 6364136223846793005u + 1442695040888963407u; }
  float Uniform() { return static_cast<float>(static_cast<int32_t>(Next() >> 32)) * (1.0f / 2147483648.0f); }

  SyntheticModel* out_;
  SyntheticTypes types_;
  uint64_t state_;
};

// config: the shape; qk_norm, biases and policy are honoured. The scale of the weights keeps activations near 1.
// surrogate_width: of a KVzap mlp; 0: linear.
inline std::shared_ptr<const Model> MakeSynthetic(const ModelConfig& config, const SyntheticTypes& types, uint64_t seed,
                                                  int64_t surrogate_width = 0) {
  auto owner = std::make_shared<SyntheticModel>();
  SyntheticBuilder b(owner.get(), types, seed);
  Model& m = owner->model;
  m.config = config;
  m.dtype = types.dtype;
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
    w.v_proj = b.Tensor(types.v_down, kv, hidden, 0.0f, in);
    w.o_proj = b.Tensor(hidden, q, 0.0f, 1.5f / std::sqrt(static_cast<float>(q)));
    w.gate_proj = b.Tensor(config.intermediate_size, hidden, 0.0f, in);
    w.up_proj = b.Tensor(config.intermediate_size, hidden, 0.0f, in);
    w.down_proj = b.Tensor(types.v_down, hidden, config.intermediate_size, 0.0f, 1.5f / std::sqrt(static_cast<float>(config.intermediate_size)));
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
    if (!config.policy.is_kvzap()) continue;
    KvzapLayer s;
    if (surrogate_width > 0) {
      s.in = b.Tensor(surrogate_width, hidden, 0.0f, 2.0f * in);
      s.in_bias = b.Tensor(1, surrogate_width, 0.0f, 0.5f);
    }
    const int64_t width = surrogate_width > 0 ? surrogate_width : hidden;
    s.out = b.Tensor(config.num_kv_heads, width, 0.0f, 2.0f / std::sqrt(static_cast<float>(width)));
    s.out_bias = b.Tensor(1, config.num_kv_heads, 0.0f, 0.2f);
    m.kvzap.push_back(s);
  }
  return {owner, &owner->model};
}

}  // namespace rum::test
