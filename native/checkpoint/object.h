// The stored object of dmskv/1: a header, frames of bytes, an index, a trailer. docs/CHECKPOINT.md has the layout byte by byte.
// What the frames mean (segment, tail, journal) is not known here.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/mapped_buffer.h"
#include "core/status.h"

namespace rum {

enum class ObjectKind : uint8_t { kSegment = 1, kTail = 2, kJournal = 3 };
const char* ObjectKindName(ObjectKind kind);  // "segment", "tail", "journal"

using Key = std::array<uint8_t, 32>;
using Digest = std::array<uint8_t, 32>;
using LayoutId = std::array<uint8_t, 16>;
using ObjectNonce = std::array<uint8_t, 8>;

inline constexpr int32_t kPromptChain = -1;   // ObjectHeader::chain of what all chains share
inline constexpr int32_t kWholeJobChain = -2;

struct ObjectHeader {
  ObjectKind kind = ObjectKind::kSegment;
  uint32_t frames = 0;   // how many AddFrame calls follow: the header is authenticated with each frame, so it is known first
  uint64_t epoch = 0;
  int32_t chain = kWholeJobChain;  // >= -2
  uint32_t n = 0;        // ordinal among the objects of its kind and chain
  ObjectNonce nonce{};   // FreshNonce(): never used twice under one data key
  LayoutId layout_id{};
};

// 8 bytes of the system's randomness.
Expected<ObjectNonce> FreshNonce();

// What guards an object besides its CRCs. Keys are borrowed and outlive the writer or reader; nullptr: none.
struct Seal {
  const Key* digest_key = nullptr;  // tenant's: without it nobody can make a digest that passes
  const Key* data_key = nullptr;    // job's: frames are encrypted with AES-256-GCM
  std::string context;              // tenant \0 origin job; authenticated with every encrypted frame
};

// How a frame's raw bytes become its stored bytes.
enum class Codec : uint32_t { kRaw = 0, kPlanesZstd = 1 };

// A finished object: `size` bytes from the start of `bytes`, and the digest that names its content.
struct SavedObject {
  MappedBuffer bytes;
  int64_t size = 0;
  Digest digest{};
};

// Why a stored object is refused; the message of a kErrCheckpoint begins with one of these words and a colon. The set is closed.
namespace reason {
inline constexpr std::string_view kDamaged = "damaged";
inline constexpr std::string_view kTruncated = "truncated";
inline constexpr std::string_view kLayout = "layout";
inline constexpr std::string_view kModel = "model";
inline constexpr std::string_view kNumerics = "numerics";
inline constexpr std::string_view kNumericsDrift = "numerics_drift";
inline constexpr std::string_view kFormat = "format";
inline constexpr std::string_view kMissing = "missing";
inline constexpr std::string_view kIdentity = "identity";
}  // namespace reason

// Error(kErrCheckpoint, "<reason>: <sentence>").
Status CheckpointError(std::string_view reason, std::string_view sentence);

}  // namespace rum
