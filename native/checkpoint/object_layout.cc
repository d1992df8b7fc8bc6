#include "checkpoint/object_layout.h"

#include <algorithm>
#include <cstring>

#include "core/limits.h"
#include "core/little_endian.h"

namespace rum {
namespace {

constexpr char kMagicAnyVersion[] = "dmskv/";
constexpr std::array<uint8_t, 8> kMagic = {'d', 'm', 's', 'k', 'v', '/', '1', 0};
constexpr std::array<uint8_t, 8> kTrailerMagic = {'d', 'm', 's', 'k', 'v', 'e', 'n', 'd'};
constexpr uint8_t kVersion = 1;
constexpr uint16_t kFlagEncrypted = 1;

// Offsets in the header.
constexpr size_t kKindAt = 8, kVersionAt = 9, kFlagsAt = 10, kFramesAt = 12, kEpochAt = 16, kChainAt = 24, kOrdinalAt = 28, kNonceAt = 32,
                 kLayoutAt = 40, kHeaderReservedAt = 56;
// Offsets in an entry.
constexpr size_t kStoredAt = 8, kRawAt = 16, kCodecAt = 24, kEntryCrcAt = 28, kEntryDigestAt = 32;
// Offsets in the trailer.
constexpr size_t kIndexBytesAt = 8, kCrcAt = 16, kTrailerReservedAt = 20, kDigestAt = 24, kTrailerMagicAt = 56;

template <size_t N>
void Put(uint8_t* to, const std::array<uint8_t, N>& bytes) {
  std::memcpy(to, bytes.data(), N);
}

template <size_t N>
void Get(const uint8_t* from, std::array<uint8_t, N>* bytes) {
  std::memcpy(bytes->data(), from, N);
}

// A stored u64 that counts bytes of an object.
bool GetSize(const uint8_t* from, int64_t* size) {
  const auto value = LoadAs<uint64_t>(from);
  if (value > static_cast<uint64_t>(kObjectBytesMax)) return false;
  *size = static_cast<int64_t>(value);
  return true;
}

}  // namespace

const char* ObjectKindName(ObjectKind kind) {
  switch (kind) {
    case ObjectKind::kSegment: return "segment";
    case ObjectKind::kTail: return "tail";
    case ObjectKind::kJournal: return "journal";
  }
  return "object";
}

Status CheckpointError(std::string_view reason, std::string_view sentence) {
  return Error(kErrCheckpoint, std::string(reason) + ": " + std::string(sentence));
}

int64_t FrameAlignment(ObjectKind kind) { return kind == ObjectKind::kJournal ? 8 : 4096; }

int64_t AlignUp(int64_t offset, int64_t alignment) { return (offset + alignment - 1) / alignment * alignment; }

HeaderBytes EncodeHeader(const ObjectHeader& header, bool encrypted) {
  HeaderBytes bytes{};
  Put(bytes.data(), kMagic);
  bytes[kKindAt] = static_cast<uint8_t>(header.kind);
  bytes[kVersionAt] = kVersion;
  StoreAs(&bytes[kFlagsAt], encrypted ? kFlagEncrypted : uint16_t{0});
  StoreAs(&bytes[kFramesAt], header.frames);
  StoreAs(&bytes[kEpochAt], header.epoch);
  StoreAs(&bytes[kChainAt], header.chain);
  StoreAs(&bytes[kOrdinalAt], header.n);
  Put(&bytes[kNonceAt], header.nonce);
  Put(&bytes[kLayoutAt], header.layout_id);
  return bytes;
}

Status CheckMagic(const HeaderBytes& bytes) {
  if (std::memcmp(bytes.data(), kMagicAnyVersion, sizeof kMagicAnyVersion - 1) != 0) {
    return CheckpointError(reason::kDamaged, "this is not an object of a checkpoint.");
  }
  if (!std::equal(kMagic.begin(), kMagic.end(), bytes.begin()) || bytes[kVersionAt] != kVersion) {
    return CheckpointError(reason::kFormat, "the object is of a version of dmskv that this build does not read; it reads dmskv/1, version 1.");
  }
  return Status::Ok();
}

uint32_t FramesOf(const HeaderBytes& bytes) { return LoadAs<uint32_t>(&bytes[kFramesAt]); }

Status ParseHeader(const HeaderBytes& bytes, ObjectHeader* header, bool* encrypted) {
  const uint8_t kind = bytes[kKindAt];
  const auto flags = LoadAs<uint16_t>(&bytes[kFlagsAt]);
  if (kind < 1 || kind > 3) return CheckpointError(reason::kFormat, "the object is of the unknown kind " + std::to_string(kind) + '.');
  if ((flags & ~kFlagEncrypted) != 0) return CheckpointError(reason::kFormat, "the object has unknown flags: " + std::to_string(flags) + '.');
  if (LoadAs<uint64_t>(&bytes[kHeaderReservedAt]) != 0) return CheckpointError(reason::kFormat, "reserved bytes of the object's header are in use.");
  header->kind = static_cast<ObjectKind>(kind);
  header->frames = FramesOf(bytes);
  header->epoch = LoadAs<uint64_t>(&bytes[kEpochAt]);
  header->chain = LoadAs<int32_t>(&bytes[kChainAt]);
  header->n = LoadAs<uint32_t>(&bytes[kOrdinalAt]);
  Get(&bytes[kNonceAt], &header->nonce);
  Get(&bytes[kLayoutAt], &header->layout_id);
  *encrypted = (flags & kFlagEncrypted) != 0;
  if (header->chain < kWholeJobChain) return CheckpointError(reason::kFormat, "the object is of chain " + std::to_string(header->chain) + '.');
  return Status::Ok();
}

void EncodeEntry(const FrameEntry& entry, uint8_t* to) {
  StoreAs(to, static_cast<uint64_t>(entry.offset));
  StoreAs(to + kStoredAt, static_cast<uint64_t>(entry.stored_bytes));
  StoreAs(to + kRawAt, static_cast<uint64_t>(entry.raw_bytes));
  StoreAs(to + kCodecAt, entry.codec);
  StoreAs(to + kEntryCrcAt, entry.crc32c);
  Put(to + kEntryDigestAt, entry.digest);
}

bool ParseEntry(const uint8_t* from, FrameEntry* entry) {
  entry->codec = LoadAs<uint32_t>(from + kCodecAt);
  entry->crc32c = LoadAs<uint32_t>(from + kEntryCrcAt);
  Get(from + kEntryDigestAt, &entry->digest);
  return GetSize(from, &entry->offset) && GetSize(from + kStoredAt, &entry->stored_bytes) && GetSize(from + kRawAt, &entry->raw_bytes);
}

TrailerBytes EncodeTrailer(const Trailer& trailer) {
  TrailerBytes bytes{};
  StoreAs(bytes.data(), static_cast<uint64_t>(trailer.index_offset));
  StoreAs(&bytes[kIndexBytesAt], static_cast<uint64_t>(trailer.index_bytes));
  StoreAs(&bytes[kCrcAt], trailer.crc32c);
  Put(&bytes[kDigestAt], trailer.digest);
  Put(&bytes[kTrailerMagicAt], kTrailerMagic);
  return bytes;
}

Status ParseTrailer(const TrailerBytes& bytes, Trailer* trailer) {
  trailer->crc32c = LoadAs<uint32_t>(&bytes[kCrcAt]);
  Get(&bytes[kDigestAt], &trailer->digest);
  const bool right = std::equal(kTrailerMagic.begin(), kTrailerMagic.end(), bytes.begin() + kTrailerMagicAt) &&
                     LoadAs<uint32_t>(&bytes[kTrailerReservedAt]) == 0 && GetSize(bytes.data(), &trailer->index_offset) &&
                     GetSize(&bytes[kIndexBytesAt], &trailer->index_bytes);
  return right ? Status::Ok() : CheckpointError(reason::kDamaged, "the object does not end with a trailer.");
}

GcmNonce FrameNonce(const ObjectNonce& nonce, uint32_t frame) {
  GcmNonce bytes;
  Put(bytes.data(), nonce);
  StoreAs(&bytes[nonce.size()], frame);
  return bytes;
}

std::vector<uint8_t> FrameAuthenticated(const HeaderBytes& header, std::string_view context, uint32_t frame) {
  std::vector<uint8_t> bytes(header.begin(), header.end());
  bytes.insert(bytes.end(), context.begin(), context.end());
  bytes.resize(bytes.size() + sizeof frame);
  StoreAs(&bytes[bytes.size() - sizeof frame], frame);
  return bytes;
}

}  // namespace rum
