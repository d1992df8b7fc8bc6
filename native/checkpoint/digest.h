// BLAKE3 over pieces: what finds a byte that somebody changed on purpose. The hash itself is third_party/blake3.
#pragma once
#include <cstdint>
#include <span>

#include "blake3/blake3.h"
#include "checkpoint/object.h"

namespace rum {

class Hasher {
 public:
  // Keyed; nullptr: derive-key mode with a context of ours, so that the digest is nobody else's BLAKE3 of the same bytes.
  explicit Hasher(const Key* key);
  // Pieces of a multiple of 128 KiB keep its widest path busy.
  void Update(std::span<const uint8_t> bytes);
  // The first out.size() bytes of the digest.
  void Finish(std::span<uint8_t> out) const;

 private:
  blake3_hasher state_;
};

}  // namespace rum
