#include "baseline/kvpress.h"

#include <algorithm>
#include <cmath>

#include "core/exact_math.h"

namespace rum::baseline {
namespace {

using Scores = std::vector<std::vector<double>>;  // [kv_heads][tokens]

double Dot(const float* a, const float* b, size_t n) {
  double sum = 0.0;
  for (size_t i = 0; i < n; ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

void Softmax(std::vector<double>& s) {
  const double max = *std::ranges::max_element(s);
  double sum = 0.0;
  for (double& x : s) sum += x = ExpD(x - max);
  for (double& x : s) x /= sum;
}

// Attention of one prompt query over the keys up to its own. [token + 1]
std::vector<double> Attention(const PromptPass& pass, size_t token, size_t query_head) {
  const History& head = pass.heads[query_head / pass.group()];
  std::vector<double> weights(token + 1);
  for (size_t r = 0; r < weights.size(); ++r) {
    weights[r] = Dot(pass.query(token, query_head), &head.k[r * pass.head_dim], pass.head_dim) / std::sqrt(static_cast<double>(pass.head_dim));
  }
  Softmax(weights);
  return weights;
}

// kvpress's way to keep tokens: the layer's maximum over [begin, end) plus 1 for all the others.
void ProtectOutside(size_t begin, size_t end, Scores& scores) {
  double max = 0.0;  // all scores are positive
  for (const auto& row : scores) {
    for (size_t r = begin; r < end; ++r) max = std::max(max, row[r]);
  }
  for (auto& row : scores) {
    for (size_t r = 0; r < row.size(); ++r) {
      if (r < begin || r >= end) row[r] = max + 1.0;
    }
  }
}

// The last query's attention, mean over all query heads of the layer. The softmax includes the last key, which stays.
void ScoreTova(const PromptPass& pass, Scores& scores) {
  std::vector<double> mean(pass.tokens());
  for (size_t h = 0; h < pass.query_heads(); ++h) {
    const std::vector<double> weights = Attention(pass, pass.tokens() - 1, h);
    for (size_t r = 0; r < mean.size(); ++r) mean[r] += weights[r] / static_cast<double>(pass.query_heads());
  }
  std::ranges::fill(scores, mean);
  ProtectOutside(0, pass.tokens() - 1, scores);
}

// Attention received, over the number of queries that see the key; mean over the group.
void ScoreObservedAttention(const PromptPass& pass, Scores& scores) {
  for (size_t h = 0; h < pass.query_heads(); ++h) {
    std::vector<double>& row = scores[h / pass.group()];
    for (size_t t = 0; t < pass.tokens(); ++t) {
      const std::vector<double> weights = Attention(pass, t, h);
      for (size_t r = 0; r <= t; ++r) row[r] += weights[r] / static_cast<double>(pass.group() * (pass.tokens() - r));
    }
  }
}

// 0 for those after the sinks that have to go.
void ScoreStreaming(const BaselineSpec& spec, const PromptPass& pass, Scores& scores) {
  const size_t begin = std::min(static_cast<size_t>(spec.sinks), pass.tokens());
  const size_t end = std::min(begin + pass.tokens() - KeptCount(spec, pass.tokens()), pass.tokens());
  for (auto& row : scores) {
    std::ranges::fill(row, 1.0);
    std::fill(row.begin() + static_cast<std::ptrdiff_t>(begin), row.begin() + static_cast<std::ptrdiff_t>(end), 0.0);
  }
}

// The last `window` queries' attention to the keys before them: mean over queries and group, averaged over `kernel` neighbours
// with zeros beyond the ends.
void ScoreSnapKv(const BaselineSpec& spec, const PromptPass& pass, Scores& scores) {
  const auto window = static_cast<size_t>(spec.window), reach = static_cast<size_t>(spec.kernel / 2);
  const size_t before = pass.tokens() - window;
  std::vector<std::vector<double>> votes(scores.size(), std::vector<double>(before));
  for (size_t h = 0; h < pass.query_heads(); ++h) {
    for (size_t t = before; t < pass.tokens(); ++t) {
      const std::vector<double> weights = Attention(pass, t, h);
      for (size_t r = 0; r < before; ++r) votes[h / pass.group()][r] += weights[r] / static_cast<double>(window * pass.group());
    }
  }
  for (size_t j = 0; j < scores.size(); ++j) {
    for (size_t r = 0; r < before; ++r) {
      for (size_t n = r - std::min(r, reach); n < std::min(before, r + reach + 1); ++n) scores[j][r] += votes[j][n] / spec.kernel;
    }
  }
  ProtectOutside(0, before, scores);
}

// Mean and covariance of one query head's queries before RoPE, turned by the mean rotation of the `future` positions.
struct QueryStatistics {
  std::vector<double> mean;        // [head_dim]
  std::vector<double> covariance;  // [head_dim, head_dim]
};

struct Rotation {
  std::vector<double> cos, sin;  // [head_dim / 2]
};

Rotation RotationAt(const PromptPass& pass, size_t position) {
  Rotation rotation;
  for (const float frequency : pass.inverse_frequencies) {
    float c, s;
    RopeAngle(static_cast<int32_t>(position), frequency, 1.0, &c, &s);  // a pure rotation: yarn's factor stays in q and k
    rotation.cos.push_back(double{c});
    rotation.sin.push_back(double{s});
  }
  return rotation;
}

// x[i * stride], half-split pairs, in place.
void Rotate(const Rotation& rotation, double* x, size_t stride) {
  const size_t half = rotation.cos.size();
  for (size_t i = 0; i < half; ++i) {
    const double low = x[i * stride], high = x[(i + half) * stride];
    x[i * stride] = low * rotation.cos[i] - high * rotation.sin[i];
    x[(i + half) * stride] = high * rotation.cos[i] + low * rotation.sin[i];
  }
}

QueryStatistics Statistics(const BaselineSpec& spec, const PromptPass& pass, size_t query_head) {
  const size_t d = pass.head_dim, begin = static_cast<size_t>(spec.sinks), count = pass.tokens() - begin;
  std::vector<std::vector<double>> queries;  // [count][head_dim], RoPE undone
  QueryStatistics out{std::vector<double>(d), std::vector<double>(d * d)};
  for (size_t t = begin; t < pass.tokens(); ++t) {
    Rotation back = RotationAt(pass, t);
    for (double& s : back.sin) s = -s;
    const float* q = pass.query(t, query_head);
    std::vector<double>& x = queries.emplace_back(q, q + d);
    Rotate(back, x.data(), 1);
    for (size_t c = 0; c < d; ++c) out.mean[c] += x[c] / static_cast<double>(count);
  }
  for (const std::vector<double>& x : queries) {
    for (size_t a = 0; a < d; ++a) {
      for (size_t b = 0; b < d; ++b) out.covariance[a * d + b] += (x[a] - out.mean[a]) * (x[b] - out.mean[b]) / static_cast<double>(count);
    }
  }
  Rotation mean = RotationAt(pass, pass.tokens());
  for (size_t p = 1; p < static_cast<size_t>(spec.future); ++p) {
    const Rotation at = RotationAt(pass, pass.tokens() + p);
    for (size_t i = 0; i < d / 2; ++i) {
      mean.cos[i] += at.cos[i];
      mean.sin[i] += at.sin[i];
    }
  }
  for (size_t i = 0; i < d / 2; ++i) {
    mean.cos[i] /= spec.future;
    mean.sin[i] /= spec.future;
  }
  Rotate(mean, out.mean.data(), 1);
  for (size_t b = 0; b < d; ++b) Rotate(mean, &out.covariance[b], d);
  for (size_t a = 0; a < d; ++a) Rotate(mean, &out.covariance[a * d], 1);
  return out;
}

// softmax over keys of k . m / sqrt(d) + k' C k / 2d, mean over the group, times the length of v.
void ScoreExpectedAttention(const BaselineSpec& spec, const PromptPass& pass, Scores& scores) {
  const size_t d = pass.head_dim, begin = static_cast<size_t>(spec.sinks);
  for (size_t h = 0; h < pass.query_heads(); ++h) {
    const QueryStatistics q = Statistics(spec, pass, h);
    const History& head = pass.heads[h / pass.group()];
    std::vector<double> expected;
    for (size_t r = begin; r < pass.tokens(); ++r) {
      const float* k = &head.k[r * d];
      double linear = 0.0, quadratic = 0.0;
      for (size_t a = 0; a < d; ++a) {
        linear += double{k[a]} * q.mean[a];
        for (size_t b = 0; b < d; ++b) quadratic += double{k[a]} * q.covariance[a * d + b] * double{k[b]};
      }
      expected.push_back(linear / std::sqrt(static_cast<double>(d)) + quadratic / static_cast<double>(2 * d));
    }
    Softmax(expected);
    for (size_t r = begin; r < pass.tokens(); ++r) {
      const float* v = &head.v[r * d];
      scores[h / pass.group()][r] += expected[r - begin] / static_cast<double>(pass.group()) * std::sqrt(Dot(v, v, d));
    }
  }
  ProtectOutside(begin, pass.tokens(), scores);
}

void ScoreKnorm(const PromptPass& pass, Scores& scores) {
  for (size_t j = 0; j < scores.size(); ++j) {
    for (size_t r = 0; r < pass.tokens(); ++r) {
      const float* k = &pass.heads[j].k[r * pass.head_dim];
      scores[j][r] = -std::sqrt(Dot(k, k, pass.head_dim));
    }
  }
}

}  // namespace

std::vector<std::vector<float>> Score(const BaselineSpec& spec, const PromptPass& pass) {
  if (spec.scorer == KvpressScorer::kSnapKv && pass.tokens() <= static_cast<size_t>(spec.window)) return {};
  if (spec.scorer == KvpressScorer::kExpectedAttention && pass.tokens() <= static_cast<size_t>(spec.sinks)) return {};
  Scores scores(pass.heads.size(), std::vector<double>(pass.tokens()));
  switch (spec.scorer) {
    case KvpressScorer::kTova: ScoreTova(pass, scores); break;
    case KvpressScorer::kObservedAttention: ScoreObservedAttention(pass, scores); break;
    case KvpressScorer::kStreaming: ScoreStreaming(spec, pass, scores); break;
    case KvpressScorer::kSnapKv: ScoreSnapKv(spec, pass, scores); break;
    case KvpressScorer::kExpectedAttention: ScoreExpectedAttention(spec, pass, scores); break;
    case KvpressScorer::kKnorm: ScoreKnorm(pass, scores); break;
  }
  std::vector<std::vector<float>> rounded;
  for (const auto& row : scores) rounded.emplace_back(row.begin(), row.end());
  return rounded;
}

}  // namespace rum::baseline
