#include "run/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <string>

#include "backend/cpu/kernels.h"
#include "core/exact_math.h"
#include "core/philox.h"

namespace rum {
namespace {

constexpr size_t kBlock = kWeightBlock;

constexpr size_t BlockCount(size_t n) { return (n + kBlock - 1) / kBlock; }

// A penalty may overflow a float; candidates must stay comparable and their differences finite.
float ClampFinite(float x) {
  constexpr float kMax = std::numeric_limits<float>::max();
  return std::clamp(x, -kMax, kMax);
}

void ApplyPenalties(const Sampling& s, const TokenHistory& history, std::span<float> logits) {
  for (const TokenHistory::Entry& entry : history.entries()) {
    float& logit = logits[static_cast<size_t>(entry.token)];
    logit = ClampFinite(logit < 0.0f ? logit * s.repetition_penalty : logit / s.repetition_penalty);
    if (entry.generated == 0) continue;
    logit = logit - s.presence_penalty;
    logit = ClampFinite(logit - static_cast<float>(entry.generated) * s.frequency_penalty);
  }
}

void ApplyMask(std::span<const uint32_t> mask, std::span<float> logits) {
  for (size_t begin = 0; begin < logits.size(); begin += 32) {
    const size_t n = std::min<size_t>(32, logits.size() - begin);
    for (uint32_t barred = ~mask[begin / 32]; barred != 0; barred &= barred - 1) {
      const auto bit = static_cast<size_t>(std::countr_zero(barred));
      if (bit >= n) break;
      logits[begin + bit] = -std::numeric_limits<float>::infinity();
    }
  }
}

// Greedy search by blocks: the largest of each, then the lowest id among the largest.
int32_t BestToken(std::span<const float> logits, SampleScratch& scratch) {
  scratch.kernels.block_maxima(logits.data(), static_cast<int64_t>(logits.size()), scratch.maxima.data());
  const auto block = std::ranges::max_element(scratch.maxima) - scratch.maxima.begin();  // the first of equals
  const auto begin = logits.begin() + block * kWeightBlock;
  return static_cast<int32_t>(std::find(begin, logits.end(), *(scratch.maxima.begin() + block)) - logits.begin());
}

// The weight of all candidates, whose logits are given in their order; the sums of their blocks stay in scratch.
double TotalWeight(std::span<const float> candidates, const WeightRule& rule, SampleScratch& scratch) {
  scratch.kernels.weight_sums(candidates.data(), static_cast<int64_t>(candidates.size()), rule, scratch.sums.data());
  double total = 0.0;
  for (size_t b = 0; b < BlockCount(candidates.size()); ++b) total += scratch.sums[b];
  return total;
}

// After TotalWeight: the first candidate at which the weight of all up to it satisfies `reached`, or candidates.size(). First its
// block, by the sums, then the place inside. Should the block's weights one by one round to less than their sum by lanes and not get
// there, it is the block's last candidate with a weight.
template <class Reached>
size_t Locate(std::span<const float> candidates, const WeightRule& rule, const SampleScratch& scratch, Reached reached) {
  double sum = 0.0;
  size_t b = 0;
  for (; b < BlockCount(candidates.size()) && !reached(sum + scratch.sums[b]); ++b) sum += scratch.sums[b];
  if (b == BlockCount(candidates.size())) return candidates.size();
  const size_t begin = b * kBlock, n = std::min(kBlock, candidates.size() - begin);
  double weights[kBlock];
  scratch.kernels.weights(candidates.data() + begin, static_cast<int64_t>(n), rule, weights);
  size_t last = 0;
  for (size_t i = 0; i < n; ++i) {
    if (weights[i] == 0.0) continue;
    last = i;
    sum += weights[i];
    if (reached(sum)) break;
  }
  return begin + last;
}

// One draw over candidates, the best of which has the weight 1. uniform < 1, so target < total, which is what Locate's sums end with.
size_t Draw(std::span<const float> candidates, double uniform, const WeightRule& rule, SampleScratch& scratch) {
  const double target = uniform * TotalWeight(candidates, rule, scratch);
  return Locate(candidates, rule, scratch, [target](double sum) { return target < sum; });
}

// Descending by logit as ascending bytes: byte `shift` / 8 of it.
inline size_t SortByte(float logit, int shift) {
  const auto bits = std::bit_cast<uint32_t>(logit + 0.0f);  // -0 and +0 are equals
  const uint32_t key = (bits >> 31) != 0 ? bits : ~bits & 0x7fffffffu;
  return key >> shift & 0xff;
}

// All ids to scratch.ids, best first: a radix sort, and as it is stable equals stay in order of their ids.
void SortAll(std::span<const float> logits, SampleScratch& scratch) {
  std::iota(scratch.ids.begin(), scratch.ids.end(), 0);
  for (int shift = 0; shift < 32; shift += 8) {
    std::array<size_t, 256> place = {};
    for (const float logit : logits) ++place[SortByte(logit, shift)];
    std::exclusive_scan(place.begin(), place.end(), place.begin(), size_t{0});
    for (const int32_t id : scratch.ids) scratch.sorting[place[SortByte(logits[static_cast<size_t>(id)], shift)]++] = id;
    std::swap(scratch.ids, scratch.sorting);
  }
}

// The n best ids to scratch.ids in order, n <= blocks of the vocabulary. Only what the maxima of the blocks (of BestToken) allow is
// looked at: n blocks have a maximum of at least `least`, so n logits are not below it.
void SortFew(std::span<const float> logits, size_t n, SampleScratch& scratch) {
  const std::span<float> maxima = std::span(scratch.ranked).first(scratch.maxima.size());
  std::ranges::copy(scratch.maxima, maxima.begin());
  std::ranges::nth_element(maxima, maxima.begin() + static_cast<std::ptrdiff_t>(n - 1), std::greater<>());
  const float least = maxima[n - 1];
  size_t count = 0;
  for (size_t b = 0; b < scratch.maxima.size(); ++b) {
    if (scratch.maxima[b] < least) continue;
    const size_t begin = b * kBlock, size = std::min(kBlock, logits.size() - begin);
    count += static_cast<size_t>(scratch.kernels.select_at_least(logits.data() + begin, static_cast<int64_t>(size), least,
                                                                 static_cast<int32_t>(begin), scratch.ids.data() + count));
  }
  const auto begin = scratch.ids.begin(), end = begin + static_cast<std::ptrdiff_t>(count);
  std::partial_sort(begin, begin + static_cast<std::ptrdiff_t>(n), end, [logits](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)], y = logits[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  });
}

// The logits of the n best, in order (descending, then by id); their ids are in scratch.ids.
std::span<const float> Rank(std::span<const float> logits, size_t n, SampleScratch& scratch) {
  n <= scratch.maxima.size() ? SortFew(logits, n, scratch) : SortAll(logits, scratch);
  for (size_t i = 0; i < n; ++i) scratch.ranked[i] = logits[static_cast<size_t>(scratch.ids[i])];
  return std::span(scratch.ranked).first(n);
}

// The smallest prefix of `ranked` with the weight `wanted`, or all.
std::span<const float> Prefix(std::span<const float> ranked, double wanted, const WeightRule& rule, const SampleScratch& scratch) {
  const size_t at = Locate(ranked, rule, scratch, [wanted](double sum) { return sum >= wanted; });
  return ranked.first(std::min(at + 1, ranked.size()));
}

// The candidates of top-k and top-p, best first.
std::span<const float> Filter(const Sampling& s, std::span<const float> logits, const WeightRule& rule, SampleScratch& scratch) {
  const bool top_k = s.top_k > 0 && static_cast<size_t>(s.top_k) < logits.size();
  const auto top_p = static_cast<double>(s.top_p);
  if (top_k) {
    const std::span<const float> ranked = Rank(logits, static_cast<size_t>(s.top_k), scratch);
    return s.top_p == 1.0f ? ranked : Prefix(ranked, top_p * TotalWeight(ranked, rule, scratch), rule, scratch);
  }
  if (s.top_p == 1.0f) return Rank(logits, logits.size(), scratch);
  const double wanted = top_p * TotalWeight(logits, rule, scratch);
  // In a peaked distribution one block will do, and that is found without sorting the rest.
  if (kBlock <= scratch.maxima.size()) {
    const std::span<const float> ranked = Rank(logits, kBlock, scratch);
    if (TotalWeight(ranked, rule, scratch) >= wanted) return Prefix(ranked, wanted, rule, scratch);
  }
  const std::span<const float> ranked = Rank(logits, logits.size(), scratch);
  TotalWeight(ranked, rule, scratch);
  return Prefix(ranked, wanted, rule, scratch);
}

int32_t SampleRanked(const Sampling& s, std::span<const float> logits, WeightRule rule, double uniform, SampleScratch& scratch) {
  const std::span<const float> kept = Filter(s, logits, rule, scratch);
  rule.least = static_cast<double>(s.min_p);
  return scratch.ids[Draw(kept, uniform, rule, scratch)];
}

Status Refuse(const char* option, const char* range) { return Error(kErrOption, std::string(option) + " must be " + range); }

}  // namespace

Status CheckSampling(const Sampling& s, int32_t vocab_size) {
  // Written so that NaN fails each of them.
  if (!(s.temperature >= 0.0f && std::isfinite(s.temperature))) return Refuse("temperature", "a number of at least 0");
  if (s.top_k < 0) return Refuse("top_k", "0 (off) or more");
  if (!(s.top_p > 0.0f && s.top_p <= 1.0f)) return Refuse("top_p", "above 0 and at most 1");
  if (!(s.min_p >= 0.0f && s.min_p < 1.0f)) return Refuse("min_p", "at least 0 and below 1");
  if (!(s.repetition_penalty > 0.0f && std::isfinite(s.repetition_penalty))) return Refuse("repetition_penalty", "above 0");
  if (!(std::fabs(s.presence_penalty) <= 2.0f)) return Refuse("presence_penalty", "between -2 and 2");
  if (!(std::fabs(s.frequency_penalty) <= 2.0f)) return Refuse("frequency_penalty", "between -2 and 2");
  for (const auto& [token, bias] : s.logit_bias) {
    if (token < 0 || token >= vocab_size) return Refuse("logit_bias", "about token ids of the vocabulary");
    if (!(std::fabs(bias) <= 100.0f)) return Refuse("logit_bias", "between -100 and 100");
  }
  return Status::Ok();
}

SampleScratch::SampleScratch(int32_t vocab_size, Isa isa)
    : kernels(*KernelsFor(isa)), ids(static_cast<size_t>(vocab_size)), sorting(ids.size()), ranked(ids.size()),
      maxima(BlockCount(ids.size())), sums(maxima.size()) {}

bool HasPenalties(const Sampling& s) {
  return s.repetition_penalty != 1.0f || s.presence_penalty != 0.0f || s.frequency_penalty != 0.0f;
}

TokenHistory::TokenHistory(std::span<const int32_t> prompt, int32_t generated_max) {
  std::vector<int32_t> tokens(prompt.begin(), prompt.end());
  std::sort(tokens.begin(), tokens.end());
  tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
  entries_.reserve(tokens.size() + static_cast<size_t>(generated_max));
  for (const int32_t token : tokens) entries_.push_back({token, 0});
}

void TokenHistory::Add(int32_t token) {
  for (Entry& entry : entries_) {
    if (entry.token == token) {
      ++entry.generated;
      return;
    }
  }
  entries_.push_back({token, 1});
}

int32_t SampleToken(const Sampling& s, std::span<float> logits, const TokenHistory& history, uint64_t seed, int32_t chain,
                    int32_t index, SampleScratch& scratch, std::span<const uint32_t> mask) {
  if (HasPenalties(s)) ApplyPenalties(s, history, logits);
  for (const auto& [token, bias] : s.logit_bias) {
    float& logit = logits[static_cast<size_t>(token)];
    logit = ClampFinite(logit + bias);
  }
  if (!mask.empty()) ApplyMask(mask, logits);
  const int32_t best = BestToken(logits, scratch);
  if (s.temperature == 0.0f) return best;

  // Relative to the best, whose weight is therefore exactly 1.
  WeightRule rule = {static_cast<double>(logits[static_cast<size_t>(best)]), 1.0 / static_cast<double>(s.temperature), 0.0};
  const double uniform = UniformD(seed, chain, index, 0);
  if (s.top_k > 0 || s.top_p < 1.0f) return SampleRanked(s, logits, rule, uniform, scratch);
  rule.least = static_cast<double>(s.min_p);
  return static_cast<int32_t>(Draw(logits, uniform, rule, scratch));
}

bool AllowsAny(const TokenMask& mask, int32_t vocab_size) {
  const auto whole = static_cast<size_t>(vocab_size) / 32, rest = static_cast<size_t>(vocab_size) % 32;
  if (std::any_of(mask.begin(), mask.begin() + static_cast<std::ptrdiff_t>(whole), [](uint32_t word) { return word != 0; })) return true;
  return rest != 0 && (mask[whole] & ((uint32_t{1} << rest) - 1)) != 0;
}

void AddLogprobs(std::span<const float> logits, int32_t token, SampleScratch& scratch, Logprobs* logprobs) {
  const auto best = static_cast<double>(logits[static_cast<size_t>(BestToken(logits, scratch))]);
  const double log_total = LogD(TotalWeight(logits, {best, 1.0, 0.0}, scratch));
  const auto of = [best, log_total](float logit) { return static_cast<float>(static_cast<double>(logit) - best - log_total); };
  logprobs->tokens.push_back(of(logits[static_cast<size_t>(token)]));
  if (logprobs->top == 0) return;
  const std::span<const float> ranked = Rank(logits, static_cast<size_t>(logprobs->top), scratch);
  for (size_t i = 0; i < ranked.size(); ++i) {
    logprobs->top_ids.push_back(scratch.ids[i]);
    logprobs->top_values.push_back(of(ranked[i]));
  }
}

}  // namespace rum
