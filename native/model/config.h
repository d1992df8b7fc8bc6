// What a model directory says of itself: shapes, RoPE, end-of-sequence ids and the cache policy its weights were trained for.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "baseline/spec.h"
#include "core/status.h"
#include "model/rope.h"

namespace rum {

enum class PolicyKind : int32_t {
  kDense, kDmsBorrowed, kDmsSeparate,
  kTova, kTovaHead, kH2o, kQuest, kStreaming, kKvpress,  // for evaluation: native/baseline
};

// Parameters of a cache policy (METHOD.md 1.2, 1.6).
struct PolicySpec {
  PolicyKind kind = PolicyKind::kDense;
  bool is_dms() const { return kind == PolicyKind::kDmsBorrowed || kind == PolicyKind::kDmsSeparate; }
  bool is_baseline() const { return kind >= PolicyKind::kTova; }
  int32_t window = 0;             // tokens before the current one that are always visible; dense keeps all and uses 0
  float alpha_scale = 100.0f;
  float alpha_offset = 5.0f;
  bool alpha_per_layer = false;   // separate: KV head 0's logit decides for all KV heads
  bool disable_eviction = false;  // all decisions 0; the borrowed channel is still zeroed
  float target_cr = 1.0f;         // dms_cr: documentation, not used by the engine
  BaselineSpec baseline;          // of the policies for evaluation
  std::string reason;             // why this flavour was chosen, one sentence for `ruminate model inspect`
};

struct ModelConfig {
  std::string model_type;         // "llama", "qwen2" or "qwen3"
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t intermediate_size = 0;
  int32_t num_layers = 0;
  int32_t num_heads = 0;          // query heads
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;           // may differ from hidden_size / num_heads
  int32_t max_positions = 0;
  float rms_eps = 1e-6f;
  RopeSpec rope;
  std::optional<bool> tie_word_embeddings;  // as config.json states it
  bool tied_embeddings = false;   // what came of it: the embeddings are the head too
  bool qk_norm = false;           // Qwen3: RMSNorm over head_dim of q and k before RoPE
  bool qkv_bias = false;          // of the query, key and value projections
  bool o_bias = false;            // of the output projection
  bool alpha_bias = false;        // of the DMS alpha projection, where there is one
  std::string dtype;              // as the config states it, e.g. "float32"
  std::vector<int32_t> eos_ids;   // generation_config.json first, then config.json
  int32_t bos_id = -1;            // -1: none
  PolicySpec policy;

  int32_t group() const { return num_heads / num_kv_heads; }
  // Bytes of K and V of one token over all layers and KV heads.
  int64_t KvBytesPerToken(int32_t element_bytes) const {
    return int64_t{2} * num_layers * num_kv_heads * head_dim * element_bytes;
  }
};

// key=value pairs from the caller, applied over the policy the directory states. Keys: policy (dense|dms|auto), window,
// alpha_scale, alpha_offset, alpha_per (head|layer), disable_eviction (true|false). policy may also name a
// baseline, with parameters of its own (baseline/options.h). An unknown key or value is ERR_OPTION.
using PolicyOverrides = std::vector<std::pair<std::string, std::string>>;

// The texts of a directory's configuration files; empty: no such file.
struct ConfigTexts {
  std::string_view config;             // config.json
  std::string_view generation = {};    // generation_config.json
  std::string_view dms_metadata = {};  // dms_metadata.json
  std::string_view training_log = {};  // training_log.json of the parent directory
};

// Parses config.json (both dialects, METHOD.md 5) and what stands beside it. A missing optional value is the one that
// transformers' class for the architecture takes. Every number is bounded (limits.h); an unknown architecture or rope type is
// named in the error.
Expected<ModelConfig> ParseConfig(const ConfigTexts& texts, const PolicyOverrides& overrides);

}  // namespace rum
