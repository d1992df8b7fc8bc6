// The model loader opens what it should, and what its config says is what the engine can compute.
#include <cstring>
#include <string>

#include "core/limits.h"
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
  CHECK(c.rms_eps == 1e-6f && c.rope == RopeSpec{.theta = 1e6} && !c.tied_embeddings && c.qk_norm && c.dtype == "float32");
  CHECK(c.eos_ids == std::vector<int32_t>{2} && c.bos_id == 1);
  CHECK(c.policy.kind == PolicyKind::kDense && c.policy.window == 0 && !c.policy.reason.empty());
  CHECK(model.layers.size() == 3 && model.parameter_count == 127520 && model.dtype == DType::kF32);
  CHECK(model.file_bytes == static_cast<int64_t>(fs::file_size(fs::path(fixtures) / "models/tiny_qwen3/model.safetensors")));
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
    auto opened = OpenModel((fs::path(models) / "countdown" / name).string(), {});
    if (!CHECK_OK(opened)) continue;
    const bool dense = std::string_view(name) == "dense";
    CHECK((*opened)->config.policy.kind == (dense ? PolicyKind::kDense : PolicyKind::kDmsBorrowed));
    CHECK((*opened)->config.policy.window == (dense ? 0 : 16) && (*opened)->config.tied_embeddings);
  }
}

void LlamaOpens() {
  auto opened = OpenFixture("tiny_llama31");
  if (!CHECK_OK(opened)) return;
  const ModelConfig& c = (*opened)->config;
  CHECK(c.model_type == "llama" && !c.qk_norm && !c.qkv_bias && !c.o_bias && c.rms_eps == 1e-5f && c.max_positions == 1024);
  CHECK(c.rope.type == RopeType::kLlama3 && c.rope.theta == 5e5 && c.rope.factor == 8.0 && c.rope.original_positions == 64);
  CHECK(!(*opened)->layers[0].q_norm && !(*opened)->layers[0].q_bias && !(*opened)->layers[0].o_bias);
}

void Qwen2Opens() {
  auto opened = OpenFixture("tiny_qwen2");
  if (!CHECK_OK(opened)) return;
  const Model& model = **opened;
  CHECK(model.config.model_type == "qwen2" && model.config.head_dim == 16 && model.config.rope == RopeSpec{});
  CHECK(!model.config.qk_norm && model.config.qkv_bias && !model.config.o_bias);
  for (const LayerWeights& w : model.layers) CHECK(w.q_bias.cols == 64 && w.k_bias.cols == 32 && w.v_bias.cols == 32 && !w.o_bias);
}

void OtherArchitecturesAreNamed() {
  CHECK(Names(ConfigStatus(WithValue("model_type", "\"mistral\"")), kErrModelConfig,
              "\"mistral\" is not supported; supported: llama, qwen2, qwen3"));
  CHECK(Names(OpenFixture("kvzap_mlp").status(), kErrModelConfig, "\"kvzap\""));
}

// --- config.json ---------------------------------------------------------------------------------

void BothDialectsGiveTheSameConfig() {
  std::string text = Replace(QwenConfig(), "\"rope_scaling\": null,", "");
  text = Replace(text, "\"rope_theta\": 1000000.0", "\"rope_parameters\": {\"rope_theta\": 1e6, \"rope_type\": \"default\"}");
  auto nested = ParseConfig({text}, {});
  if (CHECK_OK(nested)) CHECK(nested->rope.theta == 1e6);
  auto old_dtype = ParseConfig({Replace(QwenConfig(), "\"dtype\"", "\"torch_dtype\"")}, {});
  if (CHECK_OK(old_dtype)) CHECK(old_dtype->dtype == "float32");
  auto no_head_dim = ParseConfig({Replace(QwenConfig(), "\"head_dim\": 16,", "")}, {});
  if (CHECK_OK(no_head_dim)) CHECK(no_head_dim->head_dim == 128);  // Qwen3Config's default, whatever the hidden size
  auto integer_theta = ParseConfig({WithValue("rope_theta", "10000")}, {});
  if (CHECK_OK(integer_theta)) CHECK(integer_theta->rope.theta == 10000.0);
  CHECK(Names(ConfigStatus(WithField("\"rope_parameters\": {\"rope_theta\": 5e5}")), kErrModelConfig, "disagrees"));
}

// As an old or hand-written config.json leaves them out.
std::string Bare(const char* model_type) {
  return std::string("{\"model_type\": \"") + model_type + "\", \"vocab_size\": 128, \"hidden_size\": 64, \"intermediate_size\": 96, " +
         "\"num_hidden_layers\": 2, \"num_attention_heads\": 4}";
}

void MissingValuesAreThoseOfTransformers() {
  struct Default {
    const char* model_type;
    int32_t max_positions, head_dim;
  };
  for (const Default& expected : {Default{"llama", 2048, 16}, {"qwen2", 32768, 16}, {"qwen3", 32768, 128}}) {
    auto parsed = ParseConfig({Bare(expected.model_type)}, {});
    if (!CHECK_OK(parsed)) continue;
    CHECK(parsed->num_kv_heads == 4 && parsed->max_positions == expected.max_positions && parsed->head_dim == expected.head_dim);
    CHECK(parsed->rms_eps == 1e-6f && parsed->rope == RopeSpec{} && !parsed->tie_word_embeddings && parsed->eos_ids.empty());
  }
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
    CHECK(Names(ConfigStatus(WithValue(key, "null")), kErrModelConfig, key));
  }
}

void BiasesAreWhereTransformersHasThem() {
  const auto biases = [](const char* model_type, const char* field) {
    auto parsed = ParseConfig({Replace(Bare(model_type), "{", std::string("{") + field)}, {});
    return CHECK_OK(parsed) ? std::pair(parsed->qkv_bias, parsed->o_bias) : std::pair(false, true);
  };
  const char *no = "\"attention_bias\": false, ", *yes = "\"attention_bias\": true, ";
  for (const char* type : {"llama", "qwen3"}) CHECK(biases(type, no) == std::pair(false, false) && biases(type, yes) == std::pair(true, true));
  CHECK(biases("qwen2", no) == std::pair(true, false) && biases("qwen2", yes) == std::pair(true, false));
}

void YarnRaisesTheContext() {
  const auto positions = [](const std::string& scaling) {
    auto parsed = ParseConfig({WithValue("rope_scaling", scaling)}, {});
    return CHECK_OK(parsed) ? parsed->max_positions : 0;
  };
  CHECK(positions(R"({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 400})") == 1600);
  CHECK(positions(R"({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16})") == 512);
  CHECK(positions(R"({"type": "yarn", "factor": 1e6, "original_max_position_embeddings": 400})") == kPositionsMax);
  CHECK(positions(R"({"type": "linear", "factor": 4.0})") == 512);
}

void UnsupportedFeaturesAreNamed() {
  CHECK(Names(ConfigStatus(WithValue("rope_scaling", "{\"type\": \"dynamic\"}")), kErrModelConfig, "\"dynamic\""));
  CHECK(Names(ConfigStatus(WithField("\"mlp_bias\": true")), kErrModelConfig, "mlp_bias"));
  CHECK(Names(ConfigStatus(WithField("\"partial_rotary_factor\": 0.5")), kErrModelConfig, "partial_rotary_factor"));
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
    for (const char* value : {"0", "-1.0", "1e300", "\"1\""}) {
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
    auto parsed = ParseConfig({config, generation}, {});
    return CHECK_OK(parsed) ? parsed->eos_ids : std::vector<int32_t>{};
  };
  CHECK((eos(QwenConfig(), "{\"eos_token_id\": [5, 7]}") == std::vector<int32_t>{5, 7}));
  CHECK((eos(QwenConfig(), "{\"eos_token_id\": null}") == std::vector<int32_t>{2}));
  CHECK((eos(WithValue("eos_token_id", "[3, 4]"), "") == std::vector<int32_t>{3, 4}));
  CHECK(eos(WithValue("eos_token_id", "null"), "{}").empty());
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
      {"a Llama directory opens with its scaled RoPE and no biases", LlamaOpens},
      {"a Qwen2 directory opens with biases on q, k and v", Qwen2Opens},
      {"another architecture is refused by name", OtherArchitecturesAreNamed},
      {"both config dialects give the same config", BothDialectsGiveTheSameConfig},
      {"a missing optional value is the one transformers takes", MissingValuesAreThoseOfTransformers},
      {"attention biases are those of transformers' classes", BiasesAreWhereTransformersHasThem},
      {"yarn raises the context to what it stretches to", YarnRaisesTheContext},
      {"a feature that would change the computation is refused by name", UnsupportedFeaturesAreNamed},
      {"an absurd number in config.json is refused by its key", AbsurdNumbersAreRefusedByName},
      {"broken or endlessly nested JSON is refused", BrokenJsonIsRefused},
      {"eos ids come from generation_config.json first", EosIdsComeFromTheGenerationConfigFirst},
  });
}
