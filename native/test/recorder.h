// What a backend decided about every token of one chain, as the fixtures have it.
#pragma once
#include <cstdint>
#include <vector>

#include "backend/backend.h"

namespace rum::test {

class Recorder final : public TraceSink {
 public:
  Recorder(const ModelConfig& config, size_t tokens)
      : kv_heads_(static_cast<size_t>(config.num_kv_heads)), tokens_(tokens),
        decision_logits(static_cast<size_t>(config.num_layers) * kv_heads_ * tokens), live(decision_logits.size()) {}

  void OnToken(ChainId, int32_t layer, int32_t position, const float* logits, const int32_t* counts) override {
    for (size_t j = 0; j < kv_heads_; ++j) {
      const size_t at = (static_cast<size_t>(layer) * kv_heads_ + j) * tokens_ + static_cast<size_t>(position);
      if (logits != nullptr) decision_logits[at] = logits[j];
      live[at] = counts[j];
    }
  }

 private:
  size_t kv_heads_, tokens_;

 public:
  std::vector<float> decision_logits;  // [layers * kv heads][tokens]; 0 where nothing is decided
  std::vector<int32_t> live;           // the same
};

}  // namespace rum::test
