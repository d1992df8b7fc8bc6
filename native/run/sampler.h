// One token from one row of logits. Order: penalties, logit bias, temperature, top-k, top-p, min-p (Hugging Face's order).
#pragma once
#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/status.h"

namespace rum {

struct Sampling {
  float temperature = 1.0f;         // 0: greedy (lowest id among equals)
  int32_t top_k = 0;                // 0: off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1)
  float repetition_penalty = 1.0f;  // > 0; over prompt and generated tokens, as Hugging Face
  float presence_penalty = 0.0f;    // [-2, 2]; over generated tokens, as OpenAI
  float frequency_penalty = 0.0f;   // [-2, 2]
  std::vector<std::pair<int32_t, float>> logit_bias;  // token id, added before temperature; [-100, 100]
};

// ERR_OPTION with the option's name if out of range (NaN included).
Status CheckSampling(const Sampling& sampling, int32_t vocab_size);

// Samples from logits [vocab] (changed in place). counts: how often each token was generated in this chain; prompt: its prompt ids.
// Random numbers are Philox(seed; chain, index, draw): index is the position of the token in the chain's generated sequence.
int32_t SampleToken(const Sampling& sampling, std::span<float> logits, const std::unordered_map<int32_t, int32_t>& counts,
                    std::span<const int32_t> prompt, uint64_t seed, int32_t chain, int32_t index);

}  // namespace rum
