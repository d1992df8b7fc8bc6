#include "run/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "core/exact_math.h"
#include "core/philox.h"

namespace rum {
namespace {

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

// The lowest id among the largest. The maximum first, in lanes that a compiler makes a vector of, then where it stands.
int32_t BestToken(std::span<const float> logits) {
  constexpr size_t kLaneCount = 16;
  float lanes[kLaneCount];
  std::fill_n(lanes, kLaneCount, logits[0]);
  size_t id = 0;
  for (; id + kLaneCount <= logits.size(); id += kLaneCount) {
    for (size_t l = 0; l < kLaneCount; ++l) lanes[l] = logits[id + l] > lanes[l] ? logits[id + l] : lanes[l];
  }
  float best = *std::max_element(lanes, lanes + kLaneCount);
  for (; id < logits.size(); ++id) best = logits[id] > best ? logits[id] : best;
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), best) - logits.begin());
}

// exp of a candidate's scaled distance to the best. Below e^-37 it is 0: a 53-bit random number resolves no less, and most
// of a large vocabulary lies there.
inline double Weight(float logit, double top, double temperature) {
  const double x = (static_cast<double>(logit) - top) / temperature;
  return x < -37.0 ? 0.0 : ExpD(x);
}

void FillWeightsPortable(std::span<const float> logits, double top, double temperature, double* weights) {
  for (size_t id = 0; id < logits.size(); ++id) weights[id] = Weight(logits[id], top, temperature);
}

#if defined(__x86_64__) && defined(__GNUC__)
// The same code, and the same bits, with the instruction: else every fma is a call, which costs milliseconds on 150,000 tokens.
__attribute__((target("fma"), flatten)) void FillWeightsFma(std::span<const float> logits, double top, double temperature,
                                                            double* weights) {
  for (size_t id = 0; id < logits.size(); ++id) weights[id] = Weight(logits[id], top, temperature);
}
void FillWeights(std::span<const float> logits, double top, double temperature, double* weights) {
  static const bool has_fma = __builtin_cpu_supports("fma");
  (has_fma ? FillWeightsFma : FillWeightsPortable)(logits, top, temperature, weights);
}
#else
void FillWeights(std::span<const float> logits, double top, double temperature, double* weights) {
  FillWeightsPortable(logits, top, temperature, weights);
}
#endif

// One draw over candidates of a distribution, in their order. `n` candidates; weight(i) is not normalised.
template <class Weight>
size_t Draw(size_t n, double uniform, Weight weight) {
  double total = 0.0;
  for (size_t i = 0; i < n; ++i) total += weight(i);
  const double target = uniform * total;
  double sum = 0.0;
  size_t last = 0;  // if rounding makes target == total: the last candidate that can be drawn
  for (size_t i = 0; i < n; ++i) {
    const double w = weight(i);
    if (w == 0.0) continue;
    last = i;
    sum += w;
    if (target < sum) break;
  }
  return last;
}

// The candidates of top-k and top-p. ids[0, sorted) are the best ones in order; the rest is unsorted and worse.
class Ranking {
 public:
  Ranking(std::span<const float> logits, std::vector<int32_t>& ids) : logits_(logits), ids_(ids) {
    std::iota(ids_.begin(), ids_.end(), 0);
  }
  // Sorts at least the first n: a selection and a sort of the selected, so that a large vocabulary is passed over once.
  void SortUpTo(size_t n) {
    if (n <= sorted_) return;
    const auto before = [this](int32_t a, int32_t b) {
      const float x = logits_[static_cast<size_t>(a)], y = logits_[static_cast<size_t>(b)];
      return x > y || (x == y && a < b);
    };
    const auto begin = ids_.begin() + static_cast<std::ptrdiff_t>(sorted_), end = ids_.begin() + static_cast<std::ptrdiff_t>(n);
    if (n - sorted_ <= 256) {  // a heap of the best, and most of the vocabulary is compared with its worst only
      std::partial_sort(begin, end, ids_.end(), before);
    } else {
      if (end != ids_.end()) std::nth_element(begin, end, ids_.end(), before);
      std::sort(begin, end, before);
    }
    sorted_ = n;
  }
  // The id of rank i. Sorts further in growing steps: top-p does not know beforehand how far it has to look.
  int32_t At(size_t i) {
    if (i >= sorted_) SortUpTo(std::min(ids_.size(), std::max<size_t>(64, 4 * i)));
    return ids_[i];
  }

 private:
  std::span<const float> logits_;
  std::vector<int32_t>& ids_;
  size_t sorted_ = 0;
};

int32_t SampleRanked(const Sampling& s, std::span<const float> logits, double top, double uniform, SampleScratch& scratch) {
  const double temperature = static_cast<double>(s.temperature);
  std::vector<double>& weights = scratch.weights;  // by id
  Ranking ranking(logits, scratch.ids);
  size_t kept = logits.size();
  if (s.top_k > 0 && static_cast<size_t>(s.top_k) < kept) {
    kept = static_cast<size_t>(s.top_k);
    ranking.SortUpTo(kept);
    for (size_t i = 0; i < kept; ++i) {
      const auto id = static_cast<size_t>(ranking.At(i));
      weights[id] = Weight(logits[id], top, temperature);
    }
  } else {
    FillWeights(logits, top, temperature, weights.data());
  }
  if (s.top_p < 1.0f) {
    double total = 0.0;
    for (size_t i = 0; i < kept; ++i) {
      total += kept == logits.size() ? weights[i] : weights[static_cast<size_t>(ranking.At(i))];
    }
    const double wanted = static_cast<double>(s.top_p) * total;
    double sum = 0.0;
    size_t prefix = 0;
    while (prefix < kept && (prefix == 0 || sum < wanted)) sum += weights[static_cast<size_t>(ranking.At(prefix++))];
    kept = prefix;
  }
  const auto weight = [&](size_t i) {
    const double w = weights[static_cast<size_t>(ranking.At(i))];
    return w < static_cast<double>(s.min_p) ? 0.0 : w;
  };
  return ranking.At(Draw(kept, uniform, weight));
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
                    int32_t index, SampleScratch& scratch) {
  if (HasPenalties(s)) ApplyPenalties(s, history, logits);
  for (const auto& [token, bias] : s.logit_bias) {
    float& logit = logits[static_cast<size_t>(token)];
    logit = ClampFinite(logit + bias);
  }
  const int32_t best = BestToken(logits);
  if (s.temperature == 0.0f) return best;

  // Relative to the best, whose weight is therefore exactly 1.
  const double top = static_cast<double>(logits[static_cast<size_t>(best)]);
  const double uniform = UniformD(seed, chain, index, 0);
  if (s.top_k > 0 || s.top_p < 1.0f) return SampleRanked(s, logits, top, uniform, scratch);
  FillWeights(logits, top, static_cast<double>(s.temperature), scratch.weights.data());
  const auto weight = [&](size_t id) {
    const double w = scratch.weights[id];
    return w < static_cast<double>(s.min_p) ? 0.0 : w;
  };
  return static_cast<int32_t>(Draw(logits.size(), uniform, weight));
}

}  // namespace rum
