// CRC-32C (Castagnoli; RFC 3720 B.4): what finds a byte that a disk or a network changed.
#pragma once
#include <cstdint>
#include <span>

namespace rum {

// The CRC of what `crc` stands for followed by `data`; 0 stands for nothing. At memory's speed where the machine has carry-less multiplication.
uint32_t Crc32c(std::span<const uint8_t> data, uint32_t crc = 0);

// One way to compute it. `update` works on the inverted register.
struct Crc32cWay {
  const char* name;
  bool (*runs_here)();
  uint32_t (*update)(uint32_t state, const uint8_t* data, int64_t bytes);
};

// All that are compiled in, the fastest first; the last is portable and runs everywhere.
std::span<const Crc32cWay> Crc32cWays();

}  // namespace rum
