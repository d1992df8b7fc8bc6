// The caches of the baselines: what every chain holds, and when it goes. The prompt attends densely, to all of it; a token goes after
// the last prompt token and after every later one has attended (docs/baselines.md). Shared by all backends, so that only the dense
// parts differ.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "baseline/attention.h"
#include "baseline/history.h"
#include "baseline/quest.h"
#include "model/config.h"

namespace rum::baseline {

// Attend may be called for different chains at a time; nothing else may run beside it.
class EvalCache final : public Attention {
 public:
  EvalCache(const ModelConfig& config, KvType kv);

  void NewChain(ChainId chain);
  void ForkChain(ChainId from, ChainId to) { chains_[to] = chains_.at(from); }
  void FreeChain(ChainId chain) { chains_.erase(chain); }

  void Attend(const Row& row, int32_t layer, int32_t position, const float* q, const float* k, const float* v, float* out,
              int32_t* live) override;

  int64_t LiveSum(ChainId chain) const;
  int64_t ReadSum(ChainId chain) const;
  int64_t NextReadSum(ChainId chain) const;
  const History& At(ChainId chain, int32_t layer, int32_t kv_head) const;
  int64_t allocated_bytes() const;

  // Whether scores are kept for Report; they cost memory.
  void Record(bool record) { record_ = record; }
  // Hands this chain's scores to the sink and forgets them.
  void Report(ChainId chain, TraceSink* sink);

 private:
  using Weights = std::vector<std::vector<float>>;  // [heads][keys read]
  struct Scored {
    int32_t layer, head;
    std::vector<float> scores;
    std::vector<int32_t> chosen;
  };
  struct Layer {
    std::vector<History> heads;          // [kv_heads]
    std::vector<QuestPages> pages;       // [kv_heads] Quest
    std::vector<float> queries;          // [tokens, heads, head_dim] kvpress, until the end of the prompt
    int64_t live = 0, reads = 0;         // of the last token, over the KV heads
  };
  struct Chain {
    std::vector<Layer> layers;
    std::vector<Scored> scored;
    // Room for one layer.
    Weights weights;
    std::vector<float> k, v;  // [selected, head_dim] Quest: one query head's keys, gathered
  };

  void Append(Layer& layer, int32_t position, const float* k, const float* v) const;
  void AttendToPages(Chain& chain, int32_t layer, size_t query_head, const float* q, float* out) const;
  void AddMass(const Weights& weights, Layer& layer) const;
  void Prune(const Weights& weights, Layer& layer) const;
  void PruneTova(const Weights& weights, Layer& layer) const;
  void PruneByScore(Chain& chain, int32_t layer) const;
  bool Is(PolicyKind kind) const { return kind_ == kind; }

  const PolicyKind kind_;
  const BaselineSpec spec_;
  const KvType kv_;
  const size_t layers_, heads_, kv_heads_, group_, head_dim_;
  std::vector<float> inverse_frequencies_;  // [head_dim / 2]
  std::map<ChainId, Chain> chains_;
  bool record_ = false;
};

}  // namespace rum::baseline
