#include "checkpoint/object_reader.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "checkpoint/chunked_bytes.h"
#include "checkpoint/codec.h"
#include "checkpoint/crc32c.h"
#include "checkpoint/digest.h"
#include "checkpoint/object_layout.h"
#include "core/limits.h"

namespace rum {
namespace {

// Memory that one ReadFrame at a time uses; kept for the next, because fresh pages cost more than the CRC of what is put there.
struct Scratch {
  MappedBuffer stored;  // joined or decrypted
  MappedBuffer planes;
  MappedBuffer raw;
};

}  // namespace

struct ObjectReader::State {
  State(Chunks chunks, const Expect& expect, const Seal& seal_)
      : bytes(chunks), seal(seal_), keyless(expect.keyless), check_digests(expect.check_digests && !expect.keyless) {}

  Status Open(const Expect& expect);
  Status CheckTrailer(const Expect& expect, std::vector<uint8_t>* index);
  Status CheckHeader(const Expect& expect);
  Status CheckFrames(std::span<const uint8_t> index, int64_t index_offset);
  Status CheckFrame(size_t frame, int64_t end_of_last, int64_t index_offset) const;

  Status Read(size_t frame, Scratch* scratch, const Use& use) const;
  Status Stream(int32_t frame, Scratch* scratch, const UseFrame& use) const;
  Status Verify(size_t frame, uint8_t* to) const;
  Status Damaged(size_t frame, const char* what) const;
  template <class F>
  Status WithScratch(const F& f);

  ChunkedBytes bytes;
  Seal seal;
  bool keyless;
  bool check_digests;
  HeaderBytes header_bytes{};
  ObjectHeader header;
  bool encrypted = false;
  bool decrypts = false;
  Digest digest{};
  std::vector<FrameEntry> entries;
  std::mutex mutex;
  std::vector<std::unique_ptr<Scratch>> scratches;  // those that no call uses
};

// --- Opening -------------------------------------------------------------------------------------

Status ObjectReader::State::Open(const Expect& expect) {
  const int64_t size = bytes.size();
  if (size < expect.bytes) {
    return CheckpointError(reason::kTruncated, "the object has " + std::to_string(size) + " of its " + std::to_string(expect.bytes) + " bytes.");
  }
  if (size > expect.bytes) {
    return CheckpointError(reason::kDamaged, "the object has " + std::to_string(size) + " bytes instead of " + std::to_string(expect.bytes) + '.');
  }
  if (size < kHeaderBytes + kIndexEntryBytes + kTrailerBytes) return CheckpointError(reason::kTruncated, "the object is shorter than any.");
  bytes.Copy(0, header_bytes);
  if (Status status = CheckMagic(header_bytes); !status.ok()) return status;
  std::vector<uint8_t> index;
  if (Status status = CheckTrailer(expect, &index); !status.ok()) return status;
  if (Status status = CheckHeader(expect); !status.ok()) return status;
  return CheckFrames(index, size - kTrailerBytes - static_cast<int64_t>(index.size()));
}

// Where the index is, and that it and the header are what was written. Nothing in them is believed before.
Status ObjectReader::State::CheckTrailer(const Expect& expect, std::vector<uint8_t>* index) {
  TrailerBytes trailer_bytes;
  bytes.Copy(bytes.size() - kTrailerBytes, trailer_bytes);
  Trailer trailer;
  if (Status status = ParseTrailer(trailer_bytes, &trailer); !status.ok()) return status;
  const int64_t frames = FramesOf(header_bytes);
  const bool right = frames >= 1 && frames <= kObjectFramesMax && trailer.index_bytes == frames * kIndexEntryBytes &&
                     trailer.index_offset >= kHeaderBytes && trailer.index_offset + trailer.index_bytes + kTrailerBytes == bytes.size();
  if (!right) return CheckpointError(reason::kDamaged, "header and trailer of the object do not fit its length.");
  index->resize(static_cast<size_t>(trailer.index_bytes));
  bytes.Copy(trailer.index_offset, *index);
  if (Crc32c(*index, Crc32c(header_bytes)) != trailer.crc32c) {
    return CheckpointError(reason::kDamaged, "header and index of the object have another CRC.");
  }
  if (expect.digest != nullptr && *expect.digest != trailer.digest) {
    return CheckpointError(reason::kDamaged, "the object is not the one that the manifest names: it has another digest.");
  }
  digest = trailer.digest;
  if (keyless) return Status::Ok();
  Hasher hasher(seal.digest_key);
  hasher.Update(header_bytes);
  hasher.Update(*index);
  hasher.Finish(digest);
  if (digest != trailer.digest) {
    return CheckpointError(reason::kIdentity, "header and index of the object were not digested with this tenant's key.");
  }
  return Status::Ok();
}

Status ObjectReader::State::CheckHeader(const Expect& expect) {
  if (Status status = ParseHeader(header_bytes, &header, &encrypted); !status.ok()) return status;
  if (header.kind != expect.kind) {
    return CheckpointError(reason::kDamaged, std::string("the object is a ") + ObjectKindName(header.kind) + " where a " +
                                                 ObjectKindName(expect.kind) + " should be.");
  }
  if (expect.layout_id && header.layout_id != *expect.layout_id) {
    return CheckpointError(reason::kLayout, std::string("the ") + ObjectKindName(header.kind) + " is of another cache layout.");
  }
  decrypts = encrypted && !keyless;
  if (decrypts && seal.data_key == nullptr) {
    return Error(kErrKey, std::string("The ") + ObjectKindName(header.kind) + " is encrypted, and there is no data key.");
  }
  // Otherwise whoever can write to the store could put in plain bytes of his own.
  if (!encrypted && (seal.data_key != nullptr || keyless)) {
    return CheckpointError(reason::kIdentity, std::string("the ") + ObjectKindName(header.kind) + " is not encrypted, and its job is.");
  }
  return decrypts ? EncryptionAvailable() : Status::Ok();
}

Status ObjectReader::State::CheckFrames(std::span<const uint8_t> index, int64_t index_offset) {
  entries.resize(header.frames);
  int64_t end = kHeaderBytes;
  for (size_t i = 0; i < entries.size(); ++i) {
    if (!ParseEntry(index.data() + i * kIndexEntryBytes, &entries[i])) return Damaged(i, "is larger than any");
    if (Status status = CheckFrame(i, end, index_offset); !status.ok()) return status;
    end = entries[i].offset + entries[i].stored_bytes;
  }
  if (AlignUp(end, kIndexAlignment) != index_offset || !bytes.AllZero(end, index_offset)) {
    return CheckpointError(reason::kDamaged, "there are bytes between the last frame of the object and its index.");
  }
  return Status::Ok();
}

// Each frame begins at the first place it may, so neither a hole nor an overlap can hide anything.
Status ObjectReader::State::CheckFrame(size_t frame, int64_t end_of_last, int64_t index_offset) const {
  const FrameEntry& entry = entries[frame];
  if (entry.codec > static_cast<uint32_t>(Codec::kPlanesZstd)) {
    return CheckpointError(reason::kFormat, "frame " + std::to_string(frame) + " has the unknown codec " + std::to_string(entry.codec) + '.');
  }
  if (entry.offset != AlignUp(end_of_last, FrameAlignment(header.kind)) || entry.stored_bytes > index_offset - entry.offset) {
    return Damaged(frame, "is not where it belongs");
  }
  const int64_t coded_bytes = entry.stored_bytes - (encrypted ? kGcmTagBytes : 0);
  const bool plausible = entry.codec == static_cast<uint32_t>(Codec::kRaw) ? coded_bytes == entry.raw_bytes
                                                                           : PlanesZstdPlausible(coded_bytes, entry.raw_bytes);
  if (!plausible || entry.raw_bytes > kFrameBytesMax) return Damaged(frame, "cannot have the length that the index says");
  if (!bytes.AllZero(end_of_last, entry.offset)) return Damaged(frame, "has bytes before it that belong to nothing");
  return Status::Ok();
}

// --- Frames --------------------------------------------------------------------------------------

Status ObjectReader::State::Damaged(size_t frame, const char* what) const {
  return CheckpointError(reason::kDamaged, "frame " + std::to_string(frame) + " of the " + ObjectKindName(header.kind) + ' ' + what + '.');
}

template <class F>
Status ObjectReader::State::WithScratch(const F& f) {
  std::unique_lock<std::mutex> lock(mutex);
  std::unique_ptr<Scratch> scratch = scratches.empty() ? std::make_unique<Scratch>() : std::move(scratches.back());
  if (!scratches.empty()) scratches.pop_back();
  lock.unlock();
  Status status = f(scratch.get());
  lock.lock();
  scratches.push_back(std::move(scratch));
  return status;
}

// CRC, digest and tag of the stored bytes; `to`, if not nullptr, gets them joined and decrypted, without the tag. Piece by piece, so that
// each comes from memory once.
Status ObjectReader::State::Verify(size_t frame, uint8_t* to) const {
  const FrameEntry& entry = entries[frame];
  const auto number = static_cast<uint32_t>(frame);
  const int64_t tag_at = entry.stored_bytes - (encrypted ? kGcmTagBytes : 0);
  GcmStream cipher;
  if (decrypts) {
    const std::vector<uint8_t> authenticated = FrameAuthenticated(header_bytes, seal.context, number);
    const Status status = cipher.Start(GcmStream::Direction::kDecrypt, *seal.data_key, FrameNonce(header.nonce, number), authenticated);
    if (!status.ok()) return status;
  }
  FrameCheck check(entry, seal.digest_key, check_digests);
  for (int64_t at = 0; at < entry.stored_bytes;) {
    const int64_t part_end = at < tag_at ? tag_at : entry.stored_bytes;
    const std::span<const uint8_t> piece = bytes.Piece(entry.offset + at, std::min(part_end - at, kPieceBytes - at % kPieceBytes));
    check.Update(piece);
    if (at < tag_at && decrypts) {
      if (Status status = cipher.Update(piece, to + at); !status.ok()) return status;
    } else if (at < tag_at && to != nullptr) {
      std::memcpy(to + at, piece.data(), piece.size());
    }
    at += static_cast<int64_t>(piece.size());
  }
  if (const char* wrong = check.Finish(); wrong != nullptr) return Damaged(frame, wrong);
  if (!decrypts) return Status::Ok();
  GcmTag tag;
  bytes.Copy(entry.offset + tag_at, tag);
  if (cipher.FinishDecrypt(tag)) return Status::Ok();
  return CheckpointError(reason::kIdentity, "frame " + std::to_string(frame) + " of the " + ObjectKindName(header.kind) +
                                                " was not encrypted with this key for this tenant and job.");
}

Status ObjectReader::State::Read(size_t frame, Scratch* scratch, const Use& use) const {
  const FrameEntry& entry = entries[frame];
  const bool raw = entry.codec == static_cast<uint32_t>(Codec::kRaw);
  const int64_t coded_bytes = entry.stored_bytes - (encrypted ? kGcmTagBytes : 0);
  std::span<const uint8_t> coded;
  if (entry.stored_bytes > 0) coded = bytes.Piece(entry.offset, coded_bytes);
  const bool in_place = !decrypts && static_cast<int64_t>(coded.size()) == coded_bytes;
  const auto no_memory = [&] { return Error(kErrMemory, "The system has no memory for a frame of " + std::to_string(entry.raw_bytes) + " bytes."); };
  if (!in_place && !scratch->stored.Grow(coded_bytes)) return no_memory();
  if (Status status = Verify(frame, in_place ? nullptr : scratch->stored.data()); !status.ok()) return status;
  if (!in_place) coded = {scratch->stored.data(), static_cast<size_t>(coded_bytes)};
  if (raw || encrypted != decrypts) return use(coded);
  if (!scratch->planes.Grow(entry.raw_bytes) || !scratch->raw.Grow(entry.raw_bytes)) return no_memory();
  if (!DecodePlanesZstd(coded, entry.raw_bytes, scratch->planes.data(), scratch->raw.data())) return Damaged(frame, "does not decode to its length");
  return use({scratch->raw.data(), static_cast<size_t>(entry.raw_bytes)});
}

Status ObjectReader::State::Stream(int32_t frame, Scratch* scratch, const UseFrame& use) const {
  const FrameEntry& entry = entries[static_cast<size_t>(frame)];
  if (encrypted || entry.codec != static_cast<uint32_t>(Codec::kRaw)) {
    return Read(static_cast<size_t>(frame), scratch, [&](std::span<const uint8_t> verified) {
      const ChunkedBytes chunk({&verified, 1});
      FrameStream stream(chunk, 0, chunk.size(), std::nullopt);
      return use(frame, stream);
    });
  }
  FrameStream stream(bytes, entry.offset, entry.stored_bytes, FrameCheck(entry, seal.digest_key, check_digests));
  const Status used = use(frame, stream);
  if (const char* wrong = stream.Finish(); wrong != nullptr) return Damaged(static_cast<size_t>(frame), wrong);
  return used;
}

// --- The interface -------------------------------------------------------------------------------

ObjectReader::ObjectReader(std::unique_ptr<State> state) : state_(std::move(state)) {}
ObjectReader::ObjectReader(ObjectReader&&) noexcept = default;
ObjectReader& ObjectReader::operator=(ObjectReader&&) noexcept = default;
ObjectReader::~ObjectReader() = default;

Expected<ObjectReader> ObjectReader::Open(Chunks chunks, const Expect& expect, const Seal& seal) {
  auto state = std::make_unique<State>(chunks, expect, seal);
  if (Status status = state->Open(expect); !status.ok()) return status;
  return ObjectReader(std::move(state));
}

const ObjectHeader& ObjectReader::header() const { return state_->header; }
const Digest& ObjectReader::digest() const { return state_->digest; }
int32_t ObjectReader::frames() const { return static_cast<int32_t>(state_->entries.size()); }
int64_t ObjectReader::raw_bytes(int32_t frame) const { return state_->entries[static_cast<size_t>(frame)].raw_bytes; }

Status ObjectReader::ReadFrame(int32_t frame, const Use& use) const {
  if (frame < 0 || frame >= frames()) return Error(kErrInternal, "There is no frame " + std::to_string(frame) + '.');
  return state_->WithScratch([&](Scratch* scratch) { return state_->Read(static_cast<size_t>(frame), scratch, use); });
}

Status ObjectReader::ReadFrames(const ParallelFor& parallel, const UseFrame& use) const {
  std::vector<Status> results(state_->entries.size());
  parallel(frames(), [&](int64_t item) {
    const auto frame = static_cast<int32_t>(item);
    results[static_cast<size_t>(item)] = state_->WithScratch([&](Scratch* scratch) { return state_->Stream(frame, scratch, use); });
  });
  const auto failed = std::find_if(results.begin(), results.end(), [](const Status& status) { return !status.ok(); });
  return failed == results.end() ? Status::Ok() : *failed;
}

}  // namespace rum
