// RoPE frequencies against transformers' own: real model sizes of test/fixtures, and every scaling type of test/fixtures-own/rope.json
// (made by scripts/fixtures/make_rope_fixtures.py). Both are float32, so they agree to some 5e-7.
// Usage: rope_test FIXTURES_DIR MODELS_DIR
#include <cmath>
#include <string>
#include <vector>

#include "core/exact_math.h"
#include "core/limits.h"
#include "model/rope.h"
#include "test/check.h"
#include "test/fixture.h"

namespace rum::test {
namespace {

constexpr double kTolerance = 1e-6;  // relative


bool Near(double value, double expected) { return std::fabs(value - expected) <= kTolerance * std::fabs(expected); }

bool Near(const std::vector<float>& values, const std::vector<float>& expected) {
  if (!CHECK(values.size() == expected.size())) return false;
  for (size_t i = 0; i < values.size(); ++i) {
    if (Near(values[i], expected[i])) continue;
    std::printf("    channel %zu: %.9g, expected %.9g\n", i, static_cast<double>(values[i]), static_cast<double>(expected[i]));
    return false;
  }
  return true;
}

struct Read {
  RopeSpec rope;
  Status status;
};

Read ReadFrom(const std::string& json, int32_t max_positions = 4096) {
  const JsonDocument document = Must(JsonDocument::Parse(json, kConfigJsonDepthMax, kErrModelConfig, "config.json"));
  FieldReader in(document.root(), kErrModelConfig, "config.json");
  Read read;
  read.rope = ReadRope(in, max_positions);
  read.status = in.status();
  return read;
}

void RealModelsHaveTheOraclesFrequencies() {
  const Fixture fixture(fixtures + "/rope_inv_freq.safetensors");
  const std::string llama31 = R"({"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
      "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}})";
  CHECK(Near(RopeFrequencies(ReadFrom(R"({"rope_theta": 1000000})").rope, 128), fixture.Floats("qwen3")));
  CHECK(Near(RopeFrequencies(ReadFrom("{}").rope, 128), fixture.Floats("qwen_r1_1p5b_7b")));
  CHECK(Near(RopeFrequencies(ReadFrom(llama31).rope, 128), fixture.Floats("llama31_8b")));
}

// The fixture's case as config.json of transformers 4 and 5.
void EveryTypeIsComputedAsInTransformersInBothDialects() {
  const JsonFile file(fixtures + "-own/rope.json");
  for (const auto& [name, value] : Get<simdjson::dom::object>(file.root()["cases"])) {
    const auto head_dim = static_cast<int32_t>(Get<int64_t>(value["head_dim"]));
    const auto max_positions = static_cast<int32_t>(Get<int64_t>(value["max_position_embeddings"]));
    const std::string theta = simdjson::minify(Get<simdjson::dom::element>(value["rope_theta"]));
    const std::string scaling = simdjson::minify(Get<simdjson::dom::element>(value["rope_scaling"]));
    std::vector<float> expected;
    for (simdjson::dom::element f : Get<simdjson::dom::array>(value["inv_freq"])) {
      expected.push_back(static_cast<float>(Get<double>(std::move(f))));
    }
    const Read old = ReadFrom("{\"rope_theta\": " + theta + ", \"rope_scaling\": " + scaling + "}", max_positions);
    bool same = CHECK_OK(old.status) && CHECK(Near(RopeFrequencies(old.rope, head_dim), expected)) &&
                CHECK(Near(old.rope.attention_factor, Get<double>(value["attention_factor"])));
    if (scaling != "null") {
      const Read nested = ReadFrom("{\"rope_parameters\": {\"rope_theta\": " + theta + ", " + scaling.substr(1) + "}", max_positions);
      same = CHECK_OK(nested.status) && CHECK(nested.rope == old.rope) && same;
    }
    if (!same) std::printf("    case %s\n", std::string(name).c_str());
  }
}

void WhatIsNotComputedIsRefusedByName() {
  const auto refused = [](const std::string& scaling, const char* word) {
    for (const char* key : {"rope_scaling", "rope_parameters"}) {
      const Status status = ReadFrom(std::string("{\"") + key + "\": " + scaling + "}").status;
      if (!CHECK(Has(status, kErrModelConfig) && status.message.find(word) != std::string::npos)) {
        std::printf("    %s: %s\n", scaling.c_str(), status.message.c_str());
      }
    }
  };
  for (const char* type : {"dynamic", "longrope", "su", "mrope", "proportional", ""}) {
    refused(std::string(R"({"rope_type": ")") + type + R"(", "factor": 2.0})", "supported: default, linear, llama3, yarn");
    refused(std::string(R"({"type": ")") + type + R"("})", "rope_type");
  }
  refused(R"({"rope_type": "linear"})", "factor is missing");
  for (const char* factor : {"0", "0.5", "-4", "1e7", "\"4\"", "true", "[4]"}) {
    refused(std::string(R"({"type": "linear", "factor": )") + factor + "}", "factor must be");
  }
  const std::string llama3 = R"({"rope_type": "llama3", "factor": 8)";
  refused(llama3 + "}", "low_freq_factor is missing");
  refused(llama3 + R"(, "low_freq_factor": 4, "high_freq_factor": 4})", "above low_freq_factor");
  refused(llama3 + R"(, "low_freq_factor": 0, "high_freq_factor": 4})", "low_freq_factor");
  refused(llama3 + R"(, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 0})", "original_max");
  const std::string yarn = R"({"rope_type": "yarn", "factor": 4, )";
  refused(yarn + R"("beta_fast": 1, "beta_slow": 2})", "beta_slow");
  refused(yarn + R"("beta_fast": 1e-9, "beta_slow": 1e-9})", "beta_fast");
  refused(yarn + R"("rope_theta": 1})", "rope_theta must be at least 2");
  refused(yarn + R"("attention_factor": -1})", "attention_factor");
  refused(yarn + R"("truncate": 1})", "truncate");
  refused(R"({"rope_type": "default", "partial_rotary_factor": 0.5})", "partial_rotary_factor");
  refused("7", "must be an object");
}

void TwoStatementsOfOneThingMustAgree() {
  const char* type = R"("rope_type": "linear", "factor": 2.0)";
  const auto both = [&](const std::string& theta, const std::string& scaling) {
    return ReadFrom("{\"rope_theta\": " + theta + ", \"rope_scaling\": {" + scaling + "}, \"rope_parameters\": {\"rope_theta\": 5e5, " +
                    type + "}}");
  };
  CHECK_OK(both("500000", type).status);
  CHECK(both("500000", type).rope.theta == 5e5);
  CHECK(Has(both("1e6", type).status, kErrModelConfig));
  CHECK(Has(both("500000", R"("rope_type": "linear", "factor": 4.0)").status, kErrModelConfig));
  CHECK(Has(both("500000", R"("rope_type": "yarn", "factor": 2.0)").status, kErrModelConfig));
}

void TheAttentionFactorIsPartOfCosAndSin() {
  float c, s, plain_c, plain_s;
  RopeAngle(7, 0.3f, 1.0, &plain_c, &plain_s);
  RopeAngle(7, 0.3f, 1.25, &c, &s);
  CHECK(Near(c, std::cos(2.1) * 1.25) && Near(s, std::sin(2.1) * 1.25) && Near(plain_c, std::cos(2.1)));
  RopeAngle(0, 0.3f, 1.25, &c, &s);
  CHECK(c == 1.25f && s == 0.0f);
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"Qwen3, R1-Distill-Qwen and Llama 3.1 have the oracle's frequencies", RealModelsHaveTheOraclesFrequencies},
      {"default, linear, llama3 and yarn are computed as in transformers, in both config dialects",
       EveryTypeIsComputedAsInTransformersInBothDialects},
      {"a type or parameter that is not computed is refused by name", WhatIsNotComputedIsRefusedByName},
      {"rope_parameters and its older forms must agree where both are there", TwoStatementsOfOneThingMustAgree},
      {"cos and sin are multiplied by the attention factor", TheAttentionFactorIsPartOfCosAndSin},
  });
}
