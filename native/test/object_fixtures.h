// Stored objects for tests: made from a seed, cut into chunks, changed and signed again as somebody who has the key could.
#pragma once
#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/crc32c.h"
#include "checkpoint/digest.h"
#include "checkpoint/object_layout.h"
#include "checkpoint/object_reader.h"
#include "checkpoint/object_writer.h"
#include "core/little_endian.h"

namespace rum::test {

using Bytes = std::vector<uint8_t>;

inline Key KeyOf(uint8_t seed) {
  Key key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(seed + i);
  return key;
}
inline const Key kDigestKey = KeyOf(1);
inline const Key kDataKey = KeyOf(101);
inline const std::string kContext = std::string("acme\0job-1", 10);

// What is not said is as a plain segment has it.
struct ObjectSpec {
  ObjectKind kind = ObjectKind::kSegment;
  Codec codec = Codec::kRaw;
  int element_bytes = 4;
  bool keyed = false;
  bool encrypted = false;
  uint8_t nonce = 7;
  std::vector<Bytes> frames;
};

inline Seal SealOf(const ObjectSpec& spec) {
  return {spec.keyed ? &kDigestKey : nullptr, spec.encrypted ? &kDataKey : nullptr, spec.encrypted ? kContext : std::string()};
}

inline ObjectHeader HeaderOf(const ObjectSpec& spec) {
  ObjectHeader header;
  header.kind = spec.kind;
  header.frames = static_cast<uint32_t>(spec.frames.size());
  header.epoch = 0x0102030405060708;
  header.chain = spec.kind == ObjectKind::kJournal ? kWholeJobChain : 3;
  header.n = 42;
  header.nonce.fill(spec.nonce);
  header.layout_id = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  return header;
}

// reserve_bytes 0: the object grows as it is written.
inline Expected<SavedObject> Write(const ObjectSpec& spec, int64_t reserve_bytes = 0) {
  ObjectWriter writer(HeaderOf(spec), SealOf(spec), spec.codec, spec.element_bytes, reserve_bytes);
  for (const Bytes& frame : spec.frames) {
    const Status status = writer.AddFrame(static_cast<int64_t>(frame.size()), [&](uint8_t* to) { std::copy(frame.begin(), frame.end(), to); });
    if (!status.ok()) return status;
  }
  return writer.Finish();
}

inline Bytes BytesOf(const SavedObject& object) { return {object.bytes.data(), object.bytes.data() + object.size}; }

// Bytes that do not compress.
inline Bytes Noise(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

// f32 numbers as a cache has them: noise in the mantissa, exponents near each other.
inline Bytes Floats(size_t numbers, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes bytes(4 * numbers);
  for (size_t i = 0; i < numbers; ++i) {
    const float value = (static_cast<float>(random()) / 4294967296.0f - 0.5f) * 4.0f;
    StoreAs(&bytes[4 * i], value);
  }
  return bytes;
}

// Frames of many lengths: none, below, at and above every alignment and the pieces that reader and writer work in.
inline std::vector<Bytes> ManyFrames() {
  std::vector<Bytes> frames;
  uint32_t seed = 0;
  for (const int size : {5, 0, 8, 4095, 4096, 4097, 131072, 131071, 300001}) frames.push_back(Noise(static_cast<size_t>(size), ++seed));
  frames.push_back(Floats(40000, 1));
  return frames;
}

// Exact copies of consecutive parts on the heap, so that AddressSanitizer sees a read past any of them.
class ChunkCopies {
 public:
  ChunkCopies(const Bytes& bytes, size_t chunk_bytes) {
    for (size_t at = 0; at < bytes.size(); at += chunk_bytes) {
      parts_.emplace_back(bytes.data() + at, bytes.data() + std::min(bytes.size(), at + chunk_bytes));
    }
    for (const Bytes& part : parts_) spans_.emplace_back(part);
  }
  Chunks chunks() const { return spans_; }

 private:
  std::vector<Bytes> parts_;
  std::vector<std::span<const uint8_t>> spans_;
};

inline Expect ExpectOf(const ObjectSpec& spec, int64_t bytes) {
  Expect expect;
  expect.kind = spec.kind;
  expect.layout_id = HeaderOf(spec).layout_id;
  expect.bytes = bytes;
  return expect;
}

// Opens and reads every frame, whose bytes go to *frames.
inline Status ReadAll(Chunks chunks, const Expect& expect, const Seal& seal, std::vector<Bytes>* frames = nullptr) {
  Expected<ObjectReader> reader = ObjectReader::Open(chunks, expect, seal);
  if (!reader.ok()) return reader.status();
  for (int32_t i = 0; i < reader->frames(); ++i) {
    const Status status = reader->ReadFrame(i, [&](std::span<const uint8_t> bytes) {
      if (frames != nullptr) frames->emplace_back(bytes.begin(), bytes.end());
      return Status::Ok();
    });
    if (!status.ok()) return status;
  }
  return Status::Ok();
}

inline Status ReadAll(const Bytes& bytes, const ObjectSpec& spec, std::vector<Bytes>* frames = nullptr) {
  const ChunkCopies copies(bytes, std::max<size_t>(bytes.size(), 1));
  return ReadAll(copies.chunks(), ExpectOf(spec, static_cast<int64_t>(bytes.size())), SealOf(spec), frames);
}

// Codes are compared as text: the address of a literal is not the same in every object file.
inline bool Is(const Status& status, std::string_view code) { return !status.ok() && status.code == code; }

inline bool Refused(const Status& status, std::string_view reason) {
  const bool right = Is(status, kErrCheckpoint) && status.message.starts_with(std::string(reason) + ": ");
  if (!right) std::printf("    expected %s, got %s: %s\n", std::string(reason).c_str(), status.ok() ? "OK" : status.code, status.message.c_str());
  return right;
}

// Where the index of a well-formed object is.
inline size_t IndexOffset(const Bytes& object) { return static_cast<size_t>(LoadAs<uint64_t>(&object[object.size() - kTrailerBytes])); }

// CRC and digest of header and index anew: what stands there may be a lie now, but a signed one.
inline void Sign(Bytes* object, const Key* digest_key) {
  Trailer trailer;
  trailer.index_offset = static_cast<int64_t>(IndexOffset(*object));
  const auto index = std::span<const uint8_t>(*object).subspan(IndexOffset(*object), object->size() - kTrailerBytes - IndexOffset(*object));
  const auto header = std::span<const uint8_t>(*object).first(kHeaderBytes);
  trailer.index_bytes = static_cast<int64_t>(index.size());
  trailer.crc32c = Crc32c(index, Crc32c(header));
  Hasher hasher(digest_key);
  hasher.Update(header);
  hasher.Update(index);
  hasher.Finish(trailer.digest);
  const TrailerBytes bytes = EncodeTrailer(trailer);
  std::copy(bytes.begin(), bytes.end(), object->end() - kTrailerBytes);
}

// CRC and digest of every frame that lies in the object anew, then Sign.
inline void SignFrames(Bytes* object, const Key* digest_key) {
  const size_t index = IndexOffset(*object), end = object->size() - kTrailerBytes;
  for (size_t at = index; at + kIndexEntryBytes <= end; at += kIndexEntryBytes) {
    FrameEntry entry;
    const auto size = static_cast<int64_t>(object->size());
    if (!ParseEntry(&(*object)[at], &entry) || entry.offset > size || entry.stored_bytes > size - entry.offset) continue;
    const auto stored = std::span<const uint8_t>(*object).subspan(static_cast<size_t>(entry.offset), static_cast<size_t>(entry.stored_bytes));
    entry.crc32c = Crc32c(stored);
    Hasher hasher(digest_key);
    hasher.Update(stored);
    hasher.Finish(entry.digest);
    EncodeEntry(entry, &(*object)[at]);
  }
  Sign(object, digest_key);
}

}  // namespace rum::test
