// The model loader opens what it should, and what its config says is what the engine can compute.
#include <cstring>
#include <string>

#include "test/model_fixtures.h"

namespace rum::test {
namespace {

// --- What opens ----------------------------------------------------------------------------------

void TinyQwen3Opens() {
  auto opened = OpenFixture("tiny_qwen3");
  if (!CHECK_OK(opened)) return;
  const Model& model = **opened;
  const ModelConfig& c = model.config;
  CHECK(c.model_type == "qwen3" && c.vocab_size == 128 && c.hidden_size == 64 && c.intermediate_size == 128 && c.num_layers == 3);
  CHECK(c.num_heads == 4 && c.num_kv_heads == 2 && c.group() == 2 && c.head_dim == 16 && c.max_positions == 512);
  CHECK(c.rms_eps == 1e-6f && c.rope_theta == 1e6 && !c.tied_embeddings && c.qk_norm && c.dtype == "float32");
  CHECK(c.eos_ids == std::vector<int32_t>{2} && c.bos_id == 1);
  CHECK(c.policy.kind == PolicyKind::kDense && c.policy.window == 0 && !c.policy.reason.empty());
  CHECK(model.layers.size() == 3 && model.parameter_count == 127520 && model.dtype == DType::kF32);
  CHECK(model.file_bytes == static_cast<int64_t>(fs::file_size(fixtures_dir / "models/tiny_qwen3/model.safetensors")));
  CHECK(model.layers[2].down_proj.rows == 64 && model.layers[2].down_proj.cols == 128 && model.layers[2].q_norm.rows == 1);
  CHECK(!model.layers[0].alpha_proj && model.lm_head.data != model.embed.data);
}

void ShardedEqualsUnsharded() {
  auto one = OpenFixture("tiny_qwen3"), sharded = OpenFixture("tiny_qwen3_sharded");
  if (!CHECK_OK(one) || !CHECK_OK(sharded)) return;
  const Model &a = **one, &b = **sharded;
  CHECK(b.files.size() == 3 && a.parameter_count == b.parameter_count && a.layers.size() == b.layers.size());
  CHECK(SameBytes(a.embed, b.embed) && SameBytes(a.final_norm, b.final_norm) && SameBytes(a.lm_head, b.lm_head));
  using L = LayerWeights;
  for (size_t i = 0; i < a.layers.size(); ++i) {
    for (TensorView L::* m : {&L::input_norm, &L::q_proj, &L::k_proj, &L::v_proj, &L::q_norm, &L::k_norm, &L::o_proj,
                              &L::post_norm, &L::gate_proj, &L::up_proj, &L::down_proj, &L::alpha_proj, &L::alpha_norm}) {
      CHECK(SameBytes(a.layers[i].*m, b.layers[i].*m));
    }
  }
}

void TiedBf16Opens() {
  auto opened = OpenFixture("tiny_qwen3_tied_bf16");
  if (!CHECK_OK(opened)) return;
  CHECK((*opened)->config.tied_embeddings && (*opened)->lm_head.data == (*opened)->embed.data);
  CHECK((*opened)->dtype == DType::kBF16 && (*opened)->embed.dtype == DType::kBF16);
}

void DmsFlavoursAreDetected() {
  auto borrowed = OpenFixture("tiny_qwen3_dms"), separate = OpenFixture("tiny_qwen3_dms_separate");
  if (!CHECK_OK(borrowed) || !CHECK_OK(separate)) return;
  const PolicySpec &a = (*borrowed)->config.policy, &b = (*separate)->config.policy;
  CHECK(a.kind == PolicyKind::kDmsBorrowed && a.window == 8 && a.target_cr == 8.0f);
  CHECK(a.alpha_scale == 100.0f && a.alpha_offset == 5.0f);
  CHECK(b.kind == PolicyKind::kDmsSeparate && b.window == 8 && !b.alpha_per_layer && !b.disable_eviction);
  CHECK((*separate)->layers[1].alpha_proj.rows == 2 && (*separate)->layers[1].alpha_norm.cols == 64);
  CHECK(!(*borrowed)->layers[1].alpha_proj && (*separate)->parameter_count - (*borrowed)->parameter_count == 3 * (2 * 64 + 64));
}

void CountdownModelsOpen() {
  for (const char* name : {"dense", "cr2", "cr4", "cr8"}) {
    auto opened = OpenModel((models_dir / "countdown" / name).string(), {});
    if (!CHECK_OK(opened)) continue;
    const bool dense = std::string_view(name) == "dense";
    CHECK((*opened)->config.policy.kind == (dense ? PolicyKind::kDense : PolicyKind::kDmsBorrowed));
    CHECK((*opened)->config.policy.window == (dense ? 0 : 16) && (*opened)->config.tied_embeddings);
  }
}

void OtherArchitecturesAreNamed() {
  CHECK(Names(OpenFixture("tiny_llama31").status(), kErrModelConfig, "\"llama\" is not supported; supported: qwen3"));
  CHECK(Names(OpenFixture("tiny_qwen2").status(), kErrModelConfig, "\"qwen2\""));
  CHECK(Names(OpenFixture("kvzap_mlp").status(), kErrModelConfig, "\"kvzap\""));
}

// tiny_qwen3's config with `"key": old` replaced by `"key": value`.
std::string WithValue(const std::string& key, const std::string& value) {
  std::string text = QwenConfig();
  const size_t begin = text.find("\"" + key + "\": ");
  if (!CHECK(begin != std::string::npos)) return text;
  const size_t value_begin = begin + key.size() + 4;
  size_t end = text.find_first_of(",\n", value_begin);
  if (text[value_begin] == '[') end = text.find(']', value_begin) + 1;
  return text.replace(value_begin, end - value_begin, value);
}

std::string WithField(const std::string& field) { return Replace(QwenConfig(), "{", "{ " + field + ","); }

Status ConfigStatus(const std::string& json, const PolicyOverrides& overrides = {}, const std::string& generation = "") {
  return ParseConfig(json, generation, overrides).status();
}

// --- config.json ---------------------------------------------------------------------------------

void BothDialectsGiveTheSameConfig() {
  std::string text = Replace(QwenConfig(), "\"rope_scaling\": null,", "");
  text = Replace(text, "\"rope_theta\": 1000000.0", "\"rope_parameters\": {\"rope_theta\": 1e6, \"rope_type\": \"default\"}");
  auto nested = ParseConfig(text, "", {});
  if (CHECK_OK(nested)) CHECK(nested->rope_theta == 1e6);
  auto old_dtype = ParseConfig(Replace(QwenConfig(), "\"dtype\"", "\"torch_dtype\""), "", {});
  if (CHECK_OK(old_dtype)) CHECK(old_dtype->dtype == "float32");
  auto no_head_dim = ParseConfig(Replace(QwenConfig(), "\"head_dim\": 16,", ""), "", {});
  if (CHECK_OK(no_head_dim)) CHECK(no_head_dim->head_dim == 16);
  auto integer_theta = ParseConfig(WithValue("rope_theta", "10000"), "", {});
  if (CHECK_OK(integer_theta)) CHECK(integer_theta->rope_theta == 10000.0);
  CHECK(Names(ConfigStatus(WithField("\"rope_parameters\": {\"rope_theta\": 5e5}")), kErrModelConfig, "disagrees"));
}

void UnsupportedFeaturesAreNamed() {
  CHECK(Names(ConfigStatus(WithValue("rope_scaling", "{\"type\": \"yarn\"}")), kErrModelConfig, "\"yarn\""));
  const std::string llama3 = WithField("\"rope_parameters\": {\"rope_theta\": 1e6, \"rope_type\": \"llama3\"}");
  CHECK(Names(ConfigStatus(llama3), kErrModelConfig, "\"llama3\""));
  CHECK(Names(ConfigStatus(WithValue("attention_bias", "true")), kErrModelConfig, "attention_bias"));
  CHECK(Names(ConfigStatus(WithValue("use_sliding_window", "true")), kErrModelConfig, "use_sliding_window"));
  const std::string sliding = WithValue("layer_types", "[\"full_attention\", \"sliding_attention\"]");
  CHECK(Names(ConfigStatus(sliding), kErrModelConfig, "sliding_attention"));
  CHECK(Names(ConfigStatus(WithValue("hidden_act", "\"gelu\"")), kErrModelConfig, "\"gelu\""));
  CHECK(Names(ConfigStatus(WithValue("architectures", "[\"Qwen3Model\"]")), kErrModelConfig, "Qwen3Model"));
}

void AbsurdNumbersAreRefusedByName() {
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "max_position_embeddings"}) {
    for (const char* value : {"0", "-1", "1e18", "1000000000000000000", "99999999999999999999999999", "0.5", "\"64\"",
                              "true", "[1]", "{}"}) {
      const std::string text = WithValue(key, value);
      // simdjson itself refuses an integer beyond 64 bits, before any field is read.
      CHECK(Names(ConfigStatus(text), kErrModelConfig, std::strlen(value) > 20 ? "config.json" : key));
    }
  }
  for (const char* key : {"rope_theta", "rms_norm_eps"}) {
    for (const char* value : {"0", "-1.0", "1e300", "\"1\"", "null"}) {
      CHECK(Names(ConfigStatus(WithValue(key, value)), kErrModelConfig, key));
    }
  }
  CHECK(Names(ConfigStatus(WithValue("rope_theta", "NaN")), kErrModelConfig, "JSON"));
  CHECK(Names(ConfigStatus(WithValue("num_key_value_heads", "3")), kErrModelConfig, "multiple"));
  CHECK(Names(ConfigStatus(WithValue("head_dim", "15")), kErrModelConfig, "even"));
  CHECK(Names(ConfigStatus(WithValue("eos_token_id", "128")), kErrModelConfig, "eos_token_id"));
  CHECK(Names(ConfigStatus(WithValue("eos_token_id", "[2, -1]")), kErrModelConfig, "eos_token_id"));
  CHECK(Names(ConfigStatus(WithField("\"hidden_size\": 32")), kErrModelConfig, "twice"));
  for (const char* window : {"0", "-1", "1000001", "8.5", "\"8\""}) {
    CHECK(Names(ConfigStatus(WithField(std::string("\"dms_window_size\": ") + window)), kErrModelConfig, "dms_window_size"));
  }
  CHECK(Names(ConfigStatus(WithField("\"dms_cr\": 4, \"dms_alpha_per\": \"layer\"")), kErrModelConfig, "dms_separate_alpha"));
}

void BrokenJsonIsRefused() {
  for (const char* text : {"", "[]", "{", "null", "{}{}", "{\"model_type\":\"qwen3\"", "\xff\xfe", "{\"a\":\"\xc3\"}"}) {
    CHECK(Names(ConfigStatus(text), kErrModelConfig, "config.json"));
  }
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  CHECK(Names(ConfigStatus(WithField("\"deep\": " + deep)), kErrModelConfig, "JSON"));
  CHECK(Names(ConfigStatus(QwenConfig(), {}, "{"), kErrModelConfig, "generation_config.json"));
}

void EosIdsComeFromTheGenerationConfigFirst() {
  auto eos = [](const std::string& config, const std::string& generation) {
    auto parsed = ParseConfig(config, generation, {});
    return CHECK_OK(parsed) ? parsed->eos_ids : std::vector<int32_t>{};
  };
  CHECK((eos(QwenConfig(), "{\"eos_token_id\": [5, 7]}") == std::vector<int32_t>{5, 7}));
  CHECK((eos(QwenConfig(), "{\"eos_token_id\": null}") == std::vector<int32_t>{2}));
  CHECK((eos(WithValue("eos_token_id", "[3, 4]"), "") == std::vector<int32_t>{3, 4}));
  CHECK(eos(WithValue("eos_token_id", "null"), "{}").empty());
}

void OverridesApplyStrictly() {
  auto policy = [](const PolicyOverrides& overrides, const std::string& config = WithField("\"dms_window_size\": 8.0")) {
    auto parsed = ParseConfig(config, "", overrides);
    return CHECK_OK(parsed) ? parsed->policy : PolicySpec{};
  };
  CHECK(policy({}).kind == PolicyKind::kDmsBorrowed && policy({}).window == 8);
  CHECK(policy({{"policy", "dense"}}).kind == PolicyKind::kDense && policy({{"policy", "dense"}}).window == 0);
  const PolicySpec forced = policy({{"alpha_offset", "-2.5"}, {"policy", "dms"}}, QwenConfig());
  CHECK(forced.kind == PolicyKind::kDmsBorrowed && forced.window == 512);
  CHECK(forced.alpha_offset == -2.5f && forced.alpha_scale == 100.0f);
  CHECK(policy({{"window", "3"}}).window == 3 && policy({{"disable_eviction", "true"}}).disable_eviction);
  CHECK(policy({{"alpha_per", "layer"}}, WithField("\"dms_cr\": 8, \"dms_separate_alpha\": true")).alpha_per_layer);

  const std::pair<const char*, const char*> bad[] = {
      {"window", ""}, {"window", "0"}, {"window", "1000001"}, {"window", "8x"}, {"window", " 8"}, {"window", "8.0"},
      {"window", "+8"}, {"alpha_scale", "nan"}, {"alpha_scale", "inf"}, {"alpha_scale", "-1"},
      {"alpha_scale", "1e999"}, {"alpha_offset", "5,0"},
      {"alpha_per", "head "}, {"alpha_per", "layer"}, {"disable_eviction", "1"}, {"policy", "DMS"}};
  for (const auto& [key, value] : bad) CHECK(Names(ConfigStatus(WithField("\"dms_cr\": 8"), {{key, value}}), kErrOption, key));
  CHECK(Names(ConfigStatus(QwenConfig(), {{"windows", "8"}}), kErrOption, "valid: policy, window, alpha_scale"));
  CHECK(Names(ConfigStatus(QwenConfig(), {{"window", "8"}}), kErrOption, "policy=dms"));
  CHECK(Names(ConfigStatus(QwenConfig(), {{"policy", "dms"}, {"policy", "dense"}}), kErrOption, "twice"));
}


}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"a Qwen3 directory opens with the shapes its config states", TinyQwen3Opens},
      {"a sharded model has the same bytes as the unsharded one", ShardedEqualsUnsharded},
      {"a tied bf16 model uses its embeddings as the head", TiedBf16Opens},
      {"both DMS flavours are told apart by their metadata", DmsFlavoursAreDetected},
      {"the bundled countdown models open with their policies", CountdownModelsOpen},
      {"another architecture is refused by name", OtherArchitecturesAreNamed},
      {"both config dialects give the same config", BothDialectsGiveTheSameConfig},
      {"a feature that would change the computation is refused by name", UnsupportedFeaturesAreNamed},
      {"an absurd number in config.json is refused by its key", AbsurdNumbersAreRefusedByName},
      {"broken or endlessly nested JSON is refused", BrokenJsonIsRefused},
      {"eos ids come from generation_config.json first", EosIdsComeFromTheGenerationConfigFirst},
      {"policy overrides are parsed strictly", OverridesApplyStrictly},
  });
}
