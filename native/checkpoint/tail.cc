#include "checkpoint/tail.h"

#include <algorithm>
#include <cmath>

#include "checkpoint/bytes.h"
#include "checkpoint/digest.h"
#include "core/limits.h"

namespace rum {
namespace {

Status Damaged(const std::string& what) { return CheckpointError(reason::kDamaged, "a tail " + what); }

// What one head of a tail holds, sizes in tokens.
struct HeadSizes {
  int32_t log_count, ring, open;
  HeadSizes(const CacheLayout& l, int32_t log, int32_t length) : log_count(log), ring(std::min(length, l.ring_slots)), open(log % l.page_slots) {}
  int64_t bytes(const CacheLayout& l) const {
    const int64_t token = int64_t{2} * l.head_dim * l.element_bytes;
    return 8 + ring + ring * token + open * (token + 4);
  }
};

void StoreHead(const ChainCache& cache, int32_t head, uint8_t* out) {
  const CacheLayout& l = cache.layout();
  const HeadSizes n(l, cache.LogCount(head), cache.length());
  const int64_t e = l.element_bytes, row = l.head_dim * e;
  StoreAs<int32_t>(out, n.log_count);
  StoreAs<int32_t>(out + 4, cache.length());
  out += 8;
  const uint8_t* ring = cache.RingOf(head);
  std::memcpy(out, ring + l.ring_flags_offset, static_cast<size_t>(n.ring));
  out += n.ring;
  CopyRows(ring, l.ring_k_slots * e, out, n.ring * e, n.ring * e, l.head_dim);
  out += n.ring * row;
  CopyRows(ring + l.ring_v_offset, l.v_stride * e, out, row, row, n.ring);
  out += n.ring * row;
  if (n.open == 0) return;
  const uint8_t* page = cache.Page(head, n.log_count / l.page_slots);
  CopyRows(page, l.page_k_slots * e, out, n.open * e, n.open * e, l.head_dim);
  out += n.open * row;
  CopyRows(page + l.page_v_offset, l.v_stride * e, out, row, row, n.open);
  std::memcpy(out + n.open * row, page + l.page_positions_offset, static_cast<size_t>(n.open) * 4);
}

int32_t LastPosition(const ChainCache& cache, int32_t head) {
  const CacheLayout& l = cache.layout();
  const int32_t pages = cache.LogCount(head) / l.page_slots;
  return pages == 0 ? -1 : LoadAs<int32_t>(cache.Page(head, pages - 1) + l.page_positions_offset + int64_t{4} * (l.page_slots - 1));
}

Status LoadHead(FrameStream* in, int32_t head, int32_t length, ChainCache* cache) {
  const CacheLayout& l = cache->layout();
  const int32_t log_count = in->Get<int32_t>();
  if (in->Get<int32_t>() != length || log_count < 0 || log_count > length) return Damaged("holds impossible counts");
  const HeadSizes n(l, log_count, length);
  if (cache->LogCount(head) != log_count - n.open) return Damaged("needs other pages than its segments hold");
  const int64_t e = l.element_bytes, row = l.head_dim * e;
  uint8_t* ring = cache->RestoreRing(head, length);
  in->Read(ring + l.ring_flags_offset, n.ring);
  in->ReadRows(ring, l.ring_k_slots * e, n.ring * e, l.head_dim);
  in->ReadRows(ring + l.ring_v_offset, l.v_stride * e, row, n.ring);
  if (std::ranges::any_of(std::span(ring + l.ring_flags_offset, static_cast<size_t>(n.ring)), [](uint8_t flag) { return flag > 1; })) {
    return Damaged("holds an impossible flag");
  }
  // Whoever is in the log has left the ring.
  const int32_t ring_first = length - n.ring, last = LastPosition(*cache, head);
  std::vector<int32_t> positions(static_cast<size_t>(n.open));
  if (n.open > 0) {
    uint8_t* page = cache->AttachOpenPage(head, n.open);
    if (page == nullptr) return Error(kErrMemory, "The system has no memory for the pages of a checkpoint.");
    in->ReadRows(page, l.page_k_slots * e, n.open * e, l.head_dim);
    in->ReadRows(page + l.page_v_offset, l.v_stride * e, row, n.open);
    in->Read(page + l.page_positions_offset, int64_t{4} * n.open);
    std::memcpy(positions.data(), page + l.page_positions_offset, positions.size() * 4);
  }
  if (!in->ok()) return CheckpointError(reason::kTruncated, "a tail ends within a head");
  return last < ring_first && Ascending(positions, last, ring_first) ? Status::Ok() : Damaged("holds positions out of order");
}

Status CheckFrames(const ObjectReader& reader, const CacheGeometry& geometry) {
  if (reader.frames() == geometry.layers + 1) return Status::Ok();
  return CheckpointError(reason::kLayout, "a tail has another number of layers than the model");
}

}  // namespace

TokensDigest DigestOfTokens(std::span<const int32_t> prompt, std::span<const int32_t> generated) {
  Hasher hasher(nullptr);
  for (const std::span<const int32_t> tokens : {prompt, generated}) {
    const auto count = static_cast<int64_t>(tokens.size());
    hasher.Update({reinterpret_cast<const uint8_t*>(&count), sizeof count});
    hasher.Update({reinterpret_cast<const uint8_t*>(tokens.data()), tokens.size_bytes()});
  }
  TokensDigest digest;
  hasher.Finish(digest);
  return digest;
}

void PutCounters(const ChainReport& r, ByteWriter* out) {
  out->Put(static_cast<int32_t>(r.finish));
  out->Put(r.stop_bytes);
  out->Put(r.fed);
  out->Put(int32_t{0});  // keeps the sums aligned
  for (const int64_t sum : {r.live_sum, r.peak_sum, r.decode_peak_sum, r.read_sum, r.dense_read_sum}) out->Put(sum);
}

bool GetCounters(ByteReader* in, ChainReport* r) {
  const auto finish = in->Get<int32_t>();
  r->finish = static_cast<Finish>(finish);
  r->stop_bytes = in->Get<int32_t>();
  r->fed = in->Get<int32_t>();
  const auto zero = in->Get<int32_t>();
  bool possible = finish >= 0 && finish <= static_cast<int32_t>(Finish::kEnded) && r->stop_bytes >= -1 && r->fed >= 0 &&
                  r->fed <= kPositionsMax && zero == 0;
  for (int64_t* sum : {&r->live_sum, &r->peak_sum, &r->decode_peak_sum, &r->read_sum, &r->dense_read_sum}) {
    *sum = in->Get<int64_t>();
    possible = possible && *sum >= 0 && *sum <= kCounterMax;
  }
  // Text ends at a stop string only where one finished the chain.
  possible = possible && (r->stop_bytes == -1 || r->finish == Finish::kStop) && r->live_sum <= r->decode_peak_sum;
  return in->ok() && possible;
}

Expected<SavedObject> SaveTail(const ChainCache& cache, const TailState& state, int32_t kv_heads, ObjectHeader header, const Seal& seal, Codec codec) {
  const CacheLayout& layout = cache.layout();
  const int32_t layers = cache.heads() / kv_heads;
  header.kind = ObjectKind::kTail;
  header.frames = static_cast<uint32_t>(layers + 1);
  std::vector<int64_t> bytes(static_cast<size_t>(layers));
  int64_t total = 0;
  for (int32_t h = 0; h < cache.heads(); ++h) {
    const int64_t head = HeadSizes(layout, cache.LogCount(h), cache.length()).bytes(layout);
    bytes[static_cast<size_t>(h / kv_heads)] += head;
    total += head;
  }
  ByteWriter first;
  first.Put(state.generated);
  first.Put(static_cast<int32_t>(state.logits.size()));
  PutCounters(state.report, &first);
  first.Bytes(state.tokens);
  for (const int32_t pages : SealedPages(cache)) first.Put(pages);
  first.Array(std::span<const float>(state.logits));
  ObjectWriter writer(header, seal, codec, layout.element_bytes, total + int64_t{8192} * (layers + 2) + static_cast<int64_t>(first.bytes().size()));
  Status status = writer.AddFrame(static_cast<int64_t>(first.bytes().size()), [&](uint8_t* out) { std::ranges::copy(first.bytes(), out); });
  for (int32_t layer = 0; layer < layers && status.ok(); ++layer) {
    status = writer.AddFrame(bytes[static_cast<size_t>(layer)], [&](uint8_t* out) {
      for (int32_t h = layer * kv_heads; h < (layer + 1) * kv_heads; ++h) {
        StoreHead(cache, h, out);
        out += HeadSizes(layout, cache.LogCount(h), cache.length()).bytes(layout);
      }
    });
  }
  if (!status.ok()) return status;
  return writer.Finish();
}

Expected<TailState> LoadTailState(const ObjectReader& reader, const CacheGeometry& geometry, int32_t vocab) {
  TailState state;
  if (Status status = CheckFrames(reader, geometry); !status.ok()) return status;
  const Status status = reader.ReadFrame(0, [&](std::span<const uint8_t> frame) {
    ByteReader in(frame);
    state.generated = in.Get<int32_t>();
    const auto logits = in.Get<int32_t>();
    if (!GetCounters(&in, &state.report) || state.generated < 0 || (logits != 0 && logits != vocab)) return Damaged("holds impossible counters");
    const std::span<const uint8_t> tokens = in.Bytes(static_cast<int64_t>(state.tokens.size()));
    std::ranges::copy(tokens, state.tokens.begin());
    for (int32_t h = 0; h < geometry.heads(); ++h) {
      const auto pages = in.Get<int32_t>();
      if (pages < 0 || pages > state.report.fed / geometry.layout.page_slots) return Damaged("holds impossible counts");
      state.pages.push_back(pages);
    }
    state.logits = in.Array<float>(logits);
    if (!in.done()) return Damaged("holds another number of logits than it says");
    // The sampler takes every number for one.
    const bool finite = std::ranges::all_of(state.logits, [](float logit) { return std::isfinite(logit); });
    return finite ? Status::Ok() : Damaged("holds logits that are no numbers");
  });
  if (!status.ok()) return status;
  return state;
}

Status LoadTail(const ObjectReader& reader, const CacheGeometry& geometry, int32_t length, const ParallelFor& parallel, ChainCache* cache) {
  return reader.ReadFrames(parallel, [&](int32_t frame, FrameStream& in) {
    if (frame == 0) return Status::Ok();
    for (int32_t j = 0; j < geometry.kv_heads; ++j) {
      if (Status status = LoadHead(&in, (frame - 1) * geometry.kv_heads + j, length, cache); !status.ok()) return status;
    }
    return in.done() ? Status::Ok() : Damaged("has bytes after its last head");
  });
}

}  // namespace rum
