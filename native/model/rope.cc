#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "core/exact_math.h"
#include "core/limits.h"
#include "model/json.h"

namespace rum {
namespace {

constexpr double kTwoPi = 6.283185307179586477;

constexpr std::pair<std::string_view, RopeType> kTypes[] = {
    {"default", RopeType::kDefault},
    {"linear", RopeType::kLinear},
    {"llama3", RopeType::kLlama3},
    {"yarn", RopeType::kYarn},
};

// A factor that transformers reads with Python's `or`: null and 0 are absent.
double NumberOr(FieldReader& in, std::string_view key, double max, double fallback) {
  const double number = in.Number(key, 0, max, 0.0);
  return number == 0.0 ? fallback : number;
}

// transformers' get_mscale.
double MagnitudeScale(double factor, double mscale) { return factor <= 1.0 ? 1.0 : 0.1 * mscale * LogD(factor) + 1.0; }

void ReadYarn(FieldReader& in, RopeSpec& rope) {
  rope.beta_fast = NumberOr(in, "beta_fast", kRopeTurnsMax, 32.0);
  rope.beta_slow = NumberOr(in, "beta_slow", kRopeTurnsMax, 1.0);
  rope.truncate = in.Bool("truncate", true);
  if (rope.beta_fast < kRopeTurnsMin || rope.beta_slow < kRopeTurnsMin || rope.beta_fast < rope.beta_slow) {
    in.Fail("beta_fast", "must not be below beta_slow, and neither below " + std::to_string(kRopeTurnsMin));
  }
  // The band is found by dividing by log(theta).
  if (rope.theta < kRopeYarnThetaMin) in.Fail("rope_theta", "must be at least " + std::to_string(kRopeYarnThetaMin) + " for yarn");
  const double mscale = in.Number("mscale", 0, kRopeFactorMax, 0.0);
  const double mscale_all_dim = in.Number("mscale_all_dim", 0, kRopeFactorMax, 0.0);
  rope.attention_factor = MagnitudeScale(rope.factor, 1.0);
  if (mscale != 0.0 && mscale_all_dim != 0.0) {
    rope.attention_factor = MagnitudeScale(rope.factor, mscale) / MagnitudeScale(rope.factor, mscale_all_dim);
  }
  rope.attention_factor = in.Number("attention_factor", 0, kRopeFactorMax, rope.attention_factor);
}

void ReadLlama3(FieldReader& in, RopeSpec& rope) {
  rope.low_freq_factor = in.Number("low_freq_factor", kRopeTurnsMin, kRopeTurnsMax);
  rope.high_freq_factor = in.Number("high_freq_factor", kRopeTurnsMin, kRopeTurnsMax);
  if (rope.high_freq_factor <= rope.low_freq_factor) in.Fail("high_freq_factor", "must be above low_freq_factor");
}

// One of the two objects, or the bare rope_theta when `key` is absent.
RopeSpec ReadObject(FieldReader& config, const char* key, double theta, int32_t max_positions) {
  RopeSpec rope;
  rope.theta = theta;
  const auto object = config.Object(key);
  if (!object) return rope;
  FieldReader in(*object, kErrModelConfig, config.where() + ": " + key);
  const std::string type = in.String("rope_type", in.String("type", "default"));
  const auto known = std::ranges::find(kTypes, type, [](const auto& entry) { return entry.first; });
  if (known == std::end(kTypes)) {
    in.Fail("rope_type", Quote(type) + " is not supported; supported: default, linear, llama3, yarn");
  } else {
    rope.type = known->second;
  }
  rope.theta = in.Number("rope_theta", kRopeThetaMin, kRopeThetaMax, theta);
  if (in.Number("partial_rotary_factor", 0, 1, 1.0) != 1.0) in.Fail("partial_rotary_factor", "below 1 is not supported");
  if (rope.type != RopeType::kDefault) rope.factor = in.Number("factor", 1, kRopeFactorMax);
  if (rope.type == RopeType::kLlama3 || rope.type == RopeType::kYarn) {
    rope.original_positions =
        static_cast<double>(in.WholeNumber("original_max_position_embeddings", 1, kPositionsMax, max_positions));
  }
  if (rope.type == RopeType::kLlama3) ReadLlama3(in, rope);
  if (rope.type == RopeType::kYarn) ReadYarn(in, rope);
  config.Adopt(in);
  return rope;
}

// f / factor for waves longer than the original context, f for those well inside it, a blend between.
double Llama3Frequency(const RopeSpec& rope, double f) {
  const double wave = kTwoPi / f, turns = rope.original_positions / wave;
  if (turns < rope.low_freq_factor) return f / rope.factor;
  if (turns > rope.high_freq_factor) return f;
  const double smooth = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - smooth) * f / rope.factor + smooth * f;
}

// The band of channels over which yarn goes from f to f / factor.
struct YarnBand {
  double low, high;
};

YarnBand FindYarnBand(const RopeSpec& rope, int32_t head_dim) {
  // The channel that turns `turns` times over the original context.
  const auto channel = [&](double turns) {
    return head_dim * LogD(rope.original_positions / (turns * kTwoPi)) / (2.0 * LogD(rope.theta));
  };
  YarnBand band{channel(rope.beta_fast), channel(rope.beta_slow)};
  // floor and ceil are exact: no system's libm can differ.
  if (rope.truncate) band = {std::floor(band.low), std::ceil(band.high)};
  band = {std::max(band.low, 0.0), std::min(band.high, static_cast<double>(head_dim - 1))};
  if (band.low == band.high) band.high += 0.001;
  return band;
}

}  // namespace

RopeSpec ReadRope(FieldReader& config, int32_t max_positions) {
  const double theta = config.Number("rope_theta", kRopeThetaMin, kRopeThetaMax, 10000.0);
  const bool nested = config.Has("rope_parameters");
  const RopeSpec rope = ReadObject(config, nested ? "rope_parameters" : "rope_scaling", theta, max_positions);
  if (nested && config.Has("rope_theta") && rope.theta != theta) {
    config.Fail("rope_theta", "disagrees with rope_parameters.rope_theta; remove one of the two");
  }
  if (nested && config.Has("rope_scaling") && ReadObject(config, "rope_scaling", rope.theta, max_positions) != rope) {
    config.Fail("rope_scaling", "disagrees with rope_parameters; remove one of the two");
  }
  return rope;
}

std::vector<float> RopeFrequencies(const RopeSpec& rope, int32_t head_dim) {
  YarnBand band{};
  if (rope.type == RopeType::kYarn) band = FindYarnBand(rope, head_dim);
  std::vector<float> frequencies;
  for (int32_t i = 0; i < head_dim / 2; ++i) {
    double f = ExpD(-2.0 * static_cast<double>(i) / static_cast<double>(head_dim) * LogD(rope.theta));
    if (rope.type == RopeType::kLinear) f = f / rope.factor;
    if (rope.type == RopeType::kLlama3) f = Llama3Frequency(rope, f);
    if (rope.type == RopeType::kYarn) {
      const double ramp = std::clamp((i - band.low) / (band.high - band.low), 0.0, 1.0);
      f = f / rope.factor * ramp + f * (1.0 - ramp);
    }
    if (!rope.divisors.empty()) f = f / static_cast<double>(rope.divisors[static_cast<size_t>(i)]);
    frequencies.push_back(static_cast<float>(f));
  }
  return frequencies;
}

}  // namespace rum
