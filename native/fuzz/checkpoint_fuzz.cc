// Any contents of segments, tails and journals: the envelope is written around the bytes, so that what lies behind CRCs and digests is
// reached. Byte 0 says which kind (bits 0, 1) and how many frames (bits 2 to 4); frames are as long as two bytes before each say.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "cache/chain_cache.h"
#include "checkpoint/journal.h"
#include "checkpoint/segment.h"
#include "checkpoint/tail.h"
#include "core/little_endian.h"

namespace {

using namespace rum;

constexpr int32_t kVocab = 5;

// Two layers of two heads, 3 channels in bf16, pages of 2, a ring of 3.
CacheGeometry Geometry() { return {2, 2, CacheLayout::Make(3, 2, 2, 2)}; }

void Serial(int64_t items, const std::function<void(int64_t)>& f) {
  for (int64_t i = 0; i < items; ++i) f(i);
}

void CheckCode(const Status& status) {
  const std::string_view code = status.ok() ? kErrCheckpoint : status.code;
  if (code != kErrCheckpoint && code != kErrMemory) std::abort();
}

std::vector<std::span<const uint8_t>> Split(std::span<const uint8_t> bytes, size_t count) {
  std::vector<std::span<const uint8_t>> frames;
  for (size_t f = 0; f < count; ++f) {
    const size_t length = bytes.size() < 2 ? 0 : std::min<size_t>(LoadAs<uint16_t>(bytes.data()), bytes.size() - 2);
    bytes = bytes.subspan(std::min<size_t>(2, bytes.size()));
    frames.push_back(bytes.first(length));
    bytes = bytes.subspan(length);
  }
  return frames;
}

void AsSegment(const ObjectReader& reader, const CacheGeometry& geometry) {
  PagePool pool(geometry.layout.page_bytes);
  {
    auto set = LoadSegment(reader, geometry, &pool, Serial);
    CheckCode(set.status());
    if (!set.ok()) return;
    auto cache = ChainCache::Make(geometry.layout, &pool, geometry.heads());
    for (int32_t wanted = 0; wanted < 3; ++wanted) CheckCode(AttachPages(*set, PageMarks(4, wanted), cache.get()));
    (void)cache->Snapshot(0);
  }
  if (pool.allocated_bytes() != 0) std::abort();
}

void AsTail(const ObjectReader& reader, const CacheGeometry& geometry) {
  PagePool pool(geometry.layout.page_bytes);
  {
    auto state = LoadTailState(reader, geometry, kVocab);
    CheckCode(state.status());
    if (!state.ok()) return;
    auto cache = ChainCache::Make(geometry.layout, &pool, geometry.heads());
    const Status status = LoadTail(reader, geometry, state->report.fed, Serial, cache.get());
    CheckCode(status);
    for (int32_t h = 0; h < cache->heads() && status.ok(); ++h) (void)cache->Snapshot(h);
  }
  if (pool.allocated_bytes() != 0) std::abort();
}

// What is read twice follows on itself only if it says nothing; what is written again is what was read.
void AsJournal(const ObjectReader& reader) {
  auto journal = LoadJournal(reader, kVocab);
  CheckCode(journal.status());
  if (!journal.ok()) return;
  Journal all;
  const Status first = Fold(*journal, &all);
  CheckCode(first);
  CheckCode(Fold(*journal, &all));
  const auto again = SaveJournal(*journal, reader.header(), Seal{}, Codec::kRaw);
  if (!again.ok()) std::abort();
  for (const auto& [index, chain] : all.chains) {
    if (first.ok()) (void)Slice(chain.decisions, chain.decisions.first, chain.decisions.end, all.job.decision_heads);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const auto kind = static_cast<ObjectKind>(1 + data[0] % 4 % 3);
  const CacheGeometry geometry = Geometry();
  // Frames that a segment and a tail must have, to get beyond their count.
  const size_t count = kind == ObjectKind::kSegment ? 2 : kind == ObjectKind::kTail ? 3 : 1 + (data[0] >> 2 & 7);
  ObjectHeader header;
  header.kind = kind;
  header.frames = static_cast<uint32_t>(count);
  header.layout_id = LayoutIdOf(geometry);
  ObjectWriter writer(header, Seal{}, Codec::kRaw, 2, 0);
  for (const std::span<const uint8_t> frame : Split({data + 1, size - 1}, count)) {
    if (!writer.AddFrame(static_cast<int64_t>(frame.size()), [&](uint8_t* to) { std::copy(frame.begin(), frame.end(), to); }).ok()) std::abort();
  }
  Expected<SavedObject> object = writer.Finish();
  if (!object.ok()) std::abort();
  const std::span<const uint8_t> chunk(object->bytes.data(), static_cast<size_t>(object->size));
  const Expect expect{kind, header.layout_id, object->size, &object->digest, true};
  auto reader = ObjectReader::Open({&chunk, 1}, expect, Seal{});
  if (!reader.ok()) std::abort();
  if (kind == ObjectKind::kSegment) AsSegment(*reader, geometry);
  if (kind == ObjectKind::kTail) AsTail(*reader, geometry);
  if (kind == ObjectKind::kJournal) AsJournal(*reader);
  return 0;
}
