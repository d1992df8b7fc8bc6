#include "model/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <system_error>

#include "core/limits.h"
#include "model/json.h"

namespace rum {

namespace dom = simdjson::dom;

namespace {

// One row per architecture the engine computes. A row and its tensors in weights.cc are all a new one needs.
struct Architecture {
  std::string_view model_type;
  std::string_view class_names[2];  // accepted in "architectures": the base class and Model-Optimizer's DMS subclass
  bool qk_norm;
};
constexpr Architecture kArchitectures[] = {
    {"qwen3", {"Qwen3ForCausalLM", "Qwen3ForCausalLMDMS"}, true},
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

void ReadShape(FieldReader& in, ModelConfig& config) {
  auto count = [&](std::string_view key, int64_t max) { return static_cast<int32_t>(in.Int(key, 1, max)); };
  config.vocab_size = count("vocab_size", kVocabMax);
  config.hidden_size = count("hidden_size", kHiddenMax);
  config.intermediate_size = count("intermediate_size", kIntermediateMax);
  config.num_layers = count("num_hidden_layers", kLayersMax);
  config.num_heads = count("num_attention_heads", kHeadsMax);
  config.num_kv_heads = count("num_key_value_heads", kHeadsMax);
  config.max_positions = static_cast<int32_t>(in.WholeNumber("max_position_embeddings", 1, kPositionsMax));
  if (!in.status().ok()) return;

  if (config.num_heads % config.num_kv_heads != 0) {
    in.Fail("num_attention_heads", "(" + std::to_string(config.num_heads) + ") must be a multiple of num_key_value_heads (" +
                                       std::to_string(config.num_kv_heads) + ")");
  }
  if (in.Has("head_dim")) {
    config.head_dim = count("head_dim", kHeadDimMax);
  } else if (config.hidden_size % config.num_heads == 0 && config.hidden_size / config.num_heads <= kHeadDimMax) {
    config.head_dim = config.hidden_size / config.num_heads;
  } else {
    in.Fail("head_dim", "is missing and hidden_size / num_attention_heads does not give a usable one");
  }
  // RoPE pairs channel i with i + head_dim / 2.
  if (config.head_dim % 2 != 0) in.Fail("head_dim", "must be even, found " + std::to_string(config.head_dim));
}

// Features of the config classes that would change the computation and that no supported architecture computes yet.
void RefuseUnsupported(FieldReader& in) {
  if (in.Bool("attention_bias", false)) in.Fail("attention_bias", "true is not supported: projections have no bias here");
  if (in.Bool("use_sliding_window", false)) in.Fail("use_sliding_window", "true is not supported: attention is full or DMS");
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

// transformers 5 nests everything in rope_parameters; up to 4.x rope_theta stands alone and rope_scaling is null or an object.
// The theta must be stated: a guessed one gives fluent nonsense.
void ReadRope(FieldReader& in, ModelConfig& config) {
  const bool nested = in.Has("rope_parameters");
  const char* key = nested ? "rope_parameters" : "rope_scaling";
  auto object = in.Object(key);
  std::string type = "default";
  if (object) {
    FieldReader rope(*object, kErrModelConfig, in.where() + ": " + key);
    type = rope.String("rope_type", rope.String("type", "default"));
    if (nested) config.rope_theta = rope.Number("rope_theta", kRopeThetaMin, kRopeThetaMax);
    if (type == "default" && !rope.status().ok()) return in.Fail(key, "is not usable: " + rope.status().message);
  }
  if (type != "default") return in.Fail(key, "has rope type " + Quote(type) + ", which is not supported; supported: default");
  if (!nested) {
    config.rope_theta = in.Number("rope_theta", kRopeThetaMin, kRopeThetaMax);
  } else if (in.Has("rope_theta") && in.Number("rope_theta", kRopeThetaMin, kRopeThetaMax) != config.rope_theta) {
    in.Fail("rope_theta", "disagrees with rope_parameters.rope_theta; remove one of the two");
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

// METHOD.md 1.6: a directory is a DMS one iff any of these is present.
constexpr std::string_view kDmsKeys[] = {"dms_window_size", "dms_alpha_scale", "dms_initial_alpha_offset", "dms_cr"};
constexpr int32_t kDmsWindowDefault = 512;

PolicySpec ReadPolicy(FieldReader& in) {
  PolicySpec policy;
  auto mark = std::ranges::find_if(kDmsKeys, [&](std::string_view key) { return in.Has(key); });
  if (mark == std::end(kDmsKeys)) {
    policy.reason = "dense: config.json has no DMS metadata";
    return policy;
  }
  const bool separate = in.Bool("dms_separate_alpha", false);
  policy.kind = separate ? PolicyKind::kDmsSeparate : PolicyKind::kDmsBorrowed;
  policy.reason = "DMS: config.json has " + std::string(*mark) +
                  (separate ? " and dms_separate_alpha is true, so decisions come from separate alpha projections"
                            : " and dms_separate_alpha is not true, so decisions come from the borrowed query channel");
  policy.window = static_cast<int32_t>(in.WholeNumber("dms_window_size", kDmsWindowMin, kDmsWindowMax, kDmsWindowDefault));
  policy.alpha_scale = static_cast<float>(in.Number("dms_alpha_scale", 0, kDmsAlphaMax, 100.0));
  policy.alpha_offset = static_cast<float>(in.Number("dms_initial_alpha_offset", -kDmsAlphaMax, kDmsAlphaMax, 5.0));
  policy.disable_eviction = in.Bool("dms_disable_eviction", false);
  policy.target_cr = static_cast<float>(in.Number("dms_cr", 1, kDmsCrMax, 1.0));
  const std::string per = in.String("dms_alpha_per", "head");
  if (per != "head" && per != "layer") in.Fail("dms_alpha_per", "must be \"head\" or \"layer\", found " + Quote(per));
  policy.alpha_per_layer = per == "layer";
  if (policy.alpha_per_layer && !separate) in.Fail("dms_alpha_per", "\"layer\" needs dms_separate_alpha true");
  return policy;
}

Status BadOption(const std::string& key, const std::string& value, const std::string& expected) {
  return Error(kErrOption, "policy option " + key + " must be " + expected + ", found " + Quote(value));
}

// The whole string as a number in [min, max]; from_chars ignores the locale and takes no leading space or plus sign.
template <class T>
bool ParseNumber(const std::string& text, T min, T max, T* number) {
  const char* end = text.data() + text.size();
  auto [rest, error] = std::from_chars(text.data(), end, *number);
  return error == std::errc() && rest == end && *number >= min && *number <= max;  // NaN fails the comparison
}

bool ParseBool(const std::string& text, bool* flag) {
  *flag = text == "true";
  return text == "true" || text == "false";
}

// One parameter over the policy; the policy is DMS. "policy" itself has been applied.
Status ApplyParameter(const std::string& key, const std::string& value, PolicySpec& policy) {
  if (key == "window") {
    int64_t window = 0;
    if (!ParseNumber(value, kDmsWindowMin, kDmsWindowMax, &window)) {
      return BadOption(key, value, "a whole number from 1 to " + std::to_string(kDmsWindowMax));
    }
    policy.window = static_cast<int32_t>(window);
  } else if (key == "alpha_scale") {
    double scale = 0;
    if (!ParseNumber(value, 0.0, kDmsAlphaMax, &scale)) return BadOption(key, value, "a number from 0 to 1e6");
    policy.alpha_scale = static_cast<float>(scale);
  } else if (key == "alpha_offset") {
    double offset = 0;
    if (!ParseNumber(value, -kDmsAlphaMax, kDmsAlphaMax, &offset)) return BadOption(key, value, "a number from -1e6 to 1e6");
    policy.alpha_offset = static_cast<float>(offset);
  } else if (key == "alpha_per") {
    if (value != "head" && value != "layer") return BadOption(key, value, "head or layer");
    policy.alpha_per_layer = value == "layer";
    if (policy.alpha_per_layer && policy.kind != PolicyKind::kDmsSeparate) {
      return Error(kErrOption, "policy option alpha_per=layer needs a model with separate alpha projections");
    }
  } else if (key == "disable_eviction") {
    if (!ParseBool(value, &policy.disable_eviction)) return BadOption(key, value, "true or false");
  }
  return Status::Ok();
}

Status ApplyPolicyName(const std::string& value, PolicySpec& policy) {
  if (value == "dense") {
    policy = PolicySpec{};
    policy.reason = "dense: asked for with policy=dense";
  } else if (value == "dms") {
    if (policy.kind != PolicyKind::kDense) return Status::Ok();
    policy.kind = PolicyKind::kDmsBorrowed;
    policy.window = kDmsWindowDefault;
    policy.reason = "DMS: asked for with policy=dms; without DMS metadata, so the borrowed query channel and defaults";
  } else if (value != "auto") {
    return BadOption("policy", value, "auto, dense or dms");
  }
  return Status::Ok();
}

Status ApplyOverrides(const PolicyOverrides& overrides, PolicySpec& policy) {
  static constexpr std::string_view kKeys[] = {"policy",       "window",    "alpha_scale",
                                               "alpha_offset", "alpha_per", "disable_eviction"};
  for (auto it = overrides.begin(); it != overrides.end(); ++it) {
    if (std::ranges::find(kKeys, it->first) == std::end(kKeys)) {
      return Error(kErrOption, "unknown policy option " + Quote(it->first) +
                                   "; valid: policy, window, alpha_scale, alpha_offset, alpha_per, disable_eviction");
    }
    if (std::any_of(overrides.begin(), it, [&](const auto& earlier) { return earlier.first == it->first; })) {
      return Error(kErrOption, "policy option " + it->first + " is given twice");
    }
  }
  // The policy first, wherever it stands: the others are parameters of it.
  for (const auto& [key, value] : overrides) {
    if (key != "policy") continue;
    if (Status status = ApplyPolicyName(value, policy); !status.ok()) return status;
  }
  for (const auto& [key, value] : overrides) {
    if (key == "policy") continue;
    if (policy.kind == PolicyKind::kDense) {
      return Error(kErrOption, "policy option " + key + " is a parameter of DMS, but the policy is dense; " +
                                   "add policy=dms or leave it out");
    }
    if (Status status = ApplyParameter(key, value, policy); !status.ok()) return status;
  }
  return Status::Ok();
}

}  // namespace

Expected<ModelConfig> ParseConfig(std::string_view config_json, std::string_view generation_config_json,
                                  const PolicyOverrides& overrides) {
  auto document = JsonDocument::Parse(config_json, kConfigJsonDepthMax, kErrModelConfig, "config.json");
  if (!document.ok()) return document.status();
  FieldReader in(document->root(), kErrModelConfig, "config.json");

  const Architecture* architecture = ReadArchitecture(in);
  if (!in.status().ok()) return in.status();
  ModelConfig config;
  config.model_type = architecture->model_type;
  config.qk_norm = architecture->qk_norm;
  ReadShape(in, config);
  config.rms_eps = static_cast<float>(in.Number("rms_norm_eps", kRmsEpsMin, kRmsEpsMax));
  config.tied_embeddings = in.Bool("tie_word_embeddings", false);
  config.dtype = in.String("dtype", in.String("torch_dtype", ""));
  RefuseUnsupported(in);
  RefuseOtherQuantisation(in);
  ReadRope(in, config);
  config.policy = ReadPolicy(in);
  if (!in.status().ok()) return in.status();

  if (!generation_config_json.empty()) {
    auto generation = JsonDocument::Parse(generation_config_json, kConfigJsonDepthMax, kErrModelConfig, "generation_config.json");
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
