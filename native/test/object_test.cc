// Stored objects on the way out and back: every kind, codec and seal, whatever the chunks they arrive in.
#include "checkpoint/object_reader.h"

#include <atomic>
#include <thread>

#include "checkpoint/object_writer.h"
#include "test/check.h"
#include "test/object_fixtures.h"

namespace rum::test {
namespace {

template <class F>
void ForEachSpec(const F& f) {
  for (const ObjectKind kind : {ObjectKind::kSegment, ObjectKind::kTail, ObjectKind::kJournal}) {
    for (const Codec codec : {Codec::kRaw, Codec::kPlanesZstd}) {
      for (const bool keyed : {false, true}) {
        for (const bool encrypted : {false, true}) {
          ObjectSpec spec;
          spec.kind = kind, spec.codec = codec, spec.keyed = keyed, spec.encrypted = encrypted;
          spec.frames = ManyFrames();
          f(spec);
        }
      }
    }
  }
}

void WhatIsWrittenIsRead() {
  ForEachSpec([](const ObjectSpec& spec) {
    const Expected<SavedObject> saved = Write(spec);
    if (!CHECK_OK(saved)) return;
    const Bytes bytes = BytesOf(*saved);
    std::vector<Bytes> frames;
    CHECK_OK(ReadAll(bytes, spec, &frames));
    CHECK(frames == spec.frames);
    const Expected<SavedObject> again = Write(spec, 1 << 20);
    CHECK(again.ok() && BytesOf(*again) == bytes && (*again).digest == (*saved).digest);
  });
}

void TheHeaderComesBack() {
  ObjectSpec spec;
  spec.kind = ObjectKind::kTail, spec.frames = ManyFrames();
  const Bytes bytes = BytesOf(*Write(spec));
  const ChunkCopies copies(bytes, bytes.size());
  Expected<ObjectReader> reader = ObjectReader::Open(copies.chunks(), ExpectOf(spec, static_cast<int64_t>(bytes.size())), {});
  if (!CHECK_OK(reader)) return;
  const ObjectHeader want = HeaderOf(spec);
  const ObjectHeader& got = reader->header();
  CHECK(got.kind == want.kind && got.frames == want.frames && got.epoch == want.epoch && got.chain == want.chain && got.n == want.n);
  CHECK(got.nonce == want.nonce && got.layout_id == want.layout_id);
  CHECK(reader->frames() == 10 && reader->raw_bytes(0) == 5 && reader->raw_bytes(1) == 0 && reader->raw_bytes(9) == 160000);
  CHECK(reader->digest() == (*Write(spec)).digest);
  CHECK(Is(reader->ReadFrame(10, [](auto) { return Status::Ok(); }), kErrInternal));
  CHECK(Is(reader->ReadFrame(-1, [](auto) { return Status::Ok(); }), kErrInternal));
  CHECK(Is(reader->ReadFrame(0, [](auto) { return Error(kErrMemory, "mine"); }), kErrMemory));
}

void ChunksMayEndAnywhere() {
  ForEachSpec([](const ObjectSpec& whole) {
    ObjectSpec spec = whole;
    spec.frames = {Noise(5, 1), {}, Noise(4097, 2), Floats(3000, 3)};
    const Bytes bytes = BytesOf(*Write(spec));
    for (const size_t chunk_bytes : {size_t{1}, size_t{63}, size_t{4095}, size_t{4096}, size_t{4097}, bytes.size() - 1}) {
      const ChunkCopies copies(bytes, chunk_bytes);
      std::vector<Bytes> frames;
      CHECK_OK(ReadAll(copies.chunks(), ExpectOf(spec, static_cast<int64_t>(bytes.size())), SealOf(spec), &frames));
      CHECK(frames == spec.frames);
    }
  });
}

void RawFramesInOneChunkAreNotCopied() {
  ObjectSpec spec;
  spec.frames = {Noise(10000, 1), Noise(20000, 2)};
  const Bytes bytes = BytesOf(*Write(spec));
  const ChunkCopies copies(bytes, bytes.size());
  Expected<ObjectReader> reader = ObjectReader::Open(copies.chunks(), ExpectOf(spec, static_cast<int64_t>(bytes.size())), {});
  if (!CHECK_OK(reader)) return;
  CHECK_OK(reader->ReadFrame(1, [&](std::span<const uint8_t> frame) {
    CHECK(frame.data() == copies.chunks()[0].data() + 4096 + 12288);
    return Status::Ok();
  }));
}

void FramesAreReadByManyThreads() {
  ForEachSpec([](const ObjectSpec& spec) {
    const Bytes bytes = BytesOf(*Write(spec));
    const ChunkCopies copies(bytes, 100'000);
    Expected<ObjectReader> reader = ObjectReader::Open(copies.chunks(), ExpectOf(spec, static_cast<int64_t>(bytes.size())), SealOf(spec));
    if (!CHECK_OK(reader)) return;
    const ParallelFor parallel = [](int64_t items, const std::function<void(int64_t)>& f) {
      std::atomic<int64_t> next{0};
      const auto work = [&] {
        for (int64_t i; (i = next++) < items;) f(i);
      };
      std::thread other(work), third(work);
      work();
      other.join(), third.join();
    };
    std::vector<Bytes> frames(spec.frames.size());
    CHECK_OK(reader->ReadFrames(parallel, [&](int32_t i, FrameStream& frame) {
      // In pieces that end anywhere.
      Bytes& to = frames[static_cast<size_t>(i)];
      to.resize(spec.frames[static_cast<size_t>(i)].size());
      for (size_t at = 0; at < to.size(); at += 70'001) frame.Read(to.data() + at, static_cast<int64_t>(std::min<size_t>(70'001, to.size() - at)));
      CHECK(frame.done());
      uint8_t beyond = 1;
      frame.Read(&beyond, 1);
      CHECK(!frame.ok() && beyond == 0);
      return Status::Ok();
    }));
    CHECK(frames == spec.frames);
    const Status lowest = reader->ReadFrames(parallel, [&](int32_t i, FrameStream&) {
      return i < 2 ? Status::Ok() : Error(kErrInternal, std::to_string(i));
    });
    CHECK(lowest.message == "2");
  });
}

void NumbersOfEveryWidthShrink() {
  for (const int element_bytes : {1, 2, 4}) {
    ObjectSpec spec;
    spec.codec = Codec::kPlanesZstd, spec.element_bytes = element_bytes;
    // 3 bytes more than whole numbers, zeros, and noise that only grows.
    Bytes odd = Floats(5000, 1);
    odd.insert(odd.end(), {1, 2, 3});
    spec.frames = {odd, Bytes(1 << 20, 0), Noise(1000, 2), Noise(1, 3), {}};
    const Bytes bytes = BytesOf(*Write(spec));
    std::vector<Bytes> frames;
    CHECK_OK(ReadAll(bytes, spec, &frames));
    CHECK(frames == spec.frames);
    CHECK(bytes.size() < 40'000);
    const auto codec = [&](size_t frame) {
      FrameEntry entry;
      CHECK(ParseEntry(&bytes[IndexOffset(bytes) + frame * kIndexEntryBytes], &entry));
      return entry.codec;
    };
    CHECK(codec(1) == 1 && codec(2) == 0 && codec(3) == 0 && codec(4) == 0);
    CHECK(element_bytes != 4 || codec(0) == 1);
  }
}

// NaN with its payload, both infinities, both zeros, denormals: as f32 and as bf16.
void NumbersThatAreNoneComeBackBitForBit() {
  Bytes f32, bf16;
  for (const uint32_t bits : {0x7FC00000u, 0x7F800001u, 0xFFFFFFFFu, 0x7FA5A5A5u, 0x7F800000u, 0xFF800000u, 0x80000000u, 0u, 1u, 0x807FFFFFu, 0x3F800000u}) {
    for (int byte = 0; byte < 4; ++byte) f32.push_back(static_cast<uint8_t>(bits >> (8 * byte)));
    for (int byte = 2; byte < 4; ++byte) bf16.push_back(static_cast<uint8_t>(bits >> (8 * byte)));
  }
  ForEachSpec([&](ObjectSpec spec) {
    for (const auto& [element_bytes, numbers] : {std::pair{4, f32}, std::pair{2, bf16}}) {
      // Enough of them that a codec which shrinks floats is used.
      Bytes many;
      for (int i = 0; i < 1000; ++i) many.insert(many.end(), numbers.begin(), numbers.end());
      spec.element_bytes = element_bytes, spec.frames = {many, numbers};
      std::vector<Bytes> frames;
      CHECK_OK(ReadAll(BytesOf(*Write(spec)), spec, &frames));
      CHECK(frames == spec.frames);
    }
  });
}

void TheSameFramesUnderAnotherSealAreOtherBytes() {
  ObjectSpec spec;
  spec.frames = {Noise(1000, 1), Noise(1000, 1)};
  const Expected<SavedObject> plain = Write(spec);
  spec.keyed = true;
  CHECK((*Write(spec)).digest != (*plain).digest);
  spec.encrypted = true;
  const Bytes bytes = BytesOf(*Write(spec));
  // Equal frames are not equal when encrypted, nor are they under another nonce.
  CHECK(!std::equal(&bytes[4096], &bytes[4096 + 1000], &bytes[8192]));
  spec.nonce = 8;
  const Bytes other = BytesOf(*Write(spec));
  CHECK(!std::equal(&bytes[4096], &bytes[4096 + 1000], &other[4096]));
  const std::string secret(spec.frames[0].begin(), spec.frames[0].begin() + 16);
  CHECK(std::string(bytes.begin(), bytes.end()).find(secret) == std::string::npos);
}

void FreshNoncesDiffer() {
  const Expected<ObjectNonce> a = FreshNonce(), b = FreshNonce();
  CHECK(a.ok() && b.ok() && *a != *b);
}

void AWriterUsedWronglyGivesNoObject() {
  const auto code = [](auto use) {
    ObjectSpec spec;
    spec.frames = {{1}, {2}};
    ObjectWriter writer(HeaderOf(spec), {}, Codec::kRaw, 4, 0);
    const Status status = use(writer);
    return status.ok() ? "" : std::string(status.code);
  };
  const auto fill = [](uint8_t* to) { *to = 1; };
  CHECK(code([&](ObjectWriter& w) { return w.Finish().status(); }) == kErrInternal);
  CHECK(code([&](ObjectWriter& w) { return w.AddFrame(-1, fill); }) == kErrInternal);
  CHECK(code([&](ObjectWriter& w) { return w.AddFrame(INT64_MAX, fill); }) == kErrInternal);
  CHECK(code([&](ObjectWriter& w) {
    for (int i = 0; i < 2; ++i) CHECK_OK(w.AddFrame(1, fill));
    return w.AddFrame(1, fill);
  }) == kErrInternal);
  CHECK(code([&](ObjectWriter& w) {
    for (int i = 0; i < 2; ++i) CHECK_OK(w.AddFrame(1, fill));
    CHECK_OK(w.Finish());
    return w.Finish().status();
  }) == kErrInternal);
  ObjectSpec none;
  CHECK(Is(Write(none).status(), kErrInternal));
  ObjectHeader chainless = HeaderOf({});
  chainless.frames = 1, chainless.chain = -3;
  CHECK(Is(ObjectWriter(chainless, {}, Codec::kRaw, 4, 0).AddFrame(1, fill), kErrInternal));
  CHECK(Is(ObjectWriter(HeaderOf({}), {}, Codec::kRaw, 3, 0).AddFrame(1, fill), kErrInternal));
}

}  // namespace
}  // namespace rum::test

int main() {
  using namespace rum::test;
  return RunAll({
      {"what is written is read, and written again it is the same bytes", WhatIsWrittenIsRead},
      {"the header comes back, and a frame that is not there is refused", TheHeaderComesBack},
      {"chunks may end anywhere", ChunksMayEndAnywhere},
      {"a raw frame in one chunk is handed out where it lies", RawFramesInOneChunkAreNotCopied},
      {"frames are read by many threads, and the lowest error is given", FramesAreReadByManyThreads},
      {"numbers of every width come back from their planes, and floats take less room", NumbersOfEveryWidthShrink},
      {"NaN, infinities and denormals come back bit for bit", NumbersThatAreNoneComeBackBitForBit},
      {"the same frames under another key or nonce are other bytes, and no plain byte shows", TheSameFramesUnderAnotherSealAreOtherBytes},
      {"fresh nonces differ", FreshNoncesDiffer},
      {"a writer used wrongly gives no object", AWriterUsedWronglyGivesNoObject},
  });
}
