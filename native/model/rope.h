// Rotary position embedding: what config.json says of it, and the frequencies that follow (docs/NUMERICS.md). Every backend takes
// its frequencies from here.
#pragma once
#include <cstdint>
#include <vector>

namespace rum {

class FieldReader;

enum class RopeType : int32_t { kDefault, kLinear, kLlama3, kYarn };

struct RopeSpec {
  RopeType type = RopeType::kDefault;
  double theta = 10000.0;
  double factor = 1.0;               // linear, llama3, yarn: how many times longer the context becomes
  double original_positions = 0.0;   // llama3, yarn: the context before that
  double low_freq_factor = 0.0, high_freq_factor = 0.0;  // llama3: turns over the original context between which both rules blend
  double beta_fast = 32.0, beta_slow = 1.0;              // yarn: the same, from many turns to few
  bool truncate = true;              // yarn: the band's ends are rounded outwards to whole channels
  double attention_factor = 1.0;     // yarn: multiplied onto cos and sin
  std::vector<float> divisors = {};  // [head_dim / 2] or empty; GGUF's way to write llama3: frequency i is divided by divisors[i]

  bool operator==(const RopeSpec&) const = default;
};

// Both dialects (METHOD.md 5): transformers 5 nests everything in rope_parameters; up to 4.x rope_theta stands alone and
// rope_scaling is null or an object. max_positions is the original context of a type that does not state its own.
// An unknown type is refused by name.
RopeSpec ReadRope(FieldReader& config, int32_t max_positions);

// [head_dim / 2], radians per position.
std::vector<float> RopeFrequencies(const RopeSpec& rope, int32_t head_dim);

}  // namespace rum
