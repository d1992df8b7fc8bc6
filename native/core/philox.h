// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3"): a random number is a function of (key, counter),
// so a token's draw depends on its chain and index only, never on how many numbers were drawn before.
#pragma once
#include <array>
#include <cstdint>

namespace rum {

inline std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0], b = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

// A double in [0, 1) with 53 random bits.
inline double UniformD(uint64_t seed, int32_t chain, int32_t index, int32_t draw) {
  const std::array<uint32_t, 4> r = Philox4x32(
      {static_cast<uint32_t>(chain), static_cast<uint32_t>(index), static_cast<uint32_t>(draw), 0u},
      {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  const uint64_t bits = uint64_t{r[0]} | (uint64_t{r[1]} << 32);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace rum
