// KVzap's surrogate directories and options: hostile ones are refused, by their codes. Usage: kvzap_files_test FIXTURES_DIR MODELS_DIR
#include <string>

#include "model/kvzap.h"
#include "test/model_fixtures.h"

namespace rum::test {
namespace {

Status OpenWith(const fs::path& surrogate) {
  return OpenFixture("tiny_qwen3", {{"policy", "kvzap"}, {"surrogate", surrogate.string()}, {"threshold", "0"}}).status();
}

void AHostileSurrogateIsRefused() {
  const auto with_config = [](const std::string& from, const std::string& to) {
    const TempDir dir("kvzap_mlp");
    const fs::path path = dir.path / "config.json";
    WriteFile(path, Replace(ReadFile(path), from, to));
    return OpenWith(dir.path);
  };
  CHECK_OK(with_config("float32", "bfloat16"));  // the tensors say what they are
  CHECK(Names(with_config("\"kvzap\"", "\"qwen3\""), kErrModelConfig, "model_type"));
  CHECK(Names(with_config("\"input_dim\": 64", "\"input_dim\": 65"), kErrModelConfig, "input_dim"));
  CHECK(Names(with_config("\"input_dim\": 64", "\"input_dim\": 1e99"), kErrModelConfig, "input_dim"));
  CHECK(Names(with_config("\"output_dim\": 2", "\"output_dim\": 4"), kErrModelConfig, "output_dim"));
  CHECK(Names(with_config("\"n_modules\": 3", "\"n_modules\": 2"), kErrModelConfig, "n_modules"));
  CHECK(Names(with_config("\"n_modules\": 3", "\"n_modules\": -3"), kErrModelConfig, "n_modules"));
  CHECK(Names(with_config("\"hidden_dim\": 8", "\"hidden_dim\": 0"), kErrModelConfig, "hidden_dim"));
  CHECK(Names(with_config("\"hidden_dim\": 8", "\"hidden_dim\": 9"), kErrModelTensor, "layers.0.0.weight"));
  CHECK(Names(with_config("\"hidden_dim\": 8", "\"hidden_dim\": null"), kErrModelTensor, "layers.0.weight"));
  CHECK(Names(with_config("\"hidden_dim\": 8", "\"hidden_dim\": 8, \"hidden_dim\": 8"), kErrModelConfig, "hidden_dim"));
  CHECK(Names(with_config("{", "["), kErrModelConfig, "config.json"));

  const TempDir dir("kvzap_linear");
  const fs::path weights = dir.path / "model.safetensors";
  const std::string good = ReadFile(weights);
  CHECK_OK(OpenWith(dir.path));
  const auto with_weights = [&](const std::string& bytes) {
    WriteFile(weights, bytes);
    return OpenWith(dir.path);
  };
  CHECK(Names(with_weights(good.substr(0, good.size() - 4)), kErrModelFile, "model.safetensors"));
  CHECK(Names(with_weights(WithHeader(good, Replace(HeaderOf(good), "layers.1.bias", "layers.7.bias"))), kErrModelTensor, "layers.1.bias"));
  CHECK(Names(with_weights(WithHeader(good, Replace(HeaderOf(good), "\"F32\"", "\"I32\""))), kErrModelTensor, "I32"));
  std::string bad = good;
  bad.replace(bad.size() - 4, 4, std::string("\x00\x00\xC0\x7F", 4));
  CHECK(Names(with_weights(bad), kErrModelWeights, "NaN"));
  fs::remove(weights);
  CHECK(Names(OpenWith(dir.path), kErrModelFile, "model.safetensors"));
  CHECK(Names(OpenWith(dir.path / "nowhere"), kErrModelFile, "nowhere"));
  CHECK(Names(OpenWith(fs::path(fixtures) / "models/tiny_qwen3"), kErrModelConfig, "model_type"));
}

// No prefix and no changed byte of a config brings the parser down; what it accepts is within its bounds.
void AMutatedConfigIsRefusedOrBounded() {
  const std::string text = ReadFile(fs::path(fixtures) / "models/kvzap_mlp/config.json");
  const auto look = [](const std::string& json) {
    auto config = ParseKvzapConfig(json, "config.json");
    if (config.ok()) CHECK(config->input_dim >= 1 && config->output_dim >= 1 && config->hidden_dim >= 0 && config->modules >= 1);
  };
  for (size_t i = 0; i < text.size(); ++i) {
    look(text.substr(0, i));
    for (const char c : {'\0', '"', '9', '-', '{', '}', ',', '\xff'}) {
      std::string changed = text;
      changed[i] = c;
      look(changed);
    }
  }
}

void BadParametersAreRefused() {
  const std::string surrogate = (fs::path(fixtures) / "models/kvzap_linear").string();
  const auto refused = [&](const PolicyOverrides& more, const char* word) {
    PolicyOverrides overrides = {{"policy", "kvzap"}};
    overrides.insert(overrides.end(), more.begin(), more.end());
    CHECK(Names(OpenFixture("tiny_qwen3", overrides).status(), kErrOption, word));
  };
  refused({{"threshold", "0"}}, "surrogate");
  refused({{"surrogate", surrogate}}, "threshold");
  refused({{"surrogate", ""}, {"threshold", "0"}}, "surrogate");
  refused({{"surrogate", surrogate}, {"threshold", "nan"}}, "threshold");
  refused({{"surrogate", surrogate}, {"threshold", "0x1"}}, "threshold");
  refused({{"surrogate", surrogate}, {"threshold", "0"}, {"threshold", "1"}}, "twice");
  refused({{"surrogate", surrogate}, {"threshold", "0"}, {"window", "-1"}}, "window");
  refused({{"surrogate", surrogate}, {"threshold", "0"}, {"decode", "no"}}, "decode");
  refused({{"surrogate", surrogate}, {"threshold", "0"}, {"alpha_scale", "1"}}, "alpha_scale");
  CHECK(Names(OpenFixture("tiny_qwen3", {{"surrogate", surrogate}}).status(), kErrOption, "surrogate"));
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"a hostile surrogate is refused by its code", AHostileSurrogateIsRefused},
      {"a mutated config is refused or within its bounds", AMutatedConfigIsRefusedOrBounded},
      {"a parameter that is missing, unknown or absurd is refused", BadParametersAreRefused},
  });
}
