#include "checkpoint/segment.h"

#include <algorithm>

#include "checkpoint/bytes.h"
#include "checkpoint/prepared_memory.h"

namespace rum {

std::vector<int32_t> PositionsOf(const CacheLayout& l, const uint8_t* page) {
  std::vector<int32_t> positions(static_cast<size_t>(l.page_slots));
  std::memcpy(positions.data(), page + l.page_positions_offset, positions.size() * 4);
  return positions;
}

int64_t StoredPageBytes(const CacheLayout& l) {
  return int64_t{2} * l.page_slots * l.head_dim * l.element_bytes + int64_t{4} * l.page_slots;
}

namespace {

void StorePage(const CacheLayout& l, const uint8_t* page, uint8_t* to) {
  const int64_t e = l.element_bytes, k_row = l.page_slots * e, v_row = l.head_dim * e;
  CopyRows(page, l.page_k_slots * e, to, k_row, k_row, l.head_dim);
  to += k_row * l.head_dim;
  CopyRows(page + l.page_v_offset, l.v_stride * e, to, v_row, v_row, l.page_slots);
  std::memcpy(to + v_row * l.page_slots, page + l.page_positions_offset, static_cast<size_t>(l.page_slots) * 4);
}

void FetchPage(const CacheLayout& l, FrameStream* from, uint8_t* page) {
  const int64_t e = l.element_bytes, k_row = l.page_slots * e, v_row = l.head_dim * e;
  from->ReadRows(page, l.page_k_slots * e, k_row, l.head_dim);
  from->ReadRows(page + l.page_v_offset, l.v_stride * e, v_row, l.page_slots);
  from->Read(page + l.page_positions_offset, int64_t{4} * l.page_slots);
}

// One layer of a segment into its pages, which are of all heads in order.
Status LoadLayer(FrameStream& frame, const CacheGeometry& geometry, int32_t layer, std::span<uint8_t* const> pages, PageSet* set) {
  const Status damaged = CheckpointError(reason::kDamaged, "layer " + std::to_string(layer) + " of a segment holds other pages than it says");
  const std::span<PageSet::Head> heads = std::span(set->heads()).subspan(static_cast<size_t>(layer * geometry.kv_heads), static_cast<size_t>(geometry.kv_heads));
  for (PageSet::Head& head : heads) {
    head.first = frame.Get<int32_t>();
    const auto count = frame.Get<int32_t>();
    if (head.first < 0 || count < 0 || head.first > INT32_MAX - count || static_cast<size_t>(count) > pages.size()) return damaged;
    head.pages = pages.first(static_cast<size_t>(count));
    pages = pages.subspan(static_cast<size_t>(count));
  }
  if (!pages.empty()) return damaged;
  for (const PageSet::Head& head : heads) {
    int32_t last = -1;
    for (uint8_t* page : head.pages) {
      FetchPage(geometry.layout, &frame, page);
      const std::vector<int32_t> positions = PositionsOf(geometry.layout, page);
      if (!Ascending(positions, last, INT32_MAX)) return damaged;
      last = positions.back();
    }
  }
  return frame.done() ? Status::Ok() : damaged;
}

}  // namespace

PageMarks SealedPages(const ChainCache& cache) {
  PageMarks marks;
  for (int32_t h = 0; h < cache.heads(); ++h) marks.push_back(cache.LogCount(h) / cache.layout().page_slots);
  return marks;
}

Expected<SavedObject> SaveSegment(const ChainCache& cache, const PageMarks& from, const PageMarks& to, int32_t kv_heads, ObjectHeader header,
                                  const Seal& seal, Codec codec) {
  const CacheLayout& layout = cache.layout();
  const int64_t page_bytes = StoredPageBytes(layout);
  const int32_t layers = cache.heads() / kv_heads;
  header.kind = ObjectKind::kSegment;
  header.frames = static_cast<uint32_t>(layers);
  int64_t total = 0;
  for (size_t h = 0; h < from.size(); ++h) total += (to[h] - from[h]) * page_bytes;
  ObjectWriter writer(header, seal, codec, layout.element_bytes, total + int64_t{8192} * layers);
  for (int32_t layer = 0; layer < layers; ++layer) {
    const auto first = static_cast<size_t>(layer * kv_heads);
    int64_t bytes = int64_t{8} * kv_heads;
    for (size_t h = first; h < first + static_cast<size_t>(kv_heads); ++h) bytes += (to[h] - from[h]) * page_bytes;
    const Status status = writer.AddFrame(bytes, [&](uint8_t* out) {
      for (size_t h = first; h < first + static_cast<size_t>(kv_heads); ++h, out += 8) {
        StoreAs<int32_t>(out, from[h]);
        StoreAs<int32_t>(out + 4, to[h] - from[h]);
      }
      for (size_t h = first; h < first + static_cast<size_t>(kv_heads); ++h) {
        for (int32_t p = from[h]; p < to[h]; ++p, out += page_bytes) StorePage(layout, cache.Page(static_cast<int32_t>(h), p), out);
      }
    });
    if (!status.ok()) return status;
  }
  return writer.Finish();
}

bool PageSet::Allocate(size_t pages) {
  std::vector<uint8_t*> held(pages);
  if (!pool_->Allocate(held)) return false;
  pages_ = std::move(held);
  return true;
}

Expected<PageSet> LoadSegment(const ObjectReader& reader, const CacheGeometry& geometry, PagePool* pool, const ParallelFor& parallel,
                              PreparedMemory* prepared) {
  if (reader.frames() != geometry.layers) return CheckpointError(reason::kLayout, "a segment has another number of layers than the model");
  const int64_t page_bytes = StoredPageBytes(geometry.layout), counts_bytes = int64_t{8} * geometry.kv_heads;
  std::vector<size_t> firsts = {0};  // of each layer's pages
  for (int32_t layer = 0; layer < geometry.layers; ++layer) {
    const int64_t bytes = reader.raw_bytes(layer) - counts_bytes;
    if (bytes < 0 || bytes % page_bytes != 0) return CheckpointError(reason::kDamaged, "layer " + std::to_string(layer) + " of a segment is of no number of pages");
    firsts.push_back(firsts.back() + static_cast<size_t>(bytes / page_bytes));
  }
  PageSet set(pool, geometry.heads());
  std::vector<uint8_t*> there;
  if (prepared != nullptr) there = prepared->TakePages(firsts.back());
  if (there.size() == firsts.back()) {
    set.Take(std::move(there));
  } else if (!set.Allocate(firsts.back())) {
    return Error(kErrMemory, "The system has no memory for the pages of a checkpoint.");
  }
  const Status status = reader.ReadFrames(parallel, [&](int32_t layer, FrameStream& frame) {
    const auto l = static_cast<size_t>(layer);
    return LoadLayer(frame, geometry, layer, set.pages().subspan(firsts[l], firsts[l + 1] - firsts[l]), &set);
  });
  if (!status.ok()) return status;
  return set;
}

Status AttachPages(const PageSet& set, const PageMarks& pages, ChainCache* cache) {
  const CacheLayout& layout = cache->layout();
  for (int32_t h = 0; h < cache->heads(); ++h) {
    const PageSet::Head& head = set.heads()[static_cast<size_t>(h)];
    const int32_t wanted = pages[static_cast<size_t>(h)];
    if (head.first >= wanted || head.pages.empty()) continue;
    cache->DetachPages(h, head.first);
    const int32_t held = cache->LogCount(h) / layout.page_slots;
    if (head.first != held) return CheckpointError(reason::kDamaged, "the segments of a chain do not follow on each other");
    const int32_t last = held == 0 ? -1 : PositionsOf(layout, cache->Page(h, held - 1)).back();
    if (PositionsOf(layout, head.pages[0])[0] <= last) return CheckpointError(reason::kDamaged, "the segments of a chain overlap");
    const size_t count = std::min(head.pages.size(), static_cast<size_t>(wanted - held));
    for (size_t p = 0; p < count; ++p) cache->AttachPage(h, head.pages[p]);
  }
  return Status::Ok();
}

}  // namespace rum
