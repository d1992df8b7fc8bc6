#include "model/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/exact_math.h"
#include "core/limits.h"
#include "model/json.h"
#include "model/policy_config.h"

namespace rum {
namespace {

constexpr std::string_view kArchitectures[] = {"llama", "qwen2", "qwen3"};

// Tokens that end an answer by their name, as llama.cpp takes them: one key holds one id, and chats end in several ways.
constexpr std::string_view kEndNames[] = {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"};
constexpr const char* kEndKeys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};

// Metadata of one architecture: "llama.block_count", ...
class ConfigReader {
 public:
  ConfigReader(GgufReader& in, std::string architecture) : in_(in), prefix_(std::move(architecture) + ".") {}
  std::string Key(const char* key) const { return prefix_ + key; }
  int32_t Count(const char* key, int64_t max, std::optional<int64_t> fallback = {}) {
    return static_cast<int32_t>(in_.Int(Key(key), 1, max, fallback));
  }
  double Number(const char* key, double min, double max, std::optional<double> fallback = {}) {
    return in_.Number(Key(key), min, max, fallback);
  }
  std::string String(const char* key, const char* fallback) { return in_.String(Key(key), fallback); }
  void Fail(const char* key, const std::string& problem) { in_.Fail(Key(key), problem); }
  void RefuseAboveZero(const char* key, const char* what) {
    if (in_.Int(Key(key), 0, INT64_MAX, 0) != 0) Fail(key, std::string("is not 0: ") + what + " not supported");
  }
  bool ok() const { return in_.status().ok(); }

 private:
  GgufReader& in_;
  std::string prefix_;
};

void ReadShape(ConfigReader& in, const TensorEntry* embed, ModelConfig& config) {
  config.num_layers = in.Count("block_count", kLayersMax);
  config.hidden_size = in.Count("embedding_length", kHiddenMax);
  config.intermediate_size = in.Count("feed_forward_length", kIntermediateMax);
  config.num_heads = in.Count("attention.head_count", kHeadsMax);
  config.num_kv_heads = in.Count("attention.head_count_kv", kHeadsMax, config.num_heads);
  config.max_positions = in.Count("context_length", kPositionsMax);
  if (!in.ok()) return;
  if (config.num_heads % config.num_kv_heads != 0) in.Fail("attention.head_count", "must be a multiple of attention.head_count_kv");
  const bool divides = config.hidden_size % config.num_heads == 0;
  config.head_dim = in.Count("attention.key_length", kHeadDimMax,
                             divides ? std::optional<int64_t>(config.hidden_size / config.num_heads) : std::nullopt);
  if (config.head_dim > kHeadDimMax || config.head_dim % 2 != 0) in.Fail("attention.key_length", "must be even and at most 1024");
  // Parts of a head that are not rotated, and values of another size than keys, are other computations.
  for (const char* key : {"attention.value_length", "rope.dimension_count"}) {
    if (in.Count(key, kHeadDimMax, config.head_dim) != config.head_dim) in.Fail(key, "differs from the keys' length, which is not supported");
  }
  if (!embed || embed->shape.size() != 2 || embed->shape[0] < 1 || embed->shape[0] > kVocabMax) {
    in.Fail("embedding_length", "has no tensor token_embd.weight [1 to " + std::to_string(kVocabMax) + " tokens, embedding_length]");
  } else {
    config.vocab_size = static_cast<int32_t>(embed->shape[0]);
  }
}

void RefuseUnsupported(ConfigReader& in, int32_t max_positions) {
  in.RefuseAboveZero("expert_count", "mixtures of experts are");
  if (in.Count("attention.sliding_window", INT64_MAX >> 32, max_positions) < max_positions) {
    in.Fail("attention.sliding_window", "is below the context, which is not supported: attention is full or DMS");
  }
}

RopeSpec ReadRope(ConfigReader& in, ModelConfig& config) {
  RopeSpec rope;
  rope.theta = in.Number("rope.freq_base", kRopeThetaMin, kRopeThetaMax, 10000.0);
  const std::string type = in.String("rope.scaling.type", "none");
  if (type == "none") return rope;
  if (type != "linear" && type != "yarn") {
    in.Fail("rope.scaling.type", Quote(type) + " is not supported; supported: none, linear, yarn");
    return rope;
  }
  rope.factor = in.Number("rope.scaling.factor", 1, kRopeFactorMax, 1.0);
  rope.type = type == "linear" ? RopeType::kLinear : RopeType::kYarn;
  if (rope.type == RopeType::kLinear) return rope;
  rope.original_positions = in.Count("rope.scaling.original_context_length", kPositionsMax, config.max_positions);
  rope.beta_fast = in.Number("rope.scaling.yarn_beta_fast", kRopeTurnsMin, kRopeTurnsMax, 32.0);
  rope.beta_slow = in.Number("rope.scaling.yarn_beta_slow", kRopeTurnsMin, kRopeTurnsMax, 1.0);
  if (rope.beta_fast < rope.beta_slow) in.Fail("rope.scaling.yarn_beta_fast", "must not be below yarn_beta_slow");
  if (rope.theta < kRopeYarnThetaMin) in.Fail("rope.freq_base", "must be at least 2 for yarn");
  rope.attention_factor = in.Number("rope.scaling.attn_factor", 0, kRopeFactorMax, 1.0) * (0.1 * LogD(rope.factor) + 1.0);
  const double stretched = std::min(rope.original_positions * rope.factor, static_cast<double>(kPositionsMax));
  config.max_positions = std::max(config.max_positions, static_cast<int32_t>(stretched));
  return rope;
}

// How converters write llama3's scaling: as a tensor of what each frequency is divided by.
void ReadDivisors(std::span<const uint8_t> file, const GgufHeader& header, GgufReader& in, ModelConfig& config) {
  const TensorEntry* tensor = header.FindTensor("rope_freqs.weight");
  if (!tensor) return;
  const auto count = static_cast<size_t>(config.head_dim / 2);
  if (tensor->dtype != "F32" || tensor->shape != std::vector<int64_t>{config.head_dim / 2} || config.rope.type != RopeType::kDefault) {
    return in.Fail("rope_freqs.weight", "must be F32 [head_dim / 2], without another scaling");
  }
  config.rope.divisors.resize(count);
  std::memcpy(config.rope.divisors.data(), file.data() + tensor->begin, count * sizeof(float));
  const auto usable = [](float f) { return f >= 1e-6f && static_cast<double>(f) <= kRopeFactorMax; };  // NaN is not
  if (!std::ranges::all_of(config.rope.divisors, usable)) in.Fail("rope_freqs.weight", "must be numbers from 1e-6 to 1e6");
}

void ReadTokenIds(GgufReader& in, ModelConfig& config) {
  config.bos_id = static_cast<int32_t>(in.Int("tokenizer.ggml.bos_token_id", 0, config.vocab_size - 1, -1));
  const auto add = [&](int32_t id) {
    if (std::ranges::find(config.eos_ids, id) == config.eos_ids.end()) config.eos_ids.push_back(id);
  };
  for (const char* key : kEndKeys) {
    if (in.Has(key)) add(static_cast<int32_t>(in.Int(key, 0, config.vocab_size - 1)));
  }
  const std::vector<std::string_view> tokens = in.Strings("tokenizer.ggml.tokens");
  if (tokens.size() > static_cast<size_t>(config.vocab_size)) in.Fail("tokenizer.ggml.tokens", "has more tokens than the embedding has rows");
  if (!in.status().ok()) return;
  for (const std::string_view name : kEndNames) {
    if (const auto it = std::ranges::find(tokens, name); it != tokens.end()) add(static_cast<int32_t>(it - tokens.begin()));
  }
}

}  // namespace

Expected<ModelConfig> ParseGgufConfig(std::span<const uint8_t> file, const GgufHeader& header, const std::string& where,
                                      const PolicyOverrides& overrides) {
  GgufReader in(header, where);
  ModelConfig config;
  config.model_type = in.String("general.architecture");
  if (in.status().ok() && std::ranges::find(kArchitectures, config.model_type) == std::end(kArchitectures)) {
    in.Fail("general.architecture", Quote(config.model_type) + " is not supported; supported: llama, qwen2, qwen3");
  }
  if (in.Int("split.count", 0, UINT16_MAX, 0) > 1) in.Fail("split.count", "says that this is one file of several; merge them first");
  if (!in.status().ok()) return in.status();

  ConfigReader architecture(in, config.model_type);
  ReadShape(architecture, header.FindTensor("token_embd.weight"), config);
  if (!in.status().ok()) return in.status();
  config.rms_eps = static_cast<float>(architecture.Number("attention.layer_norm_rms_epsilon", kRmsEpsMin, kRmsEpsMax));
  RefuseUnsupported(architecture, config.max_positions);
  config.rope = ReadRope(architecture, config);
  ReadDivisors(file, header, in, config);
  ReadTokenIds(in, config);
  if (!in.status().ok()) return in.status();

  config.qk_norm = config.model_type == "qwen3";
  config.qkv_bias = header.FindTensor("blk.0.attn_q.bias") != nullptr;
  config.o_bias = header.FindTensor("blk.0.attn_output.bias") != nullptr;
  config.policy.reason = "dense: a GGUF file has no DMS metadata";
  if (Status status = ApplyOverrides(overrides, config.policy); !status.ok()) return status;
  return config;
}

}  // namespace rum
