// Parameters of the policies that exist for evaluation only (docs/baselines.md).
#pragma once
#include <cstdint>

namespace rum {

// kvpress's scorers (METHOD.md 3.2).
enum class KvpressScorer : int32_t { kTova, kObservedAttention, kStreaming, kSnapKv, kExpectedAttention, kKnorm };

struct BaselineSpec {
  int32_t budget = 0;        // TOVA, H2O, StreamingLLM: tokens kept by each KV head; Quest: tokens a query head selects
  int32_t recent = 0;        // H2O: newest tokens kept, of the budget; the rest are heavy hitters
  int32_t sinks = 4;         // StreamingLLM, also kvpress's; expected attention: first tokens always kept
  int32_t page = 16;         // Quest: tokens per page
  int32_t dense_layers = 2;  // Quest: first layers that attend to everything
  KvpressScorer scorer = KvpressScorer::kTova;
  double ratio = 0.5;        // kvpress: part of the prompt that goes
  int32_t window = 64;       // SnapKV: last queries that vote
  int32_t kernel = 5;        // SnapKV: width of the average
  int32_t future = 512;      // expected attention: positions after the prompt that are averaged over
};

}  // namespace rum
