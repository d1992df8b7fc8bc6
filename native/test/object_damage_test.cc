// Objects that are not what was written: each is refused, with its reason, and no frame of another content is ever handed out.
#include "checkpoint/object_reader.h"

#include "core/limits.h"
#include "test/check.h"
#include "test/object_fixtures.h"

namespace rum::test {
namespace {

// Small enough to try every byte: three frames with gaps, one of them empty.
ObjectSpec Small(bool encrypted) {
  ObjectSpec spec;
  spec.kind = ObjectKind::kJournal;
  spec.keyed = true, spec.encrypted = encrypted;
  spec.frames = {Noise(13, 1), {}, Noise(70, 2)};
  return spec;
}

// A segment, whose gaps are long, with a compressed frame.
ObjectSpec Segment() {
  ObjectSpec spec;
  spec.keyed = true, spec.codec = Codec::kPlanesZstd;
  spec.frames = {Floats(500, 1), Noise(100, 2)};
  return spec;
}

// The status of reading it, with every digest checked or none; a frame that is handed out is the one that was written.
Status StatusOf(const Bytes& bytes, const ObjectSpec& spec, bool check_digests = true) {
  const ChunkCopies copies(bytes, std::max<size_t>(bytes.size(), 1));
  Expect expect = ExpectOf(spec, static_cast<int64_t>(bytes.size()));
  expect.check_digests = check_digests;
  std::vector<Bytes> frames;
  const Status status = ReadAll(copies.chunks(), expect, SealOf(spec), &frames);
  for (size_t i = 0; i < frames.size(); ++i) CHECK(frames[i] == spec.frames[i]);
  return status;
}

void EveryFlippedByteIsFound() {
  for (const ObjectSpec& spec : {Small(false), Small(true), Segment()}) {
    const Bytes good = BytesOf(*Write(spec));
    CHECK_OK(StatusOf(good, spec));
    for (const bool check_digests : {true, false}) {
      for (size_t at = 0; at < good.size(); ++at) {
        Bytes bad = good;
        bad[at] = static_cast<uint8_t>(bad[at] ^ (1 << (at % 8)));
        const Status status = StatusOf(bad, spec, check_digests);
        // The digit of the magic and the version byte say that it is of another version, which may well be true.
        const bool version = at == 6 || at == 7 || at == 9;
        const bool digest = at >= good.size() - 40 && at < good.size() - 8;
        if (!CHECK(Refused(status, version ? reason::kFormat : digest ? reason::kIdentity : reason::kDamaged))) {
          std::printf("    byte %zu of %zu\n", at, good.size());
          return;
        }
      }
    }
  }
}

void EveryCutIsFound() {
  for (const ObjectSpec& spec : {Small(true), Segment()}) {
    const Bytes good = BytesOf(*Write(spec));
    for (size_t size = 0; size < good.size(); ++size) {
      const Bytes cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
      const ChunkCopies copies(cut, std::max<size_t>(size, 1));
      const auto status_if = [&](size_t bytes) { return ReadAll(copies.chunks(), ExpectOf(spec, static_cast<int64_t>(bytes)), SealOf(spec)); };
      if (!CHECK(Refused(status_if(good.size()), reason::kTruncated))) return;
      // Even where the manifest says so.
      const Status status = status_if(size);
      if (!CHECK(Is(status, kErrCheckpoint))) return;
    }
  }
}

void TrailingBytesAreFound() {
  const ObjectSpec spec = Segment();
  Bytes bytes = BytesOf(*Write(spec));
  const auto size = static_cast<int64_t>(bytes.size());
  bytes.push_back(0);
  const ChunkCopies copies(bytes, bytes.size());
  CHECK(Refused(ReadAll(copies.chunks(), ExpectOf(spec, size), SealOf(spec)), reason::kDamaged));
  CHECK(Refused(ReadAll(copies.chunks(), ExpectOf(spec, size + 1), SealOf(spec)), reason::kDamaged));
  CHECK(Refused(ReadAll(Chunks(), ExpectOf(spec, size), SealOf(spec)), reason::kTruncated));
  CHECK(Refused(ReadAll(Chunks(), ExpectOf(spec, 0), SealOf(spec)), reason::kTruncated));
}

void FramesInEachOthersPlaceAreFound() {
  ObjectSpec spec;
  spec.keyed = true, spec.frames = {Noise(100, 1), Noise(100, 2)};
  const Bytes good = BytesOf(*Write(spec));
  Bytes swapped = good;
  std::swap_ranges(&swapped[4096], &swapped[4096 + 100], &swapped[8192]);
  CHECK(Refused(StatusOf(swapped, spec), reason::kDamaged));
  // With their CRCs and digests put right by somebody without the digest key.
  SignFrames(&swapped, nullptr);
  CHECK(Refused(StatusOf(swapped, spec), reason::kIdentity));
  // By somebody who has it: the index is another then, and the manifest names the object by its digest.
  SignFrames(&swapped, &kDigestKey);
  const Digest digest = (*Write(spec)).digest;
  Expect expect = ExpectOf(spec, static_cast<int64_t>(good.size()));
  expect.digest = &digest;
  const ChunkCopies swapped_copies(swapped, swapped.size()), good_copies(good, good.size());
  CHECK_OK(ReadAll(good_copies.chunks(), expect, SealOf(spec)));
  CHECK(Refused(ReadAll(swapped_copies.chunks(), expect, SealOf(spec)), reason::kDamaged));
  // And the encryption knows which frame is which, and of which object.
  spec.encrypted = true;
  Bytes encrypted = BytesOf(*Write(spec));
  spec.nonce = 9;
  const Bytes other = BytesOf(*Write(spec));
  spec.nonce = 7;
  Bytes foreign = encrypted;
  std::swap_ranges(&encrypted[4096], &encrypted[4096 + 116], &encrypted[8192]);
  SignFrames(&encrypted, &kDigestKey);
  CHECK(Refused(StatusOf(encrypted, spec), reason::kIdentity));
  std::copy(&other[4096], &other[4096 + 116], &foreign[4096]);
  CHECK(Refused(StatusOf(foreign, spec), reason::kDamaged));
  SignFrames(&foreign, &kDigestKey);
  CHECK(Refused(StatusOf(foreign, spec), reason::kIdentity));
}

void WrongKeysTenantsAndLayoutsAreNamed() {
  ObjectSpec spec = Small(true);
  const Bytes bytes = BytesOf(*Write(spec));
  const ChunkCopies copies(bytes, bytes.size());
  const Expect expect = ExpectOf(spec, static_cast<int64_t>(bytes.size()));
  const Key other = KeyOf(50);
  const auto with = [&](auto change) {
    Seal seal = SealOf(spec);
    change(seal);
    return ReadAll(copies.chunks(), expect, seal);
  };
  CHECK(Refused(with([&](Seal& seal) { seal.digest_key = &other; }), reason::kIdentity));
  CHECK(Refused(with([&](Seal& seal) { seal.digest_key = nullptr; }), reason::kIdentity));
  CHECK(Refused(with([&](Seal& seal) { seal.data_key = &other; }), reason::kIdentity));
  CHECK(Refused(with([&](Seal& seal) { seal.context = std::string("acme\0job-2", 10); }), reason::kIdentity));
  CHECK(Refused(with([&](Seal& seal) { seal.context = std::string("acmf\0job-1", 10); }), reason::kIdentity));
  CHECK(Is(with([&](Seal& seal) { seal.data_key = nullptr; }), kErrKey));
  Expect layout = expect;
  (*layout.layout_id)[15] = 0;
  CHECK(Refused(ReadAll(copies.chunks(), layout, SealOf(spec)), reason::kLayout));
  layout.layout_id.reset();
  CHECK_OK(ReadAll(copies.chunks(), layout, SealOf(spec)));
  Expect kind = expect;
  kind.kind = ObjectKind::kTail;
  CHECK(Refused(ReadAll(copies.chunks(), kind, SealOf(spec)), reason::kDamaged));
  // A plain object in the place of an encrypted one is not let in.
  spec.encrypted = false;
  const Bytes plain = BytesOf(*Write(spec));
  spec.encrypted = true;
  CHECK(Refused(StatusOf(plain, spec), reason::kIdentity));
}

// Whoever has no key still finds every accident.
void ASealedObjectIsCheckedWithoutItsKeys() {
  ObjectSpec spec = Small(true);
  Bytes bytes = BytesOf(*Write(spec));
  Expect expect = ExpectOf(spec, static_cast<int64_t>(bytes.size()));
  expect.keyless = true;
  const auto read = [&](const Bytes& object) { return ReadAll(ChunkCopies(object, 1000).chunks(), expect, Seal{}); };
  CHECK_OK(read(bytes));
  for (size_t at = 0; at < bytes.size(); ++at) {
    // The digests in the trailer and the index are what takes the key; the index has a CRC.
    const bool in_digest = at >= bytes.size() - 40 && at < bytes.size() - 8;
    bytes[at] ^= 1;
    if (!in_digest) CHECK(!read(bytes).ok());
    bytes[at] ^= 1;
  }
  spec.encrypted = false;
  const Bytes plain = BytesOf(*Write(spec));
  expect.bytes = static_cast<int64_t>(plain.size());
  CHECK(Refused(read(plain), reason::kIdentity));
}

// `change` gets a good object; it is signed again before it is read.
template <class F>
Status Signed(const ObjectSpec& spec, const F& change) {
  Bytes bytes = BytesOf(*Write(spec));
  change(bytes);
  Sign(&bytes, spec.keyed ? &kDigestKey : nullptr);
  return StatusOf(bytes, spec);
}

void UnknownVersionsKindsFlagsAndCodecsAreOfAnotherFormat() {
  const ObjectSpec spec = Segment();
  const auto set = [&](size_t at, int value) {
    return Signed(spec, [&](Bytes& bytes) { bytes[at] = static_cast<uint8_t>(value); });
  };
  CHECK(Refused(set(6, '2'), reason::kFormat) && Refused(set(9, 2), reason::kFormat) && Refused(set(9, 0), reason::kFormat));
  CHECK(Refused(set(8, 4), reason::kFormat) && Refused(set(8, 0), reason::kFormat));
  CHECK(Refused(set(10, 2), reason::kFormat) && Refused(set(11, 0x80), reason::kFormat));
  for (size_t at = 56; at < 64; ++at) CHECK(Refused(set(at, 1), reason::kFormat));
  CHECK(Refused(Signed(spec, [](Bytes& bytes) { StoreAs<int32_t>(&bytes[24], -3); }), reason::kFormat));
  CHECK(Refused(Signed(spec, [](Bytes& bytes) { StoreAs<uint32_t>(&bytes[IndexOffset(bytes) + 24], 2); }), reason::kFormat));
  CHECK(Refused(Signed(spec, [](Bytes& bytes) { StoreAs<uint32_t>(&bytes[IndexOffset(bytes) + 24], 0x80000000u); }), reason::kFormat));
}

void AbsurdCountsAreRefused() {
  const ObjectSpec spec = Segment();
  for (const uint32_t frames : {0u, 1u, 3u, 0x7FFFFFFFu, 0xFFFFFFFFu}) {
    CHECK(Refused(Signed(spec, [&](Bytes& bytes) { StoreAs(&bytes[12], frames); }), reason::kDamaged));
  }
  constexpr uint64_t kOne = 1;
  for (const uint64_t value : {kOne << 63, ~uint64_t{0}, kOne << 62, kOne << 43, kOne << 35, ~uint64_t{0} - 4095, uint64_t{0}}) {
    for (const size_t field : {size_t{0}, size_t{8}, size_t{16}}) {
      for (const size_t frame : {size_t{0}, size_t{1}}) {
        const size_t at = frame * kIndexEntryBytes + field;
        CHECK(Refused(Signed(spec, [&](Bytes& bytes) { StoreAs(&bytes[IndexOffset(bytes) + at], value); }), reason::kDamaged));
      }
    }
    // The trailer is not signed: its numbers must fit the length.
    for (const size_t field : {size_t{0}, size_t{8}}) {
      Bytes bytes = BytesOf(*Write(spec));
      StoreAs(&bytes[bytes.size() - kTrailerBytes + field], value);
      CHECK(Refused(StatusOf(bytes, spec), reason::kDamaged));
    }
  }
}

void OverlapsHolesAndLyingLengthsAreRefused() {
  const ObjectSpec spec = Segment();
  const auto add = [&](size_t at, int64_t difference) {
    return Signed(spec, [&](Bytes& bytes) {
      uint8_t* const field = &bytes[IndexOffset(bytes) + at];
      StoreAs(field, static_cast<uint64_t>(LoadAs<int64_t>(field) + difference));
    });
  };
  for (const int64_t difference : {-4096, -8, -1, 1, 8, 4096}) {
    CHECK(Refused(add(0, difference), reason::kDamaged));                      // the first frame elsewhere
    CHECK(Refused(add(kIndexEntryBytes, difference), reason::kDamaged));       // the second
    CHECK(Refused(add(8, difference), reason::kDamaged));                      // stored bytes
    CHECK(Refused(add(16, difference), reason::kDamaged));                     // raw bytes of a compressed frame
    CHECK(Refused(add(kIndexEntryBytes + 8, difference), reason::kDamaged));
    CHECK(Refused(add(kIndexEntryBytes + 16, difference), reason::kDamaged));  // and of a raw one
  }
  // A whole alignment of nothing between two frames.
  Bytes hole = BytesOf(*Write(spec));
  hole.insert(hole.begin() + 8192, 4096, 0);
  const auto moved = [&](size_t at) { StoreAs(&hole[at], LoadAs<uint64_t>(&hole[at]) + 4096); };
  moved(hole.size() - kTrailerBytes);
  moved(IndexOffset(hole) + kIndexEntryBytes);
  Sign(&hole, &kDigestKey);
  CHECK(Refused(StatusOf(hole, spec), reason::kDamaged));
}

void GapsHoldNothing() {
  const ObjectSpec spec = Segment();
  const Bytes good = BytesOf(*Write(spec));
  for (const size_t at : {size_t{64}, size_t{4095}, size_t{8191}, IndexOffset(good) - 1}) {
    CHECK(Refused(Signed(spec, [&](Bytes& bytes) { bytes[at] = 1; }), reason::kDamaged));
  }
}

void WhatDoesNotDecodeIsDamaged() {
  const ObjectSpec spec = Segment();
  const auto with = [&](auto change) {
    Bytes bytes = BytesOf(*Write(spec));
    change(bytes);
    SignFrames(&bytes, &kDigestKey);
    return StatusOf(bytes, spec);
  };
  for (const int element_bytes : {0, 3, 5, 8, 255}) {
    CHECK(Refused(with([&](Bytes& bytes) { bytes[4096] = static_cast<uint8_t>(element_bytes); }), reason::kDamaged));
  }
  CHECK(Refused(with([](Bytes& bytes) { bytes[4097] ^= 1; }), reason::kDamaged));   // zstd's magic
  CHECK(Refused(with([](Bytes& bytes) { bytes[4102] ^= 64; }), reason::kDamaged));  // its content size
  CHECK(Refused(with([](Bytes& bytes) { bytes[4105] ^= 255; }), reason::kDamaged));
}

void AllocationFollowsTheBytesThatAreThere() {
  ObjectSpec spec;
  spec.codec = Codec::kPlanesZstd, spec.keyed = true;
  spec.frames = {Bytes(1 << 20, 0)};
  CHECK_OK(Signed(spec, [](Bytes&) {}));
  // As many zeros as zstd could at most mean by so few bytes, and one more.
  const Bytes bytes = BytesOf(*Write(spec));
  const auto stored = LoadAs<int64_t>(&bytes[IndexOffset(bytes) + 8]);
  for (const int64_t raw : {stored / 4 * 131072 + 1, int64_t{1} << 40}) {
    CHECK(Refused(Signed(spec, [&](Bytes& changed) { StoreAs(&changed[IndexOffset(changed) + 16], raw); }), reason::kDamaged));
  }
}

}  // namespace
}  // namespace rum::test

int main() {
  using namespace rum::test;
  return RunAll({
      {"every flipped byte is found: header, frame, gap, index and trailer", EveryFlippedByteIsFound},
      {"an object cut anywhere is found", EveryCutIsFound},
      {"trailing bytes and no bytes are found", TrailingBytesAreFound},
      {"frames in each other's place, or of another object, are found", FramesInEachOthersPlaceAreFound},
      {"a wrong key, tenant, job, kind or layout is named as such", WrongKeysTenantsAndLayoutsAreNamed},
      {"a sealed object is checked for accidents without its keys", ASealedObjectIsCheckedWithoutItsKeys},
      {"unknown versions, kinds, flags and codecs are of another format", UnknownVersionsKindsFlagsAndCodecsAreOfAnotherFormat},
      {"absurd counts are refused, even signed", AbsurdCountsAreRefused},
      {"overlaps, holes and lying lengths are refused, even signed", OverlapsHolesAndLyingLengthsAreRefused},
      {"gaps hold nothing, even signed", GapsHoldNothing},
      {"what does not decode is damaged", WhatDoesNotDecodeIsDamaged},
      {"what is allocated follows from the bytes that are there", AllocationFollowsTheBytesThatAreThere},
  });
}
