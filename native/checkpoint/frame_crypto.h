// AES-256-GCM by the OpenSSL that is in the process: Node exports its own, a test binary opens libcrypto.
#pragma once
#include <array>
#include <cstdint>
#include <span>

#include "checkpoint/object.h"

namespace rum {

inline constexpr int64_t kGcmTagBytes = 16;
using GcmTag = std::array<uint8_t, kGcmTagBytes>;
using GcmNonce = std::array<uint8_t, 12>;

// ERR_KEY when this process has no AES-256-GCM.
Status EncryptionAvailable();

// One message: encrypted or decrypted piece by piece, then its tag.
class GcmStream {
 public:
  enum class Direction { kEncrypt, kDecrypt };
  GcmStream() = default;
  ~GcmStream();
  GcmStream(const GcmStream&) = delete;
  GcmStream& operator=(const GcmStream&) = delete;

  Status Start(Direction direction, const Key& key, const GcmNonce& nonce, std::span<const uint8_t> authenticated);
  // `to` may be the same place as `from`.
  Status Update(std::span<const uint8_t> from, uint8_t* to);
  Status FinishEncrypt(GcmTag* tag);
  // false: what was decrypted is not what was encrypted under this key, nonce and authenticated data, and must not be used.
  bool FinishDecrypt(const GcmTag& tag);

 private:
  void* context_ = nullptr;
};

}  // namespace rum
