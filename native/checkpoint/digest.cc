#include "checkpoint/digest.h"

namespace rum {
namespace {

constexpr char kUnkeyedContext[] = "ruminate 2026-11-25 dmskv/1 digest of objects without a key";

}  // namespace

Hasher::Hasher(const Key* key) {
  if (key != nullptr) {
    blake3_hasher_init_keyed(&state_, key->data());
  } else {
    blake3_hasher_init_derive_key(&state_, kUnkeyedContext);
  }
}

void Hasher::Update(std::span<const uint8_t> bytes) { blake3_hasher_update(&state_, bytes.data(), bytes.size()); }

void Hasher::Finish(std::span<uint8_t> out) const { blake3_hasher_finalize(&state_, out.data(), out.size()); }

}  // namespace rum
