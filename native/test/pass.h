// One pass of a synthetic model through a backend, and everything it leaves behind: what the law of bits compares.
#pragma once
#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "test/check.h"
#include "test/synthetic.h"

namespace rum::test {

struct Shape {
  const char* name;
  int32_t vocab, hidden, intermediate, layers, heads, kv_heads, head_dim, window;
  PolicyKind policy;
  bool alpha_per_layer, qk_norm;
  SyntheticTypes types;
  KvType kv;
  // Of the query, key and value projections; of those, the output and the alpha projection.
  enum class Bias { kNone, kQkv, kAll } bias = Bias::kNone;
  RopeType rope = RopeType::kDefault;
};
using Bias = Shape::Bias;

// Original contexts so short that every band of channels occurs in a test's tokens.
inline RopeSpec RopeOf(RopeType type) {
  RopeSpec rope;
  rope.type = type;
  if (type != RopeType::kDefault) rope.factor = 4.0;
  rope.original_positions = 64;
  rope.low_freq_factor = 1.0;
  rope.high_freq_factor = 4.0;
  rope.beta_fast = 8.0;
  if (type == RopeType::kYarn) rope.attention_factor = 1.1386294361119891;
  return rope;
}

inline ModelConfig ConfigOf(const Shape& s) {
  ModelConfig c;
  c.model_type = "synthetic";
  c.vocab_size = s.vocab;
  c.hidden_size = s.hidden;
  c.intermediate_size = s.intermediate;
  c.num_layers = s.layers;
  c.num_heads = s.heads;
  c.num_kv_heads = s.kv_heads;
  c.head_dim = s.head_dim;
  c.max_positions = 512;
  c.qk_norm = s.qk_norm;
  c.qkv_bias = s.bias != Bias::kNone;
  c.o_bias = c.alpha_bias = s.bias == Bias::kAll;
  c.rope = RopeOf(s.rope);
  c.policy.kind = s.policy;
  c.policy.window = s.window;
  c.policy.alpha_per_layer = s.alpha_per_layer;
  c.policy.alpha_scale = 10.0f;
  c.policy.alpha_offset = s.policy == PolicyKind::kDmsBorrowed ? -2.0f : 0.5f;  // both decisions occur often
  return c;
}

// Everything a pass leaves behind.
struct Outcome {
  std::vector<float> logits;  // [T, vocab]
  std::vector<HeadSnapshot> heads;
  int64_t live = 0;
  bool operator==(const Outcome& o) const {
    if (live != o.live || heads.size() != o.heads.size() || logits.size() != o.logits.size()) return false;
    if (std::memcmp(logits.data(), o.logits.data(), logits.size() * 4) != 0) return false;
    for (size_t i = 0; i < heads.size(); ++i) {
      const HeadSnapshot &a = heads[i], &b = o.heads[i];
      if (a.positions != b.positions || std::memcmp(a.k.data(), b.k.data(), a.k.size() * 4) != 0 ||
          std::memcmp(a.v.data(), b.v.data(), a.v.size() * 4) != 0) {
        return false;
      }
    }
    return true;
  }
};

inline std::vector<int32_t> Tokens(int32_t count, int32_t vocab, uint32_t seed) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    ids.push_back(static_cast<int32_t>((seed >> 8) % static_cast<uint32_t>(vocab)));
  }
  return ids;
}

// Feeds ids in chunks; beside it `company` other chains are fed in the same calls.
inline Outcome Pass(Backend& backend, const ModelConfig& config, const std::vector<int32_t>& ids, int32_t chunk, int32_t company = 0) {
  Outcome out;
  auto chain = backend.NewChain();
  CHECK_OK(chain.status());
  std::vector<ChainId> others;
  for (int32_t c = 0; c < company; ++c) others.push_back(*backend.NewChain());
  const auto vocab = static_cast<size_t>(config.vocab_size);
  for (size_t at = 0; at < ids.size(); at += static_cast<size_t>(chunk)) {
    const size_t n = std::min(static_cast<size_t>(chunk), ids.size() - at);
    std::vector<Row> rows;
    for (const ChainId other : others) rows.push_back({other, ids[(at + 7 + static_cast<size_t>(other)) % ids.size()], false});
    for (size_t i = 0; i < n; ++i) rows.push_back({*chain, ids[at + i], true});
    std::vector<float> logits(n * vocab);
    CHECK_OK(backend.Forward(rows, logits.data()));
    out.logits.insert(out.logits.end(), logits.begin(), logits.end());
  }
  for (int32_t l = 0; l < config.num_layers; ++l) {
    for (int32_t h = 0; h < config.num_kv_heads; ++h) out.heads.push_back(backend.Snapshot(*chain, l, h));
  }
  out.live = backend.LiveSum(*chain);
  backend.FreeChain(*chain);
  for (const ChainId other : others) backend.FreeChain(other);
  return out;
}

// What every other backend, level and way of feeding is compared with.
inline Outcome ReferencePass(const std::shared_ptr<const Model>& model, const std::vector<int32_t>& ids, KvType kv) {
  BackendOptions options;
  options.kv = kv;
  auto reference = MakeReferenceBackend(model, options);
  CHECK_OK(reference.status());
  return Pass(**reference, model->config, ids, 1);
}

inline std::vector<Isa> Levels() {
  std::vector<Isa> levels;
  for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (ResolveIsa(isa).ok()) levels.push_back(isa);
  }
  return levels;
}

}  // namespace rum::test
