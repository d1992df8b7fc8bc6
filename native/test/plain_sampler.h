// "Sampling" of docs/NUMERICS.md as plain loops over a full sort: what the sampler must give, token for token and bit for bit.
#pragma once
#include <algorithm>
#include <span>
#include <vector>

#include "backend/reference/math.h"
#include "run/sampler.h"

namespace rum::test {

inline constexpr size_t kPlainBlock = 256;

inline double PlainWeight(float logit, float best, float temperature) {
  const double x = (static_cast<double>(logit) - static_cast<double>(best)) * (1.0 / static_cast<double>(temperature));
  return x < -37.0 ? 0.0 : ExpD(x);
}

inline std::vector<double> PlainBlockSums(const std::vector<double>& weights) {
  std::vector<double> sums;
  for (size_t begin = 0; begin < weights.size(); begin += kPlainBlock) {
    reference::LaneSum<double> sum;
    for (size_t i = begin; i < std::min(begin + kPlainBlock, weights.size()); ++i) sum.Add(i - begin, weights[i]);
    sums.push_back(sum.Total());
  }
  return sums;
}

inline double PlainTotal(const std::vector<double>& weights) {
  double total = 0.0;
  for (const double sum : PlainBlockSums(weights)) total += sum;
  return total;
}

template <class Reached>
size_t PlainLocate(const std::vector<double>& weights, Reached reached) {
  double before = 0.0;
  size_t begin = 0;
  for (const double block : PlainBlockSums(weights)) {
    if (reached(before + block)) {
      size_t last = begin;
      for (size_t i = begin; i < std::min(begin + kPlainBlock, weights.size()); ++i) {
        if (weights[i] > 0.0) last = i;
        before += weights[i];
        if (weights[i] > 0.0 && reached(before)) break;
      }
      return last;
    }
    before += block;
    begin += kPlainBlock;
  }
  return weights.size() - 1;
}

// Without penalties and biases, temperature above 0.
inline int32_t PlainSample(const Sampling& s, std::span<const float> logits, double uniform) {
  const float best = *std::ranges::max_element(logits);
  struct Candidate {
    int32_t id;
    double weight;
    float logit;
  };
  std::vector<Candidate> list;
  for (const float logit : logits) list.push_back({static_cast<int32_t>(list.size()), PlainWeight(logit, best, s.temperature), logit});
  const auto weights = [&list] {
    std::vector<double> out;
    for (const Candidate& c : list) out.push_back(c.weight);
    return out;
  };
  double total = PlainTotal(weights());
  if (s.top_k > 0 || s.top_p < 1.0f) std::ranges::stable_sort(list, std::greater<>(), &Candidate::logit);
  if (s.top_k > 0 && static_cast<size_t>(s.top_k) < list.size()) {
    list.resize(static_cast<size_t>(s.top_k));
    total = PlainTotal(weights());
  }
  if (s.top_p < 1.0f) {
    const double wanted = static_cast<double>(s.top_p) * total;
    list.resize(PlainLocate(weights(), [wanted](double sum) { return sum >= wanted; }) + 1);
  }
  for (Candidate& c : list) {
    if (c.weight < static_cast<double>(s.min_p)) c.weight = 0.0;
  }
  const double target = uniform * PlainTotal(weights());
  return list[PlainLocate(weights(), [target](double sum) { return target < sum; })].id;
}

}  // namespace rum::test
