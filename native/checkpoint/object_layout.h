// The bytes of header, index and trailer: written and read here and nowhere else. docs/CHECKPOINT.md has the tables.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "checkpoint/frame_crypto.h"
#include "checkpoint/frame_index.h"
#include "checkpoint/object.h"

namespace rum {

inline constexpr int64_t kHeaderBytes = 64;
inline constexpr int64_t kIndexEntryBytes = 48;
inline constexpr int64_t kTrailerBytes = 64;
inline constexpr int64_t kIndexAlignment = 8;
inline constexpr int64_t kPieceBytes = int64_t{1} << 17;  // checked, hashed and copied at once: in L2, and a subtree of BLAKE3

using HeaderBytes = std::array<uint8_t, kHeaderBytes>;
using TrailerBytes = std::array<uint8_t, kTrailerBytes>;

int64_t FrameAlignment(ObjectKind kind);
int64_t AlignUp(int64_t offset, int64_t alignment);

HeaderBytes EncodeHeader(const ObjectHeader& header, bool encrypted);
// ERR_CHECKPOINT(format) unless these are the first bytes of a dmskv/1 object that this build can read; damaged if of nothing of ours.
Status CheckMagic(const HeaderBytes& bytes);
// After CheckMagic, and after the CRC over them: the rest of the fields. ERR_CHECKPOINT(format).
Status ParseHeader(const HeaderBytes& bytes, ObjectHeader* header, bool* encrypted);
uint32_t FramesOf(const HeaderBytes& bytes);  // the field alone, unchecked

void EncodeEntry(const FrameEntry& entry, uint8_t* to);  // kIndexEntryBytes
// false: a number is larger than any object.
bool ParseEntry(const uint8_t* from, FrameEntry* entry);

struct Trailer {
  int64_t index_offset = 0;
  int64_t index_bytes = 0;
  uint32_t crc32c = 0;  // of header and index
  Digest digest{};      // of header and index
};
TrailerBytes EncodeTrailer(const Trailer& trailer);
Status ParseTrailer(const TrailerBytes& bytes, Trailer* trailer);  // ERR_CHECKPOINT(damaged)

// What the encryption of frame `frame` is bound to besides its key.
GcmNonce FrameNonce(const ObjectNonce& nonce, uint32_t frame);
std::vector<uint8_t> FrameAuthenticated(const HeaderBytes& header, std::string_view context, uint32_t frame);

}  // namespace rum
