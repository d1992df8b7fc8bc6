#include "baseline/eval_cache.h"

#include <algorithm>
#include <utility>

#include "baseline/kvpress.h"
#include "baseline/softmax.h"
#include "core/exact_math.h"

namespace rum::baseline {
namespace {

size_t Size(int32_t n) { return static_cast<size_t>(n); }

// The first `sinks` and the newest, `budget` in all.
std::vector<int32_t> SinksAndNewest(size_t tokens, int32_t sinks, int32_t budget) {
  std::vector<int32_t> kept;
  const auto count = static_cast<int32_t>(tokens);
  for (int32_t i = 0; i < sinks; ++i) kept.push_back(i);
  for (int32_t i = count - (budget - sinks); i < count; ++i) kept.push_back(i);
  return kept;
}

// The newest `recent` and of the others those with the most mass, `budget` in all.
std::vector<int32_t> HeavyAndRecent(std::span<const double> mass, int32_t recent, int32_t budget) {
  const auto count = static_cast<int32_t>(mass.size());
  std::vector<int32_t> kept = Highest(mass.first(Size(count - recent)), Size(budget - recent));
  for (int32_t i = count - recent; i < count; ++i) kept.push_back(i);
  return kept;
}

}  // namespace

EvalCache::EvalCache(const ModelConfig& config, KvType kv)
    : kind_(config.policy.kind), spec_(config.policy.baseline), kv_(kv), layers_(Size(config.num_layers)),
      heads_(Size(config.num_heads)), kv_heads_(Size(config.num_kv_heads)), group_(Size(config.group())),
      head_dim_(Size(config.head_dim)), inverse_frequencies_(RopeFrequencies(config.rope, config.head_dim)) {}

void EvalCache::NewChain(ChainId chain) {
  Layer layer;
  layer.heads.resize(kv_heads_);
  layer.pages.resize(kv_heads_);
  Chain& c = chains_[chain];
  c.layers.assign(layers_, layer);
  c.weights.resize(heads_);
}

void EvalCache::Attend(const Row& row, int32_t layer, int32_t position, const float* q, const float* k, const float* v, float* out,
                       int32_t* live) {
  Chain& chain = chains_.at(row.chain);
  Layer& l = chain.layers[Size(layer)];
  Append(l, position, k, v);
  l.live = l.reads = 0;
  for (size_t j = 0; j < kv_heads_; ++j) {
    const History& head = l.heads[j];
    const auto count = static_cast<int32_t>(head.size());
    const bool selects = Is(PolicyKind::kQuest) && !row.prefill && Selects(spec_, layer, count);
    for (size_t h = j * group_; h < (j + 1) * group_; ++h) {
      if (selects) {
        AttendToPages(chain, layer, h, q + h * head_dim_, out + h * head_dim_);
        continue;
      }
      chain.weights[h].resize(head.size());
      baseline::Attend({head.k.data(), head.v.data(), head.size(), head_dim_}, q + h * head_dim_, chain.weights[h].data(),
                       out + h * head_dim_);
    }
    live[j] = selects ? TokensRead(spec_, count) : count;
    l.live += count;
    l.reads += live[j];
  }
  if (Is(PolicyKind::kH2o)) AddMass(chain.weights, l);
  if (Is(PolicyKind::kKvpress) && row.prefill) {
    l.queries.insert(l.queries.end(), q, q + heads_ * head_dim_);
    if (row.prompt_end) PruneByScore(chain, layer);
  }
  if (!row.prefill || row.prompt_end) Prune(chain.weights, l);
}

void EvalCache::Append(Layer& layer, int32_t position, const float* k, const float* v) const {
  const auto rounded = [this](float x) { return kv_ == KvType::kBF16 ? FromBf16(ToBf16(x)) : x; };
  for (size_t j = 0; j < kv_heads_; ++j) {
    History& head = layer.heads[j];
    for (size_t c = 0; c < head_dim_; ++c) {
      head.k.push_back(rounded(k[j * head_dim_ + c]));
      head.v.push_back(rounded(v[j * head_dim_ + c]));
    }
    if (Is(PolicyKind::kQuest)) layer.pages[j].Append(spec_, head.size(), std::span(head.k).last(head_dim_));
    if (Is(PolicyKind::kH2o)) head.mass.push_back(0.0);
    head.positions.push_back(position);
  }
}

void EvalCache::AttendToPages(Chain& chain, int32_t layer, size_t query_head, const float* q, float* out) const {
  const Layer& l = chain.layers[Size(layer)];
  const History& head = l.heads[query_head / group_];
  std::vector<float> scores = l.pages[query_head / group_].Scores({q, head_dim_});
  std::vector<int32_t> pages = SelectPages(spec_, scores);
  chain.k.clear();
  chain.v.clear();
  size_t count = 0;
  for (const int32_t page : pages) {
    const size_t begin = Size(page) * Size(spec_.page), end = std::min(begin + Size(spec_.page), head.size());
    const auto copy = [&](const std::vector<float>& from, std::vector<float>& to) {
      to.insert(to.end(), from.begin() + static_cast<std::ptrdiff_t>(begin * head_dim_),
                from.begin() + static_cast<std::ptrdiff_t>(end * head_dim_));
    };
    copy(head.k, chain.k);
    copy(head.v, chain.v);
    count += end - begin;
  }
  chain.weights[query_head].resize(count);
  baseline::Attend({chain.k.data(), chain.v.data(), count, head_dim_}, q, chain.weights[query_head].data(), out);
  if (record_) chain.scored.push_back({layer, static_cast<int32_t>(query_head), std::move(scores), std::move(pages)});
}

void EvalCache::AddMass(const Weights& weights, Layer& layer) const {
  for (size_t h = 0; h < heads_; ++h) {
    std::vector<double>& mass = layer.heads[h / group_].mass;
    for (size_t r = 0; r < mass.size(); ++r) mass[r] += double{weights[h][r]};
  }
}

void EvalCache::Prune(const Weights& weights, Layer& layer) const {
  if (Is(PolicyKind::kTova) || Is(PolicyKind::kTovaHead)) return PruneTova(weights, layer);
  for (History& head : layer.heads) {
    if (head.size() <= Size(spec_.budget)) continue;
    if (Is(PolicyKind::kH2o)) head.Keep(HeavyAndRecent(head.mass, spec_.recent, spec_.budget), head_dim_);
    if (Is(PolicyKind::kStreaming)) head.Keep(SinksAndNewest(head.size(), spec_.sinks, spec_.budget), head_dim_);
  }
}

// The last token's attention, summed over the query heads of the layer, or of the KV head; the token itself may go.
void EvalCache::PruneTova(const Weights& weights, Layer& layer) const {
  const size_t share = Is(PolicyKind::kTova) ? heads_ : group_;
  for (size_t begin = 0; begin < heads_; begin += share) {
    const size_t count = weights[begin].size();
    if (count <= Size(spec_.budget)) continue;
    std::vector<double> attention(count);
    for (size_t h = begin; h < begin + share; ++h) {
      for (size_t r = 0; r < count; ++r) attention[r] += double{weights[h][r]};
    }
    const std::vector<int32_t> kept = Highest(std::span<const double>(attention), Size(spec_.budget));
    for (size_t j = begin / group_; j < (begin + share) / group_; ++j) layer.heads[j].Keep(kept, head_dim_);
  }
}

void EvalCache::PruneByScore(Chain& chain, int32_t layer) const {
  Layer& l = chain.layers[Size(layer)];
  const std::vector<float> queries = std::exchange(l.queries, {});
  std::vector<std::vector<float>> scores = Score(spec_, {l.heads, queries, inverse_frequencies_, head_dim_});
  for (size_t j = 0; j < scores.size(); ++j) {
    std::vector<int32_t> kept = Highest(std::span<const float>(scores[j]), KeptCount(spec_, scores[j].size()));
    l.heads[j].Keep(kept, head_dim_);
    if (record_) chain.scored.push_back({layer, static_cast<int32_t>(j), std::move(scores[j]), std::move(kept)});
  }
}

int64_t EvalCache::LiveSum(ChainId chain) const {
  int64_t sum = 0;
  for (const Layer& layer : chains_.at(chain).layers) sum += layer.live;
  return sum;
}

int64_t EvalCache::ReadSum(ChainId chain) const {
  int64_t sum = 0;
  for (const Layer& layer : chains_.at(chain).layers) sum += layer.reads;
  return sum;
}

int64_t EvalCache::NextReadSum(ChainId chain) const {
  int64_t sum = 0;
  for (size_t i = 0; i < layers_; ++i) {
    for (const History& head : chains_.at(chain).layers[i].heads) {
      const auto count = static_cast<int32_t>(head.size()) + 1;
      sum += Is(PolicyKind::kQuest) && Selects(spec_, static_cast<int32_t>(i), count) ? TokensRead(spec_, count) : count;
    }
  }
  return sum;
}

const History& EvalCache::At(ChainId chain, int32_t layer, int32_t kv_head) const {
  return chains_.at(chain).layers[Size(layer)].heads[Size(kv_head)];
}

int64_t EvalCache::allocated_bytes() const {
  size_t bytes = 0;
  for (const auto& [id, chain] : chains_) {
    for (const Layer& layer : chain.layers) {
      for (const History& head : layer.heads) bytes += (head.k.capacity() + head.v.capacity()) * sizeof(float);
    }
  }
  return static_cast<int64_t>(bytes);
}

void EvalCache::Report(ChainId chain, TraceSink* sink) {
  for (const Scored& s : std::exchange(chains_.at(chain).scored, {})) sink->OnScores(chain, s.layer, s.head, s.scores, s.chosen);
}

}  // namespace rum::baseline
