#include "checkpoint/object_writer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "checkpoint/codec.h"
#include "checkpoint/crc32c.h"
#include "checkpoint/digest.h"
#include "checkpoint/object_layout.h"
#include "core/limits.h"

namespace rum {

ObjectWriter::ObjectWriter(const ObjectHeader& header, const Seal& seal, Codec codec, int element_bytes, int64_t reserve_bytes)
    : header_(header), seal_(seal), codec_(codec), element_bytes_(element_bytes), reserve_bytes_(reserve_bytes), status_(Begin()) {}

Status ObjectWriter::Begin() {
  if (header_.frames < 1 || header_.frames > kObjectFramesMax || header_.chain < kWholeJobChain || !IsElementBytes(element_bytes_)) {
    return Error(kErrInternal, "An object was begun with wrong counts.");
  }
  if (seal_.data_key != nullptr) {
    if (Status status = EncryptionAvailable(); !status.ok()) return status;
  }
  header_bytes_ = EncodeHeader(header_, seal_.data_key != nullptr);
  if (Status status = Reserve(std::clamp<int64_t>(reserve_bytes_, kHeaderBytes, kObjectBytesMax)); !status.ok()) return status;
  std::memcpy(bytes_.data(), header_bytes_.data(), kHeaderBytes);
  end_ = kHeaderBytes;
  entries_.reserve(header_.frames);
  return Status::Ok();
}

Status ObjectWriter::Reserve(int64_t bytes) {
  if (bytes > kObjectBytesMax) return Error(kErrInternal, "An object would be larger than its format allows.");
  if (bytes <= bytes_.size()) return Status::Ok();
  if (bytes_.Grow(std::max(bytes, bytes_.size() + bytes_.size() / 2))) return Status::Ok();
  return Error(kErrMemory, "The system has no memory for an object of " + std::to_string(bytes) + " bytes.");
}

Status ObjectWriter::AddFrame(int64_t raw_bytes, const std::function<void(uint8_t*)>& fill) {
  if (status_.ok()) status_ = Add(raw_bytes, fill);
  return status_;
}

Status ObjectWriter::Add(int64_t raw_bytes, const std::function<void(uint8_t*)>& fill) {
  if (raw_bytes < 0 || raw_bytes > kFrameBytesMax || entries_.size() >= header_.frames) {
    return Error(kErrInternal, "An object was given a frame that it has no place for.");
  }
  FrameEntry entry;
  entry.offset = AlignUp(end_, FrameAlignment(header_.kind));
  entry.raw_bytes = raw_bytes;
  const int64_t bound = codec_ == Codec::kPlanesZstd ? PlanesZstdBound(raw_bytes) : raw_bytes;
  if (Status status = Reserve(entry.offset + bound + kGcmTagBytes); !status.ok()) return status;
  std::memset(bytes_.data() + end_, 0, static_cast<size_t>(entry.offset - end_));
  if (Status status = codec_ == Codec::kPlanesZstd ? Compress(fill, &entry) : FillRaw(fill, &entry); !status.ok()) return status;
  if (Status status = Protect(&entry); !status.ok()) return status;
  end_ = entry.offset + entry.stored_bytes;
  entries_.push_back(entry);
  return Status::Ok();
}

Status ObjectWriter::FillRaw(const std::function<void(uint8_t*)>& fill, FrameEntry* entry) {
  fill(bytes_.data() + entry->offset);
  entry->stored_bytes = entry->raw_bytes;
  return Status::Ok();
}

Status ObjectWriter::Compress(const std::function<void(uint8_t*)>& fill, FrameEntry* entry) {
  if (!scratch_.Grow(2 * entry->raw_bytes)) return Error(kErrMemory, "The system has no memory to compress a frame.");
  const std::span<uint8_t> raw(scratch_.data(), static_cast<size_t>(entry->raw_bytes));
  fill(raw.data());
  uint8_t* const to = bytes_.data() + entry->offset;
  Expected<int64_t> stored = EncodePlanesZstd(raw, element_bytes_, raw.data() + raw.size(), to);
  if (!stored.ok()) return stored.status();
  const bool smaller = *stored < entry->raw_bytes;
  if (!smaller) std::memcpy(to, raw.data(), raw.size());
  entry->codec = static_cast<uint32_t>(smaller ? Codec::kPlanesZstd : Codec::kRaw);
  entry->stored_bytes = smaller ? *stored : entry->raw_bytes;
  return Status::Ok();
}

// Piece by piece, so that what is encrypted is still in the cache when it is hashed.
Status ObjectWriter::Protect(FrameEntry* entry) {
  uint8_t* const data = bytes_.data() + entry->offset;
  const auto frame = static_cast<uint32_t>(entries_.size());
  Hasher hasher(seal_.digest_key);
  GcmStream cipher;
  if (seal_.data_key != nullptr) {
    const std::vector<uint8_t> authenticated = FrameAuthenticated(header_bytes_, seal_.context, frame);
    const Status status = cipher.Start(GcmStream::Direction::kEncrypt, *seal_.data_key, FrameNonce(header_.nonce, frame), authenticated);
    if (!status.ok()) return status;
  }
  const auto hash = [&](std::span<const uint8_t> bytes) {
    entry->crc32c = Crc32c(bytes, entry->crc32c);
    hasher.Update(bytes);
  };
  for (int64_t at = 0; at < entry->stored_bytes; at += kPieceBytes) {
    const std::span<uint8_t> piece(data + at, static_cast<size_t>(std::min(kPieceBytes, entry->stored_bytes - at)));
    if (seal_.data_key != nullptr) {
      if (Status status = cipher.Update(piece, piece.data()); !status.ok()) return status;
    }
    hash(piece);
  }
  if (seal_.data_key != nullptr) {
    GcmTag tag;
    if (Status status = cipher.FinishEncrypt(&tag); !status.ok()) return status;
    std::memcpy(data + entry->stored_bytes, tag.data(), tag.size());
    entry->stored_bytes += kGcmTagBytes;
    hash(tag);
  }
  hasher.Finish(entry->digest);
  return Status::Ok();
}

Expected<SavedObject> ObjectWriter::Finish() {
  if (status_.ok() && entries_.size() != header_.frames) status_ = Error(kErrInternal, "An object ended before its last frame.");
  if (!status_.ok()) return status_;
  Trailer trailer;
  trailer.index_offset = AlignUp(end_, kIndexAlignment);
  trailer.index_bytes = static_cast<int64_t>(entries_.size()) * kIndexEntryBytes;
  const int64_t size = trailer.index_offset + trailer.index_bytes + kTrailerBytes;
  if (Status status = Reserve(size); !status.ok()) return status;
  uint8_t* const index = bytes_.data() + trailer.index_offset;
  std::memset(bytes_.data() + end_, 0, static_cast<size_t>(trailer.index_offset - end_));
  for (size_t i = 0; i < entries_.size(); ++i) EncodeEntry(entries_[i], index + static_cast<int64_t>(i) * kIndexEntryBytes);
  const std::span<const uint8_t> index_bytes(index, static_cast<size_t>(trailer.index_bytes));
  trailer.crc32c = Crc32c(index_bytes, Crc32c(header_bytes_));
  Hasher hasher(seal_.digest_key);
  hasher.Update(header_bytes_);
  hasher.Update(index_bytes);
  hasher.Finish(trailer.digest);
  std::memcpy(index + trailer.index_bytes, EncodeTrailer(trailer).data(), kTrailerBytes);
  status_ = Error(kErrInternal, "The object is finished.");
  return SavedObject{std::move(bytes_), size, trailer.digest};
}

}  // namespace rum
