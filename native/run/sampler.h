// One token from one row of logits. Order: penalties, logit bias, temperature, top-k, top-p, min-p (Hugging Face's order).
#pragma once
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "core/status.h"
#include "run/logprobs.h"

namespace rum {

struct Kernels;

struct Sampling {
  float temperature = 1.0f;         // 0: greedy (lowest id among equals)
  int32_t top_k = 0;                // 0: off
  float top_p = 1.0f;               // (0, 1]
  float min_p = 0.0f;               // [0, 1)
  float repetition_penalty = 1.0f;  // > 0; over prompt and generated tokens, as Hugging Face
  float presence_penalty = 0.0f;    // [-2, 2]; over generated tokens, as OpenAI
  float frequency_penalty = 0.0f;   // [-2, 2]
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // token id, added before temperature; [-100, 100]
};

// ERR_OPTION with the option's name if out of range (NaN included).
Status CheckSampling(const Sampling& sampling, int32_t vocab_size);
// Whether any penalty is on: only then does SampleToken read the history.
bool HasPenalties(const Sampling& sampling);

// The distinct tokens of one chain as the penalties see them. Allocates in the constructor only.
class TokenHistory {
 public:
  struct Entry {
    int32_t token = 0;
    int32_t generated = 0;  // how often this chain generated it; 0: in the prompt only
  };
  TokenHistory() = default;
  TokenHistory(std::span<const int32_t> prompt, int32_t generated_max);
  void Add(int32_t token);  // a generated token
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
};

// Room for one call, kept by the caller so that a token allocates nothing, and the kernels of a level, which never change a bit.
struct SampleScratch {
  SampleScratch(int32_t vocab_size, Isa isa);
  const Kernels& kernels;
  std::vector<int32_t> ids;      // [vocab] of the ranked candidates, best first
  std::vector<int32_t> sorting;  // [vocab] what ids are sorted into, in turn with them
  std::vector<float> ranked;     // [vocab] the logits of ids
  std::vector<float> maxima;     // [blocks of vocab]
  std::vector<double> sums;      // [blocks of vocab]
  std::vector<float> row;        // [vocab] the logits as the model gave them, where log-probabilities are kept; else empty
};

// Which tokens may be drawn: bit t % 32 of word t / 32 is token t; [ceil(vocab / 32)] words, or none: all of them.
using TokenMask = std::vector<uint32_t>;
bool AllowsAny(const TokenMask& mask, int32_t vocab_size);

// Samples from finite logits [vocab] (changed in place). Deterministic on every platform: probabilities in double, summed as docs/NUMERICS.md says,
// candidates in a fixed order (logit descending, id ascending with top-k or top-p, else id ascending). Each filter renormalises
// what the one before it left. top-k keeps exactly k, top-p the smallest prefix with a mass of at least top_p, min-p what has at
// least min_p times the probability of the best; all keep at least one.
// A token with less than e^-37 times the probability of the best is never drawn: a 53-bit random number cannot tell it from 0.
// Random numbers are Philox(seed; chain, index, draw): index is the position of the token in the chain's generated sequence.
// With a mask, which allows at least one token, the others have a logit of minus infinity after penalties and biases: no weight under any filter.
int32_t SampleToken(const Sampling& sampling, std::span<float> logits, const TokenHistory& history, uint64_t seed, int32_t chain,
                    int32_t index, SampleScratch& scratch, std::span<const uint32_t> mask = {});

// Adds one token's to `logprobs`, which keeps them: with `best` the largest of the logits [vocab], logit - best - log(the sum of the weights of
// all at temperature 1), in double, rounded to float once.
void AddLogprobs(std::span<const float> logits, int32_t token, SampleScratch& scratch, Logprobs* logprobs);

}  // namespace rum
