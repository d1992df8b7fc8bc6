// Any bytes as a stored object. The first byte says how: bit 0: CRCs and digests are made right first, so that what lies behind them is
// reached; bit 1: without checking digests; bit 2: with a data key; bits 3, 4: the kind asked for; bits 5 to 7: the size of chunks.
#include <cstdint>
#include <cstdlib>

#include "test/object_fixtures.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace rum;
  if (size < 1) return 0;
  const uint8_t how = data[0];
  test::Bytes object(data + 1, data + size);
  constexpr size_t kFixedBytes = kHeaderBytes + kTrailerBytes;
  if ((how & 1) != 0 && object.size() >= kFixedBytes && test::IndexOffset(object) <= object.size() - kTrailerBytes) {
    test::SignFrames(&object, &test::kDigestKey);
  }
  test::ObjectSpec spec;
  spec.keyed = true, spec.encrypted = (how & 4) != 0;
  spec.kind = static_cast<ObjectKind>(1 + (how >> 3 & 3) % 3);
  Expect expect = test::ExpectOf(spec, static_cast<int64_t>(object.size()));
  expect.check_digests = (how & 2) == 0;
  constexpr size_t kChunkBytes[] = {1 << 20, 1, 7, 64, 100, 4095, 4096, 4097};
  const test::ChunkCopies copies(object, kChunkBytes[how >> 5]);
  std::vector<test::Bytes> frames;
  const Status status = test::ReadAll(copies.chunks(), expect, test::SealOf(spec), &frames);
  if (!status.ok() && !test::Is(status, kErrCheckpoint) && !test::Is(status, kErrKey) && !test::Is(status, kErrMemory)) std::abort();
  // What passes has the form that the writer gives it: raw frames written again are the same object.
  if (status.ok() && (how & 1) != 0 && spec.kind == ObjectKind::kJournal && !spec.encrypted) {
    Expected<ObjectReader> reader = ObjectReader::Open(copies.chunks(), expect, test::SealOf(spec));
    ObjectWriter writer(reader->header(), test::SealOf(spec), Codec::kRaw, 1, 0);
    for (const test::Bytes& frame : frames) {
      if (!writer.AddFrame(static_cast<int64_t>(frame.size()), [&](uint8_t* to) { std::copy(frame.begin(), frame.end(), to); }).ok()) std::abort();
    }
    const Expected<SavedObject> again = writer.Finish();
    if (!again.ok()) std::abort();
    bool raw = true;
    for (size_t at = test::IndexOffset(object); at + kIndexEntryBytes <= object.size() - kTrailerBytes; at += kIndexEntryBytes) {
      raw = raw && LoadAs<uint32_t>(&object[at + 24]) == 0;
    }
    if (raw && test::BytesOf(*again) != object) std::abort();
  }
  return 0;
}
