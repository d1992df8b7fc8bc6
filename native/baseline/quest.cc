#include "baseline/quest.h"

#include <algorithm>

#include "baseline/history.h"

namespace rum::baseline {

void QuestPages::Append(const BaselineSpec& spec, size_t index, std::span<const float> k) {
  if (index % static_cast<size_t>(spec.page) == 0) {
    least_.insert(least_.end(), k.begin(), k.end());
    greatest_.insert(greatest_.end(), k.begin(), k.end());
    return;
  }
  float* least = least_.data() + (least_.size() - k.size());
  float* greatest = greatest_.data() + (greatest_.size() - k.size());
  for (size_t c = 0; c < k.size(); ++c) {
    least[c] = std::min(least[c], k[c]);
    greatest[c] = std::max(greatest[c], k[c]);
  }
}

std::vector<float> QuestPages::Scores(std::span<const float> q) const {
  std::vector<float> scores(least_.size() / q.size());
  for (size_t p = 0; p < scores.size(); ++p) {
    double sum = 0.0;
    for (size_t c = 0; c < q.size(); ++c) {
      const double x = q[c];
      sum += std::max(x * double{least_[p * q.size() + c]}, x * double{greatest_[p * q.size() + c]});
    }
    scores[p] = static_cast<float>(sum);
  }
  return scores;
}

std::vector<int32_t> SelectPages(const BaselineSpec& spec, std::span<const float> scores) {
  const auto newest = static_cast<int32_t>(scores.size()) - 1;
  std::vector<int32_t> pages = Highest(scores.first(static_cast<size_t>(newest)), static_cast<size_t>(PagesSelected(spec) - 1));
  pages.push_back(newest);
  return pages;
}

}  // namespace rum::baseline
