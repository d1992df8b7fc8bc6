// The law of bits for sampling and for the angles of RoPE (docs/NUMERICS.md): every level gives what plain loops over the scalar
// functions of core/exact_math.h give.
// Usage: sampler_bits_test
#include <bit>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "backend/cpu/kernels.h"
#include "core/philox.h"
#include "run/run.h"
#include "test/check.h"
#include "test/fixture.h"
#include "test/pass.h"
#include "test/plain_sampler.h"

namespace rum::test {
namespace {

template <class T>
bool SameBytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Sums of four uniform numbers; with `ties` cut to steps of 1/8.
std::vector<float> Logits(size_t n, uint32_t seed, float spread, bool ties = false) {
  std::mt19937 random(seed);
  std::vector<float> logits(n);
  for (float& x : logits) {
    x = 0.0f;
    for (int i = 0; i < 4; ++i) x += spread * (static_cast<float>(random() >> 8) * 0x1p-24f - 0.5f);
    if (ties) x = static_cast<float>(static_cast<int32_t>(x * 8.0f)) * 0.125f;
  }
  return logits;
}

constexpr size_t kSizes[] = {1, 2, 15, 16, 17, 31, 100, 255, 256, 257, 300, 511, 512, 529, 4000};
constexpr float kTemperatures[] = {1e-45f, 0.1f, 0.7f, 1.0f, 1.7f, 3e38f};

void WeightsAndTheirSumsHaveTheBitsOfTheDefinition() {
  for (const size_t n : kSizes) {
    for (const float spread : {0.0f, 3.0f, 40.0f, 1e30f}) {
      const std::vector<float> logits = Logits(n, static_cast<uint32_t>(n), spread);
      const float best = *std::ranges::max_element(logits);
      for (const float temperature : kTemperatures) {
        for (const double least : {0.0, 0.05, 0.9}) {
          std::vector<double> want;
          for (const float logit : logits) {
            const double weight = PlainWeight(logit, best, temperature);
            want.push_back(weight < least ? 0.0 : weight);
          }
          const std::vector<double> want_sums = PlainBlockSums(want);
          const WeightRule rule = {static_cast<double>(best), 1.0 / static_cast<double>(temperature), least};
          for (const Isa isa : Levels()) {
            std::vector<double> weights(n, -1.0), sums(want_sums.size(), -1.0);
            KernelsFor(isa)->weights(logits.data(), static_cast<int64_t>(n), rule, weights.data());
            KernelsFor(isa)->weight_sums(logits.data(), static_cast<int64_t>(n), rule, sums.data());
            CHECK(SameBytes(weights, want) && SameBytes(sums, want_sums));
          }
        }
      }
    }
  }
}

// The exponent passes over the whole range in steps that no float of a logit would give.
void ExpHasTheBitsOfExpD() {
  std::vector<float> logits;
  for (int32_t i = 0; i < 200000; ++i) logits.push_back(static_cast<float>(-i) * 1.9e-4f);
  for (const double scale : {1.0, 0.97, 1.0 / 3.0}) {
    std::vector<double> want;
    for (const float logit : logits) {
      const double x = static_cast<double>(logit) * scale;
      want.push_back(x < -37.0 ? 0.0 : ExpD(x));
    }
    for (const Isa isa : Levels()) {
      std::vector<double> weights(logits.size());
      KernelsFor(isa)->weights(logits.data(), static_cast<int64_t>(logits.size()), {0.0, scale, 0.0}, weights.data());
      CHECK(SameBytes(weights, want));
    }
  }
}

void MaximaAndSelectionsEqualAPlainSearch() {
  for (const size_t n : kSizes) {
    for (const bool ties : {false, true}) {
      const std::vector<float> logits = Logits(n, 5, 6.0f, ties);
      std::vector<float> want_maxima;
      for (size_t b = 0; b < n; b += kWeightBlock) {
        want_maxima.push_back(*std::max_element(logits.begin() + static_cast<std::ptrdiff_t>(b),
                                                logits.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(n, b + kWeightBlock))));
      }
      for (const Isa isa : Levels()) {
        std::vector<float> maxima(want_maxima.size());
        KernelsFor(isa)->block_maxima(logits.data(), static_cast<int64_t>(n), maxima.data());
        CHECK(maxima == want_maxima);
        for (const float least : {-100.0f, 0.0f, 1.5f, want_maxima[0], 100.0f}) {
          std::vector<int32_t> want, ids(n);
          for (size_t i = 0; i < n; ++i) {
            if (logits[i] >= least) want.push_back(static_cast<int32_t>(i) + 7);
          }
          ids.resize(static_cast<size_t>(KernelsFor(isa)->select_at_least(logits.data(), static_cast<int64_t>(n), least, 7, ids.data())));
          CHECK(ids == want);
        }
      }
    }
  }
}

void EveryLevelSamplesTheTokenOfTheDefinition() {
  int cases = 0, wrong = 0;
  for (const size_t vocab : {size_t{1}, size_t{2}, size_t{50}, size_t{256}, size_t{257}, size_t{3000}, size_t{70001}}) {
    for (const float spread : {0.0f, 4.0f, 25.0f}) {
      for (const bool ties : {false, true}) {
        std::vector<float> logits = Logits(vocab, 3, spread, ties);
        logits[vocab / 2] = -0.0f;  // equal to +0 in every order
        const auto best = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
        for (const Isa isa : Levels()) {
          SampleScratch scratch(static_cast<int32_t>(vocab), isa);
          std::vector<float> copy = logits;
          wrong += SampleToken({.temperature = 0.0f}, copy, {}, 9, 2, 0, scratch) != best;
        }
        for (const int32_t top_k : {0, 1, 40, 1000}) {
          for (const float top_p : {1.0f, 0.95f, 0.3f}) {
            for (const float min_p : {0.0f, 0.1f}) {
              const Sampling s{.temperature = 0.8f, .top_k = top_k, .top_p = top_p, .min_p = min_p};
              ++cases;
              const double uniform = UniformD(9, 2, cases, 0);
              const int32_t want = PlainSample(s, logits, uniform);
              for (const Isa isa : Levels()) {
                SampleScratch scratch(static_cast<int32_t>(vocab), isa);
                std::vector<float> copy = logits;
                wrong += SampleToken(s, copy, {}, 9, 2, cases, scratch) != want;
              }
            }
          }
        }
      }
    }
  }
  CHECK(wrong == 0 && cases == 7 * 3 * 2 * 24);
}

// "Sampling" of docs/NUMERICS.md with a mask, and its log-probabilities.
void EveryLevelGivesTheSameMaskedTokensAndLogprobs() {
  int cases = 0, wrong = 0;
  for (const size_t vocab : {size_t{2}, size_t{50}, size_t{257}, size_t{3000}, size_t{70001}}) {
    for (const bool ties : {false, true}) {
      const std::vector<float> logits = Logits(vocab, 4, 12.0f, ties);
      TokenMask mask((vocab + 31) / 32, 0x21084210u);
      mask[0] |= 1;
      std::vector<float> masked = logits;
      for (size_t i = 0; i < vocab; ++i) {
        if ((mask[i / 32] >> (i % 32) & 1) == 0) masked[i] = -std::numeric_limits<float>::infinity();
      }
      const float best = *std::ranges::max_element(logits);
      std::vector<double> weights;
      for (const float logit : logits) weights.push_back(PlainWeight(logit, best, 1.0f));
      const double log_total = LogD(PlainTotal(weights));
      for (const int32_t top_k : {0, 1, 40}) {
        for (const float top_p : {1.0f, 0.6f}) {
          const Sampling s{.temperature = 0.8f, .top_k = top_k, .top_p = top_p};
          ++cases;
          const int32_t want = PlainSample(s, masked, UniformD(9, 2, cases, 0));
          for (const Isa isa : Levels()) {
            SampleScratch scratch(static_cast<int32_t>(vocab), isa);
            std::vector<float> copy = logits;
            wrong += SampleToken(s, copy, {}, 9, 2, cases, scratch, mask) != want;
            wrong += std::memcmp(copy.data(), masked.data(), vocab * sizeof(float)) != 0;
            Logprobs logprobs{.top = 2};
            AddLogprobs(logits, want, scratch, &logprobs);
            const auto of = [&](int32_t id) { return static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) - static_cast<double>(best) - log_total); };
            wrong += std::bit_cast<uint32_t>(logprobs.tokens[0]) != std::bit_cast<uint32_t>(of(want));
            wrong += logprobs.top_values[0] != of(logprobs.top_ids[0]) || logits[static_cast<size_t>(logprobs.top_ids[0])] != best;
          }
        }
      }
    }
  }
  CHECK(wrong == 0 && cases == 5 * 2 * 6);
}

void AnglesHaveTheBitsOfRopeAngle() {
  for (const int32_t half : {1, 3, 8, 10, 16, 32, 36, 64}) {
    std::vector<float> frequencies;
    for (int32_t i = 0; i < half; ++i) frequencies.push_back(static_cast<float>(ExpD(-0.3 * i)));
    for (const double factor : {1.0, 1.1386294361119891}) {
      // The last ones are numerators of pi's continued fraction: near multiples of pi the reduction's every part counts.
      for (const int32_t position : {0, 1, 2, 3, 5, 100, 4095, 32767, 131071, 1000003, 355, 103993, 5419351, 80143857, 411557987}) {
        std::vector<float> want_cos(frequencies.size()), want_sin(frequencies.size());
        for (size_t i = 0; i < frequencies.size(); ++i) RopeAngle(position, frequencies[i], factor, &want_cos[i], &want_sin[i]);
        for (const Isa isa : Levels()) {
          std::vector<float> cos(frequencies.size()), sin(frequencies.size());
          KernelsFor(isa)->rope_angles(position, frequencies.data(), factor, half, cos.data(), sin.data());
          CHECK(SameBytes(cos, want_cos) && SameBytes(sin, want_sin));
        }
      }
    }
  }
}

// A vocabulary and a width for which the backend's threads are worth waking.
void ThreadsAndLevelsChangeNoSampledToken() {
  const Shape shape = {"", 20000, 32, 48, 1, 2, 1, 16, 5, PolicyKind::kDmsBorrowed, false, true, DType::kF32, KvType::kF32};
  const ModelConfig config = ConfigOf(shape);
  const auto model = MakeSynthetic(config, shape.types, 7);
  for (const Sampling& sampling : {Sampling{}, Sampling{.top_k = 50, .presence_penalty = 0.5f}, Sampling{.top_p = 0.9f}}) {
    RunOptions options;
    options.prompt = {1, 2, 3};
    options.width = 7;
    options.lengths.assign(7, 5);
    options.seed = 11;
    options.sampling = sampling;
    std::vector<std::vector<int32_t>> want;
    for (const Isa isa : Levels()) {
      for (const int32_t threads : {1, 3, 9}) {
        BackendOptions backend_options;
        backend_options.isa = isa;
        backend_options.threads = threads;
        auto run = Run::Create(Must(MakeCpuBackend(model, backend_options)), model, options);
        CHECK_OK(run.status());
        CHECK_OK((*run)->Prefill());
        while ((*run)->Report().running > 0) {
          if (!CHECK_OK((*run)->Step(8))) return;
        }
        std::vector<std::vector<int32_t>> tokens;
        for (const ChainReport& chain : (*run)->Report().chains) tokens.push_back(chain.tokens);
        CHECK(tokens[0] != tokens[1]);
        if (want.empty()) want = tokens;
        CHECK(tokens == want);
      }
    }
  }
}

}  // namespace
}  // namespace rum::test

int main() {
  using namespace rum::test;
  return RunAll({
      {"weights and the sums of their blocks have the bits of the definition at every level", WeightsAndTheirSumsHaveTheBitsOfTheDefinition},
      {"exp of weights has the bits of ExpD over its whole range", ExpHasTheBitsOfExpD},
      {"block maxima and selections equal a plain search", MaximaAndSelectionsEqualAPlainSearch},
      {"every level samples the token of the definition under every filter", EveryLevelSamplesTheTokenOfTheDefinition},
      {"every level gives the token of the definition under a mask, and its log-probabilities", EveryLevelGivesTheSameMaskedTokensAndLogprobs},
      {"RoPE angles have the bits of RopeAngle at every level", AnglesHaveTheBitsOfRopeAngle},
      {"threads and levels change no sampled token of a run", ThreadsAndLevelsChangeNoSampledToken},
  });
}
