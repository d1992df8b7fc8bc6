// One row of an object's index.
#pragma once
#include <array>
#include <cstdint>

namespace rum {

struct FrameEntry {
  int64_t offset = 0;                  // from the start of the object
  int64_t stored_bytes = 0;            // after codec and encryption, with the tag
  int64_t raw_bytes = 0;
  uint32_t codec = 0;                  // of enum Codec
  uint32_t crc32c = 0;                 // of the stored bytes
  std::array<uint8_t, 16> digest{};    // of the stored bytes: the first half of their BLAKE3
};

}  // namespace rum
