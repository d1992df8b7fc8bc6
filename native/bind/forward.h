// A teacher-forced pass over given ids on a fresh chain, with everything an outside check wants to see.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "model/weights.h"

namespace rum::bind {

struct ForwardRequest {
  std::vector<int32_t> ids;
  int32_t prompt_len = 0;  // ids after this many are fed one by one
  int32_t chunk = 1;       // ids per Forward within the prompt
};

struct ForwardOutcome {
  std::vector<float> logits;           // [T, vocab]
  std::vector<uint8_t> evict_decision; // [layers, kv_heads, T]; empty for dense
  std::vector<int32_t> live_count;     // [layers, kv_heads, T] tokens that attention read
  std::vector<float> scores;           // [layers, kv_heads, prompt] of a kvpress scorer; else empty
  double kv_reads_decode = 0;          // sum over t >= prompt_len of the mean live length
  double kv_reads_all = 0;
  double peak_tokens = 0;
  std::vector<HeadSnapshot> heads;     // [layers * kv_heads], at the end
};

// Not thread-safe, except RequestStop; the backend must be idle when it is destroyed (it frees its chain).
class ForwardPass final : public TraceSink {
 public:
  // ERR_OPTION, ERR_PROMPT_TOO_LONG or ERR_MEMORY before anything is allocated.
  static Status Check(const ForwardRequest& request, const ModelConfig& config);
  ForwardPass(std::shared_ptr<Backend> backend, std::shared_ptr<const Model> model, ForwardRequest request);
  ~ForwardPass() override;

  // Feeds chunks until all is fed (`*done`), the deadline has passed or a stop was requested.
  Status Advance(std::chrono::steady_clock::time_point deadline, bool* done);
  void RequestStop() { stop_.store(true, std::memory_order_relaxed); }  // from any thread
  ForwardOutcome& outcome() { return outcome_; }

 private:
  void OnToken(ChainId chain, int32_t layer, int32_t position, const float* decision_logits, const int32_t* live) override;
  void OnScores(ChainId chain, int32_t layer, int32_t head, std::span<const float> scores, std::span<const int32_t> chosen) override;
  Status FeedNext();
  void Finish();

  std::shared_ptr<Backend> backend_;
  std::shared_ptr<const Model> model_;
  ForwardRequest request_;
  ForwardOutcome outcome_;
  ChainId chain_ = -1;
  size_t fed_ = 0;
  int64_t held_sum_ = 0;  // most tokens held after a Forward
  std::atomic<bool> stop_{false};
};

}  // namespace rum::bind
