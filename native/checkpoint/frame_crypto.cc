#include "checkpoint/frame_crypto.h"

#include <dlfcn.h>
#include <unistd.h>
#if defined(__APPLE__)
#include <sys/random.h>
#endif

#include <algorithm>

namespace rum {
namespace {

// As declared by <openssl/evp.h>, whose headers are not needed to build; the numbers are the same in OpenSSL 1.1, 3 and BoringSSL.
constexpr int kCtrlGetTag = 0x10;
constexpr int kCtrlSetTag = 0x11;

struct Evp {
  const void* (*aes_256_gcm)();
  void* (*context_new)();
  void (*context_free)(void* context);
  int (*init)(void* context, const void* cipher, void* engine, const uint8_t* key, const uint8_t* iv, int encrypt);
  int (*update)(void* context, uint8_t* out, int* out_bytes, const uint8_t* in, int in_bytes);
  int (*final)(void* context, uint8_t* out, int* out_bytes);
  int (*ctrl)(void* context, int type, int arg, void* pointer);
};

template <class F>
bool Resolve(void* library, const char* name, F** function) {
  *function = reinterpret_cast<F*>(dlsym(library, name));
  return *function != nullptr;
}

bool ResolveAll(void* library, Evp* evp) {
  return Resolve(library, "EVP_aes_256_gcm", &evp->aes_256_gcm) && Resolve(library, "EVP_CIPHER_CTX_new", &evp->context_new) &&
         Resolve(library, "EVP_CIPHER_CTX_free", &evp->context_free) && Resolve(library, "EVP_CipherInit_ex", &evp->init) &&
         Resolve(library, "EVP_CipherUpdate", &evp->update) && Resolve(library, "EVP_CipherFinal_ex", &evp->final) &&
         Resolve(library, "EVP_CIPHER_CTX_ctrl", &evp->ctrl);
}

// nullptr: there is none. What is loaded stays loaded.
const Evp* FindEvp() {
  static const Evp* const found = []() -> const Evp* {
    static Evp evp;
    if (ResolveAll(RTLD_DEFAULT, &evp)) return &evp;
    for (const char* name : {"libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.3.dylib"}) {
      void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (library != nullptr && ResolveAll(library, &evp)) return &evp;
    }
    return nullptr;
  }();
  return found;
}

Status Failed() { return Error(kErrKey, "AES-256-GCM of this process's OpenSSL failed; it may be restricted by its configuration."); }

}  // namespace

Expected<ObjectNonce> FreshNonce() {
  ObjectNonce nonce;
  if (getentropy(nonce.data(), nonce.size()) != 0) return Error(kErrInternal, "The system gave no randomness.");
  return nonce;
}

Status EncryptionAvailable() {
  if (FindEvp() != nullptr) return Status::Ok();
  return Error(kErrKey, "This process has no AES-256-GCM: neither Node's OpenSSL nor libcrypto was found. Encrypted checkpoints need one.");
}

GcmStream::~GcmStream() {
  if (context_ != nullptr) FindEvp()->context_free(context_);
}

Status GcmStream::Start(Direction direction, const Key& key, const GcmNonce& nonce, std::span<const uint8_t> authenticated) {
  if (Status status = EncryptionAvailable(); !status.ok()) return status;
  const Evp& evp = *FindEvp();
  if (context_ == nullptr) context_ = evp.context_new();
  if (context_ == nullptr) return Error(kErrMemory, "The system has no memory for a cipher.");
  if (evp.init(context_, evp.aes_256_gcm(), nullptr, key.data(), nonce.data(), direction == Direction::kEncrypt ? 1 : 0) != 1) return Failed();
  return Update(authenticated, nullptr);
}

Status GcmStream::Update(std::span<const uint8_t> from, uint8_t* to) {
  constexpr size_t kPieceBytes = size_t{1} << 30;  // OpenSSL counts in int
  while (!from.empty()) {
    const size_t bytes = std::min(from.size(), kPieceBytes);
    int out_bytes = 0;
    if (FindEvp()->update(context_, to, &out_bytes, from.data(), static_cast<int>(bytes)) != 1) return Failed();
    from = from.subspan(bytes);
    if (to != nullptr) to += bytes;
  }
  return Status::Ok();
}

Status GcmStream::FinishEncrypt(GcmTag* tag) {
  uint8_t none[16];
  int none_bytes = 0;
  const Evp& evp = *FindEvp();
  if (evp.final(context_, none, &none_bytes) != 1) return Failed();
  return evp.ctrl(context_, kCtrlGetTag, kGcmTagBytes, tag->data()) == 1 ? Status::Ok() : Failed();
}

bool GcmStream::FinishDecrypt(const GcmTag& tag) {
  GcmTag copy = tag;  // the function takes it without const
  uint8_t none[16];
  int none_bytes = 0;
  const Evp& evp = *FindEvp();
  return evp.ctrl(context_, kCtrlSetTag, kGcmTagBytes, copy.data()) == 1 && evp.final(context_, none, &none_bytes) == 1;
}

}  // namespace rum
