// Which policy a directory was trained for, and what the caller may change (METHOD.md 1.2, 1.6).
// Usage: policy_config_test FIXTURES_DIR MODELS_DIR
#include <string>

#include "test/model_fixtures.h"

namespace rum::test {
namespace {

PolicySpec PolicyOf(const ConfigTexts& texts, const PolicyOverrides& overrides = {}) {
  auto parsed = ParseConfig(texts, overrides);
  return CHECK_OK(parsed) ? parsed->policy : PolicySpec{};
}

bool Says(const PolicySpec& policy, const char* words) { return policy.reason.find(words) != std::string::npos; }

void TheFirstFileThatStatesDmsCounts() {
  const std::string own = WithField("\"dms_window_size\": 8, \"dms_cr\": 2");
  const char* metadata = R"({"window_size": 16, "target_cr": 4, "context_len": 8192})";
  const char* log = R"({"config": {"window_size": 32, "target_cr": 6, "alpha_scale": 50, "alpha_offset": 2.5}, "log": [{"step": 1}]})";
  const PolicySpec all = PolicyOf({own, "", metadata, log}), two = PolicyOf({own, "", "", log}), one = PolicyOf({own});
  CHECK(all.window == 16 && all.target_cr == 4.0f && all.alpha_scale == 100.0f && all.alpha_offset == 5.0f);
  CHECK(Says(all, "stated by dms_metadata.json (trained at a context of 8192)"));
  CHECK(two.window == 32 && two.target_cr == 6.0f && two.alpha_scale == 50.0f && two.alpha_offset == 2.5f);
  CHECK(Says(two, "stated by ../training_log.json"));
  CHECK(one.window == 8 && one.target_cr == 2.0f && Says(one, "stated by config.json (dms_window_size)"));
  const PolicySpec none = PolicyOf({QwenConfig()});
  CHECK(none.kind == PolicyKind::kDense && Says(none, "no DMS metadata in dms_metadata.json, ../training_log.json or config.json"));
}

void EveryAliasIsRead() {
  struct Alias {
    const char* field;
    PolicySpec expected;
  };
  const auto policy = [](int32_t window, float scale, float offset, float cr) {
    PolicySpec p;
    p.window = window, p.alpha_scale = scale, p.alpha_offset = offset, p.target_cr = cr;
    return p;
  };
  for (const Alias& alias : {Alias{"\"window_size\": 7", policy(7, 100, 5, 1)}, {"\"dms_window_size\": 7.0", policy(7, 100, 5, 1)},
                             {"\"alpha_scale\": 3", policy(256, 3, 5, 1)}, {"\"dms_alpha_scale\": 3", policy(256, 3, 5, 1)},
                             {"\"alpha_offset\": -2", policy(256, 100, -2, 1)}, {"\"dms_alpha_offset\": -2", policy(256, 100, -2, 1)},
                             {"\"dms_initial_alpha_offset\": -2", policy(256, 100, -2, 1)}, {"\"target_cr\": 4", policy(256, 100, 5, 4)},
                             {"\"dms_cr\": 4", policy(256, 100, 5, 4)}, {"\"target_cr\": null, \"dms_cr\": 4", policy(256, 100, 5, 4)},
                             {"\"window_size\": 7, \"dms_window_size\": 9", policy(7, 100, 5, 1)}}) {
    const std::string object = std::string("{") + alias.field + "}", config = "{\"config\": " + object + "}", plain = QwenConfig();
    for (const std::string& text : {object, config}) {
      const PolicySpec p = PolicyOf({plain, "", text});
      CHECK(p.kind == PolicyKind::kDmsBorrowed && p.window == alias.expected.window && p.alpha_scale == alias.expected.alpha_scale);
      CHECK(p.alpha_offset == alias.expected.alpha_offset && p.target_cr == alias.expected.target_cr);
    }
  }
  // In config.json a window_size is something else's, and the default is 512.
  CHECK(PolicyOf({WithField("\"window_size\": 7")}).kind == PolicyKind::kDense);
  CHECK(PolicyOf({WithField("\"window_size\": 7, \"dms_cr\": 8")}).window == 512);
  CHECK(PolicyOf({QwenConfig(), "", "{}"}).window == 256);
}

void ASeparateProjectionIsConfigJsonsToSay() {
  const std::string config = WithField("\"dms_separate_alpha\": true, \"dms_alpha_per\": \"layer\", \"dms_disable_eviction\": true");
  const PolicySpec policy = PolicyOf({config, "", R"({"window_size": 16})"});
  CHECK(policy.kind == PolicyKind::kDmsSeparate && policy.alpha_per_layer && policy.disable_eviction && policy.window == 16);
  CHECK(Says(policy, "separate alpha projections"));
}

void AForeignTrainingLogIsPassedOver() {
  for (const char* log : {"[1, 2]", "{\"step\": 1}\n{\"step\": 2}", "{", "7", R"({"config": 7})", R"({"config": {"lr": 1}})",
                          R"({"window_size": 8, "target_cr": 4})", R"({"config": {"window_size": 8}})",
                          R"({"config": {"target_cr": null}})"}) {
    CHECK(PolicyOf({QwenConfig(), "", "", log}).kind == PolicyKind::kDense);
  }
  CHECK(PolicyOf({QwenConfig(), "", "", R"({"config": {"target_cr": 4}})"}).window == 256);
}

void BadMetadataIsRefusedByFileAndName() {
  const std::string config = QwenConfig();
  const auto refused = [&](const char* metadata, const char* log, const std::string& word) {
    CHECK(Names(ParseConfig({config, "", metadata, log}, {}).status(), kErrModelConfig, word));
  };
  for (const char* text : {"{", "[]", "7", R"({"config": 7})", R"({"a": 1, "a": 2})"}) refused(text, "", "dms_metadata.json");
  for (const char* window : {"0", "-1", "1000001", "8.5", "\"8\"", "1e300"}) {
    const std::string object = std::string("{\"target_cr\": 4, \"window_size\": ") + window + "}";
    refused(object.c_str(), "", "dms_metadata.json: window_size");
    refused("", ("{\"config\": " + object + "}").c_str(), "../training_log.json: window_size");
  }
  refused(R"({"alpha_scale": -1})", "", "alpha_scale");
  refused(R"({"dms_alpha_offset": 1e9})", "", "dms_alpha_offset");
  refused(R"({"target_cr": 0})", "", "target_cr");
  refused(R"({"context_len": 0})", "", "context_len");
}

// The directory of a checkpoint: metadata beside the weights, the log of its training one level up.
void FilesAreFoundBesideTheWeightsAndOneLevelUp() {
  for (const char* fixture : {"tiny_llama31", "tiny_qwen2", "tiny_qwen3"}) {
    TempDir run;
    const fs::path model = run.path / "final";
    fs::copy(fs::path(fixtures) / "models" / fixture, model);
    const auto policy = [&](const PolicyOverrides& overrides = {}) {
      auto opened = OpenModel(model.string(), overrides);
      return CHECK_OK(opened) ? (*opened)->config.policy : PolicySpec{};
    };
    CHECK(policy().kind == PolicyKind::kDense);
    const PolicySpec forced = policy({{"policy", "dms"}, {"window", "8"}});
    CHECK(forced.kind == PolicyKind::kDmsBorrowed && forced.window == 8 && Says(forced, "policy=dms"));
    WriteFile(run.path / "training_log.json", R"({"config": {"target_cr": 4, "window_size": 32}})");
    CHECK(policy().kind == PolicyKind::kDmsBorrowed && policy().window == 32 && Says(policy(), "../training_log.json"));
    WriteFile(model / "dms_metadata.json", R"({"window_size": 16})");
    CHECK(policy().window == 16 && Says(policy(), "dms_metadata.json"));
    CHECK(policy({{"policy", "dense"}}).kind == PolicyKind::kDense);
    WriteFile(model / "dms_metadata.json", "");
    CHECK(Names(OpenModel(model.string(), {}).status(), kErrModelFile, "dms_metadata.json: is empty"));
    fs::remove(model / "dms_metadata.json");
    // Not this model's to answer for.
    fs::remove(run.path / "training_log.json");
    fs::create_directory(run.path / "training_log.json");
    CHECK(policy().kind == PolicyKind::kDense);
  }
}

void OverridesApplyStrictly() {
  auto policy = [](const PolicyOverrides& overrides, const std::string& config = WithField("\"dms_window_size\": 8.0")) {
    auto parsed = ParseConfig({config}, overrides);
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
      {"the first file that states DMS counts, and the reason names it", TheFirstFileThatStatesDmsCounts},
      {"every alias is read, and only in the files it belongs to", EveryAliasIsRead},
      {"whether decisions come from separate projections stands in config.json alone", ASeparateProjectionIsConfigJsonsToSay},
      {"a training log that says nothing of DMS is passed over", AForeignTrainingLogIsPassedOver},
      {"metadata with a bad value is refused by file and name", BadMetadataIsRefusedByFileAndName},
      {"metadata is found beside the weights and one level up, for every architecture", FilesAreFoundBesideTheWeightsAndOneLevelUp},
      {"policy overrides are parsed strictly", OverridesApplyStrictly},
  });
}
