// Sampling against an obvious implementation, random numbers against published answers, stop strings against a plain search.
// Usage: sampler_test
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "core/philox.h"
#include "run/sampler.h"
#include "run/stop_matcher.h"
#include "test/check.h"
#include "test/fixture.h"

namespace rum::test {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int32_t Sample(const Sampling& sampling, std::vector<float> logits, int32_t index, const TokenHistory& history = {}) {
  SampleScratch scratch(static_cast<int32_t>(logits.size()), Isa::kPortable);
  return SampleToken(sampling, logits, history, 42, 3, index, scratch);
}

std::vector<float> RandomLogits(size_t n, uint32_t seed, float spread) {
  std::mt19937 random(seed);
  std::vector<float> logits(n);
  // Not a <random> distribution: those differ between standard libraries. Coarse steps, so that there are ties.
  for (float& x : logits) x = spread * static_cast<float>(random() % 64) / 64.0f;
  return logits;
}

// Hugging Face's steps, one after the other on a fully sorted list, with std::exp.
int32_t ObviousSample(const Sampling& s, const std::vector<float>& logits, double uniform) {
  struct Candidate {
    int32_t id;
    double p;
  };
  std::vector<Candidate> list;
  for (size_t i = 0; i < logits.size(); ++i) {
    list.push_back({static_cast<int32_t>(i), std::exp(static_cast<double>(logits[i]) / static_cast<double>(s.temperature))});
  }
  if (s.top_k > 0 || s.top_p < 1.0f) std::ranges::stable_sort(list, [](auto& a, auto& b) { return a.p > b.p; });
  const auto normalise = [&list] {
    double total = 0.0;
    for (const Candidate& c : list) total += c.p;
    for (Candidate& c : list) c.p /= total;
  };
  if (s.top_k > 0) list.resize(std::min(list.size(), static_cast<size_t>(s.top_k)));
  normalise();
  if (s.top_p < 1.0f) {
    double sum = 0.0;
    size_t kept = 0;
    while (kept < list.size() && (kept == 0 || sum < static_cast<double>(s.top_p))) sum += list[kept++].p;
    list.resize(kept);
  }
  double best = 0.0;
  for (const Candidate& c : list) best = std::max(best, c.p);
  std::erase_if(list, [&](const Candidate& c) { return c.p < best * static_cast<double>(s.min_p); });
  normalise();
  for (const Candidate& c : list) {
    if (uniform < c.p) return c.id;
    uniform -= c.p;
  }
  return list.back().id;
}

void PhiloxKnownAnswers() {
  using Counter = std::array<uint32_t, 4>;
  constexpr uint32_t ones = 0xffffffffu;
  CHECK(Philox4x32({0, 0, 0, 0}, {0, 0}) == (Counter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  CHECK(Philox4x32({ones, ones, ones, ones}, {ones, ones}) == (Counter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  CHECK(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        (Counter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

void UniformIsAFunctionOfItsCounter() {
  double sum = 0.0, min = 1.0, max = 0.0;
  for (int32_t i = 0; i < 20000; ++i) {
    const double u = UniformD(7, i % 100, i / 100, 0);
    sum += u;
    min = std::min(min, u);
    max = std::max(max, u);
  }
  CHECK(min >= 0.0 && min < 0.001 && max < 1.0 && max > 0.999);
  CHECK(std::fabs(sum / 20000 - 0.5) < 0.01);
  const double u = UniformD(7, 1, 2, 3);
  CHECK(u == UniformD(7, 1, 2, 3));
  CHECK(u != UniformD(7, 2, 1, 3) && u != UniformD(7, 1, 2, 4) && u != UniformD(uint64_t{7} << 32, 1, 2, 3));
}

void GreedyTakesTheLowestIdOfEquals() {
  Sampling s;
  s.temperature = 0.0f;
  CHECK(Sample(s, {1.0f, 3.0f, 3.0f, -2.0f}, 0) == 1);
  CHECK(Sample(s, {-5.0f, -5.0f}, 0) == 0);
  s.logit_bias = {{3, 100.0f}};
  CHECK(Sample(s, {1.0f, 3.0f, 3.0f, -2.0f}, 0) == 3);
}

void FrequenciesFollowTheSoftmax() {
  const std::vector<float> logits = {0.0f, 1.0f, 2.0f, -1.0f, 0.5f};
  constexpr int32_t kDraws = 50000;
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    Sampling s;
    s.temperature = temperature;
    std::vector<double> count(logits.size()), p(logits.size());
    SampleScratch scratch(5, Isa::kPortable);
    for (int32_t i = 0; i < kDraws; ++i) {
      std::vector<float> copy = logits;
      ++count[static_cast<size_t>(SampleToken(s, copy, {}, 1, 0, i, scratch))];
    }
    double total = 0.0;
    for (size_t i = 0; i < p.size(); ++i) total += p[i] = std::exp(static_cast<double>(logits[i] / temperature));
    for (size_t i = 0; i < p.size(); ++i) {
      const double expected = p[i] / total, sigma = std::sqrt(expected * (1.0 - expected) / kDraws);
      CHECK(std::fabs(count[i] / kDraws - expected) < 4.0 * sigma);
    }
  }
}

void FiltersEqualTheObviousOnes() {
  int wrong = 0, cases = 0;
  for (const size_t vocab : {size_t{1}, size_t{2}, size_t{7}, size_t{50}, size_t{3000}}) {
    for (const int32_t top_k : {0, 1, 5, 40, 5000}) {
      for (const float top_p : {1.0f, 0.97f, 0.47f, 1e-6f}) {  // no multiple of 1/40: equals must not end at the edge
        for (const float min_p : {0.0f, 0.1f, 0.9f}) {
          Sampling s{.temperature = 0.7f, .top_k = top_k, .top_p = top_p, .min_p = min_p};
          for (int32_t index = 0; index < 4; ++index) {
            const std::vector<float> logits = RandomLogits(vocab, static_cast<uint32_t>(cases), vocab > 50 ? 2.0f : 6.0f);
            wrong += Sample(s, logits, index) != ObviousSample(s, logits, UniformD(42, 3, index, 0));
            ++cases;
          }
        }
      }
    }
  }
  CHECK(wrong == 0 && cases == 1200);
}

void PenaltiesByHand() {
  const std::vector<int32_t> prompt = {0, 0, 1};
  TokenHistory history(prompt, 8);
  for (const int32_t token : {1, 2, 2}) history.Add(token);
  CHECK(history.entries().size() == 3);
  const auto apply = [&](Sampling s) {
    s.temperature = 0.0f;
    std::vector<float> logits = {2.0f, -2.0f, 4.0f, 1.0f};
    SampleScratch scratch(4, Isa::kPortable);
    (void)SampleToken(s, logits, history, 0, 0, 0, scratch);
    return logits;
  };
  using Logits = std::vector<float>;
  CHECK(apply({.repetition_penalty = 2.0f}) == (Logits{1.0f, -4.0f, 2.0f, 1.0f}));  // once each, prompt included
  CHECK(apply({.presence_penalty = 0.5f}) == (Logits{2.0f, -2.5f, 3.5f, 1.0f}));    // generated tokens only
  CHECK(apply({.frequency_penalty = 0.5f}) == (Logits{2.0f, -2.5f, 3.0f, 1.0f}));   // for each occurrence
  CHECK(apply({.logit_bias = {{3, -100.0f}, {0, 1.5f}}}) == (Logits{3.5f, -2.0f, 4.0f, -99.0f}));
  CHECK(!HasPenalties({}) && HasPenalties({.frequency_penalty = -0.1f}));
}

void ExtremeValuesStillGiveAToken() {
  constexpr float kMax = std::numeric_limits<float>::max();
  TokenHistory history(std::vector<int32_t>{0, 1, 2}, 1);
  for (const float temperature : {1e-45f, 1e-6f, 1.0f, kMax}) {
    Sampling s{.temperature = temperature, .repetition_penalty = 1e-30f, .logit_bias = {{0, 100.0f}}};
    const int32_t token = Sample(s, {kMax, -kMax, 1.0f, 1.0f}, 0, history);
    CHECK(token >= 0 && token < 4);
    if (temperature < 1.0f) CHECK(token == 0);
  }
}

// With a mask the token is that of the allowed logits alone, whose ids keep their order.
void AMaskLeavesTheDistributionOfWhatItAllows() {
  int wrong = 0, cases = 0;
  std::mt19937 random(8);
  for (const size_t vocab : {size_t{1}, size_t{31}, size_t{33}, size_t{300}, size_t{3000}}) {
    for (const int32_t top_k : {0, 1, 7, 40}) {
      for (const float top_p : {1.0f, 0.9f, 0.2f}) {
        for (const float min_p : {0.0f, 0.3f}) {
          for (const float temperature : {0.0f, 0.7f}) {
            const Sampling s{.temperature = temperature, .top_k = top_k, .top_p = top_p, .min_p = min_p};
            std::vector<float> logits = RandomLogits(vocab, static_cast<uint32_t>(cases), 6.0f), allowed;
            TokenMask mask((vocab + 31) / 32);
            std::vector<int32_t> ids;
            for (size_t i = 0; i < vocab; ++i) {
              if (random() % 4 != 0 && i + 1 != vocab) continue;
              mask[i / 32] |= uint32_t{1} << (i % 32);
              ids.push_back(static_cast<int32_t>(i));
              allowed.push_back(logits[i]);
            }
            SampleScratch scratch(static_cast<int32_t>(vocab), Isa::kPortable);
            const int32_t token = SampleToken(s, logits, {}, 42, 3, cases, scratch, mask);
            wrong += token != ids[static_cast<size_t>(Sample(s, allowed, cases))];
            ++cases;
          }
        }
      }
    }
  }
  CHECK(wrong == 0 && cases == 5 * 4 * 3 * 2 * 2);
}

void AMaskComesAfterBiasesAndBeforeFilters() {
  const TokenMask second = {0b0010};
  SampleScratch scratch(4, Isa::kPortable);
  for (const float temperature : {0.0f, 1.0f}) {
    std::vector<float> logits = {100.0f, -std::numeric_limits<float>::max(), 3.0f, 4.0f};
    CHECK(SampleToken({.temperature = temperature, .top_k = 3, .top_p = 0.5f, .logit_bias = {{0, 100.0f}}}, logits, {}, 1, 0, 0, scratch, second) == 1);
  }
  CHECK(AllowsAny({0b0010}, 4) && !AllowsAny({0b10000}, 4) && !AllowsAny({0, 0}, 40) && AllowsAny({0, 0x80}, 40) && !AllowsAny({0, 0x100}, 40));
  CHECK(AllowsAny({0x80000000u}, 32) && !AllowsAny({0}, 32));
}

void LogprobsAreTheLogarithmsOfTheSoftmax() {
  double worst = 0.0;
  int wrong = 0;
  for (const size_t vocab : {size_t{2}, size_t{50}, size_t{257}, size_t{5000}, size_t{70001}}) {
    for (const float spread : {0.0f, 3.0f, 60.0f}) {
      const std::vector<float> logits = RandomLogits(vocab, static_cast<uint32_t>(vocab), spread);
      SampleScratch scratch(static_cast<int32_t>(vocab), Isa::kPortable);
      Logprobs logprobs{.top = static_cast<int32_t>(std::min<size_t>(vocab, 20))};
      const auto token = static_cast<int32_t>(vocab / 2);
      AddLogprobs(logits, token, scratch, &logprobs);
      const double best = static_cast<double>(*std::ranges::max_element(logits));
      double total = 0.0;
      for (const float logit : logits) total += std::exp(static_cast<double>(logit) - best);
      const auto want = [&](int32_t id) { return static_cast<double>(logits[static_cast<size_t>(id)]) - best - std::log(total); };
      const auto compare = [&](int32_t id, float got) { worst = std::max(worst, std::fabs(static_cast<double>(got) - want(id)) / std::max(1.0, std::fabs(want(id)))); };
      compare(token, logprobs.tokens[0]);
      std::vector<int32_t> order(vocab);
      for (size_t i = 0; i < vocab; ++i) order[i] = static_cast<int32_t>(i);
      std::ranges::stable_sort(order, std::greater<>(), [&](int32_t id) { return logits[static_cast<size_t>(id)]; });
      for (size_t i = 0; i < static_cast<size_t>(logprobs.top); ++i) {
        wrong += logprobs.top_ids[i] != order[i];
        compare(logprobs.top_ids[i], logprobs.top_values[i]);
      }
    }
  }
  CHECK(wrong == 0);
  CHECK(worst < 1e-7);
}

void RefusesWhatIsOutOfRange() {
  CHECK_OK(CheckSampling({}, 10));
  CHECK_OK(CheckSampling({.temperature = 0.0f, .top_k = 20, .top_p = 0.95f, .min_p = 0.1f, .logit_bias = {{9, -100.0f}}}, 10));
  const Sampling bad[] = {
      {.temperature = -1.0f},         {.temperature = kNan},         {.temperature = INFINITY},       {.top_k = -1},
      {.top_p = 0.0f},                {.top_p = 1.5f},               {.top_p = kNan},                 {.min_p = 1.0f},
      {.min_p = -0.1f},               {.min_p = kNan},               {.repetition_penalty = 0.0f},    {.repetition_penalty = kNan},
      {.presence_penalty = 2.5f},     {.presence_penalty = kNan},    {.frequency_penalty = -3.0f},    {.frequency_penalty = kNan},
      {.logit_bias = {{10, 1.0f}}},   {.logit_bias = {{-1, 1.0f}}},  {.logit_bias = {{1, 101.0f}}},   {.logit_bias = {{1, kNan}}},
  };
  for (const Sampling& s : bad) CHECK(Has(CheckSampling(s, 10), kErrOption));
}

// The first token that completes a match, and the least start of the matches it completes: by searching the whole text.
int64_t ObviousStop(const std::vector<std::string>& strings, const std::string& before, const std::string& text) {
  int64_t first = -1;
  for (const std::string& s : strings) {
    for (size_t at = text.find(s); at != std::string::npos; at = text.find(s, at + 1)) {
      const auto start = static_cast<int64_t>(at);
      if (at + s.size() > before.size() && (first < 0 || start < first)) first = start;
    }
  }
  return first;
}

void StopStringsEqualAPlainSearch() {
  std::mt19937 random(5);
  const auto word = [&random](size_t bytes_max) {
    std::string s(1 + random() % bytes_max, 'a');
    for (char& c : s) c = "ab"[random() % 2];
    return s;
  };
  int matches = 0, wrong = 0;
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::string> strings;
    for (size_t i = 0; i < 1 + random() % 4; ++i) strings.push_back(word(7));
    const Expected<StopMatcher> matcher = StopMatcher::Make(strings);
    if (!CHECK_OK(matcher)) return;
    StopState state = (*matcher).NewState();
    std::string text;
    for (int token = 0; token < 12; ++token) {  // goes on after a match: the state stays right
      const std::string before = text, piece = token % 5 == 4 ? "" : word(4);
      text += piece;
      const int64_t found = (*matcher).Append(piece, state);
      wrong += found != ObviousStop(strings, before, text);
      matches += found >= 0;
    }
  }
  CHECK(wrong == 0);
  CHECK(matches > 1000);
}

void StopStringsAreBounded() {
  CHECK(Has(StopMatcher::Make({""}).status(), kErrOption));
  CHECK(Has(StopMatcher::Make({std::string(257, 'x')}).status(), kErrOption));
  CHECK(Has(StopMatcher::Make(std::vector<std::string>(17, "x")).status(), kErrOption));
  CHECK_OK(StopMatcher::Make(std::vector<std::string>(16, std::string(256, 'x'))));
}

}  // namespace
}  // namespace rum::test

int main() {
  using namespace rum::test;
  return RunAll({
      {"Philox4x32-10 gives the known answers of Random123", PhiloxKnownAnswers},
      {"a uniform number lies in [0, 1) and depends on its counter only", UniformIsAFunctionOfItsCounter},
      {"greedy takes the lowest id among equals", GreedyTakesTheLowestIdOfEquals},
      {"sampled frequencies follow the softmax at each temperature", FrequenciesFollowTheSoftmax},
      {"top-k, top-p and min-p in all combinations equal a full sort", FiltersEqualTheObviousOnes},
      {"penalties and biases change the logits as Hugging Face and OpenAI say", PenaltiesByHand},
      {"extreme logits, temperatures and penalties still give a token", ExtremeValuesStillGiveAToken},
      {"with a mask the token is drawn from what it allows, under every filter", AMaskLeavesTheDistributionOfWhatItAllows},
      {"a mask comes after biases and before filters", AMaskComesAfterBiasesAndBeforeFilters},
      {"log-probabilities are those of a softmax in double, the likeliest tokens first", LogprobsAreTheLogarithmsOfTheSoftmax},
      {"a sampling option out of range is refused, NaN included", RefusesWhatIsOutOfRange},
      {"stop strings across token borders are found as by a plain search", StopStringsEqualAPlainSearch},
      {"stop strings are bounded in number and length", StopStringsAreBounded},
  });
}
