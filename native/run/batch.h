// Continuous batching: calls of several runs of one backend advance together, one Forward for all of them. The law of bits makes
// that invisible: what a run generates is what it would have generated alone.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "run/run.h"

namespace rum {

// Feeds a run's rows, watched by whom it wants, and takes what came of it.
void FeedAlone(Backend& backend, RunCall& call, const Feed& feed);

// Tells each run of its own rows only.
class TraceRouter final : public TraceSink {
 public:
  void Clear() { sinks_.clear(); }
  void Add(const Feed& feed);
  bool empty() const { return sinks_.empty(); }
  void OnToken(ChainId chain, int32_t layer, int32_t position, const float* decision_logits, const int32_t* live) override;
  void OnScores(ChainId chain, int32_t layer, int32_t head, std::span<const float> scores, std::span<const int32_t> chosen) override;

 private:
  TraceSink* Find(ChainId chain) const;
  std::vector<std::pair<ChainId, TraceSink*>> sinks_;
};

// Not thread-safe. Of one backend; its buffers are kept from one step to the next.
class Batch {
 public:
  Batch(std::shared_ptr<Backend> backend, int32_t vocab) : backend_(std::move(backend)), vocab_(static_cast<size_t>(vocab)) {}

  // One step of every call, or a chunk of its prompt: plans all, feeds them in one Forward, and takes. Calls that are done stay as
  // they are. A run whose logits are not finite fails alone (ERR_NUMERICS); any other failure of the Forward is everybody's.
  // No calls of one run twice.
  void Advance(std::span<RunCall* const> calls);

 private:
  struct Part {
    RunCall* call;
    const Feed* feed;
  };
  void FeedAll();

  std::shared_ptr<Backend> backend_;
  size_t vocab_;
  std::vector<Part> parts_;
  std::vector<Row> rows_;
  std::vector<float> logits_;  // [wanted rows, vocab]
  TraceRouter router_;
};

}  // namespace rum
