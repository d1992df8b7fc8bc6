#include "model/config.h"

#include <algorithm>

#include "core/limits.h"
#include "model/json.h"
#include "model/policy_config.h"

namespace rum {

namespace dom = simdjson::dom;

namespace {

// One row per architecture the engine computes. A row and its tensors in weights.cc are all a new one needs.
struct Architecture {
  std::string_view model_type;
  std::string_view class_names[2];  // accepted in "architectures": the base class and Model-Optimizer's DMS subclass
  bool qk_norm;
  bool qkv_bias;              // whatever attention_bias says
  bool reads_attention_bias;  // true there means biases on q, k, v and o
  int32_t max_positions;      // transformers' default
  int32_t head_dim;           // transformers' default; 0: hidden_size / num_attention_heads
};
constexpr Architecture kArchitectures[] = {
    {"llama", {"LlamaForCausalLM", "LlamaForCausalLMDMS"}, false, false, true, 2048, 0},
    {"qwen2", {"Qwen2ForCausalLM", "Qwen2ForCausalLMDMS"}, false, true, false, 32768, 0},
    {"qwen3", {"Qwen3ForCausalLM", "Qwen3ForCausalLMDMS"}, true, false, true, 32768, 128},
};

std::string SupportedModelTypes() {
  std::string list;
  for (const Architecture& known : kArchitectures) list += (list.empty() ? "" : ", ") + std::string(known.model_type);
  return list;
}

// The row for model_type; nullptr after a Fail. "architectures" may be missing (Model-Optimizer's exporter deletes it).
const Architecture* ReadArchitecture(FieldReader& in) {
  const std::string model_type = in.String("model_type");
  if (!in.status().ok()) return nullptr;
  for (const Architecture& known : kArchitectures) {
    if (known.model_type != model_type) continue;
    for (dom::element item : in.List("architectures", kClassNamesMax)) {
      std::string_view name;
      if (item.get_string().get(name) || std::ranges::find(known.class_names, name) == std::end(known.class_names)) {
        in.Fail("architectures", "has " + Quote(simdjson::minify(item)) + "; for model_type " + Quote(model_type) +
                                     " only " + std::string(known.class_names[0]) + " and " +
                                     std::string(known.class_names[1]) + " are supported");
      }
    }
    return &known;
  }
  in.Fail("model_type", Quote(model_type) + " is not supported; supported: " + SupportedModelTypes());
  return nullptr;
}

void ReadShape(FieldReader& in, const Architecture& architecture, ModelConfig& config) {
  auto count = [&](std::string_view key, int64_t max, std::optional<int64_t> fallback = {}) {
    return static_cast<int32_t>(in.Int(key, 1, max, fallback));
  };
  config.vocab_size = count("vocab_size", kVocabMax);
  config.hidden_size = count("hidden_size", kHiddenMax);
  config.intermediate_size = count("intermediate_size", kIntermediateMax);
  config.num_layers = count("num_hidden_layers", kLayersMax);
  config.num_heads = count("num_attention_heads", kHeadsMax);
  config.num_kv_heads = count("num_key_value_heads", kHeadsMax, config.num_heads);
  config.max_positions =
      static_cast<int32_t>(in.WholeNumber("max_position_embeddings", 1, kPositionsMax, architecture.max_positions));
  if (!in.status().ok()) return;

  if (config.num_heads % config.num_kv_heads != 0) {
    // Not "(" + ...: GCC 12 sees an overlapping copy in it that is not there (bug 105651).
    in.Fail("num_attention_heads", std::string("(") + std::to_string(config.num_heads) +
                                       ") must be a multiple of num_key_value_heads (" + std::to_string(config.num_kv_heads) + ")");
  }
  if (in.Has("head_dim") || architecture.head_dim != 0) {
    config.head_dim = count("head_dim", kHeadDimMax, architecture.head_dim);
  } else if (config.hidden_size % config.num_heads == 0 && config.hidden_size / config.num_heads <= kHeadDimMax) {
    config.head_dim = config.hidden_size / config.num_heads;
  } else {
    in.Fail("head_dim", "is missing and hidden_size / num_attention_heads does not give a usable one");
  }
  // RoPE pairs channel i with i + head_dim / 2.
  if (config.head_dim % 2 != 0) in.Fail("head_dim", "must be even, found " + std::to_string(config.head_dim));
}

void ReadBiases(FieldReader& in, const Architecture& architecture, ModelConfig& config) {
  const bool attention_bias = in.Bool("attention_bias", false);
  config.o_bias = architecture.reads_attention_bias && attention_bias;
  config.qkv_bias = architecture.qkv_bias || config.o_bias;
  config.alpha_bias = attention_bias;  // METHOD.md 1.1
}

// Features of the config classes that would change the computation and that no supported architecture computes yet.
void RefuseUnsupported(FieldReader& in) {
  if (in.Bool("mlp_bias", false)) in.Fail("mlp_bias", "true is not supported: MLP projections have no bias here");
  if (in.Bool("use_sliding_window", false)) in.Fail("use_sliding_window", "true is not supported: attention is full or DMS");
  if (in.Number("partial_rotary_factor", 0, 1, 1.0) != 1.0) in.Fail("partial_rotary_factor", "below 1 is not supported");
  const std::string activation = in.String("hidden_act", "silu");
  if (activation != "silu") in.Fail("hidden_act", Quote(activation) + " is not supported; supported: silu");
  for (dom::element item : in.List("layer_types", kLayersMax)) {
    std::string_view type;
    if (item.get_string().get(type) || type != "full_attention") {
      in.Fail("layer_types", "has " + Quote(simdjson::minify(item)) + "; only \"full_attention\" is supported");
    }
  }
}

// Other quantisations are refused here, by name. Which matrices are NF4 the tensors say themselves (nf4.h).
void RefuseOtherQuantisation(FieldReader& in) {
  const auto object = in.Object("quantization_config");
  if (!object) return;
  FieldReader quantisation(*object, kErrModelConfig, in.where() + ": quantization_config");
  const std::string method = quantisation.String("quant_method", "bitsandbytes");  // early bitsandbytes did not write it
  if (!quantisation.status().ok()) return in.Fail("quantization_config", "is not usable: " + quantisation.status().message);
  if (method != "bitsandbytes") {
    in.Fail("quantization_config", "has quant_method " + Quote(method) + ", which is not supported; supported: bitsandbytes NF4");
  }
}

std::vector<int32_t> ReadEosIds(FieldReader& in, int32_t vocab_size) {
  std::vector<int32_t> ids;
  for (dom::element item : in.List("eos_token_id", kEosIdsMax)) {
    int64_t id = 0;
    if (item.get_int64().get(id) || id < 0 || id >= vocab_size) {
      in.Fail("eos_token_id", Quote(simdjson::minify(item)) + " is not a token id below vocab_size");
      return {};
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

void ReadTokenIds(FieldReader& in, ModelConfig& config) {
  if (config.eos_ids.empty()) config.eos_ids = ReadEosIds(in, config.vocab_size);
  if (config.bos_id < 0) config.bos_id = static_cast<int32_t>(in.Int("bos_token_id", 0, config.vocab_size - 1, -1));
}

}  // namespace

Expected<ModelConfig> ParseConfig(const ConfigTexts& texts, const PolicyOverrides& overrides) {
  auto document = JsonDocument::Parse(texts.config, kConfigJsonDepthMax, kErrModelConfig, "config.json");
  if (!document.ok()) return document.status();
  FieldReader in(document->root(), kErrModelConfig, "config.json");

  const Architecture* architecture = ReadArchitecture(in);
  if (!in.status().ok()) return in.status();
  ModelConfig config;
  config.model_type = architecture->model_type;
  config.qk_norm = architecture->qk_norm;
  ReadShape(in, *architecture, config);
  ReadBiases(in, *architecture, config);
  config.rms_eps = static_cast<float>(in.Number("rms_norm_eps", kRmsEpsMin, kRmsEpsMax, 1e-6));
  if (in.Has("tie_word_embeddings")) config.tie_word_embeddings = in.Bool("tie_word_embeddings", false);
  config.dtype = in.String("dtype", in.String("torch_dtype", ""));
  RefuseUnsupported(in);
  RefuseOtherQuantisation(in);
  config.rope = ReadRope(in, config.max_positions);
  // Qwen's instructions add yarn to config.json and leave max_position_embeddings at the original context.
  if (config.rope.type == RopeType::kYarn) {
    const double stretched = std::min(config.rope.original_positions * config.rope.factor, static_cast<double>(kPositionsMax));
    config.max_positions = std::max(config.max_positions, static_cast<int32_t>(stretched));
  }
  auto policy = ReadPolicy(in, texts);
  if (!in.status().ok()) return in.status();
  if (!policy.ok()) return policy.status();
  config.policy = std::move(*policy);

  if (!texts.generation.empty()) {
    auto generation = JsonDocument::Parse(texts.generation, kConfigJsonDepthMax, kErrModelConfig, "generation_config.json");
    if (!generation.ok()) return generation.status();
    FieldReader generation_in(generation->root(), kErrModelConfig, "generation_config.json");
    ReadTokenIds(generation_in, config);
    if (!generation_in.status().ok()) return generation_in.status();
  }
  ReadTokenIds(in, config);
  if (!in.status().ok()) return in.status();

  if (Status status = ApplyOverrides(overrides, config.policy); !status.ok()) return status;
  return config;
}

}  // namespace rum
