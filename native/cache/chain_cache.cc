#include "cache/chain_cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/exact_math.h"

namespace rum {
namespace {

// Element i of a K or V array.
float Load(const uint8_t* base, int64_t i, int32_t element_bytes) {
  if (element_bytes == 4) {
    float f;
    std::memcpy(&f, base + 4 * i, 4);
    return f;
  }
  uint16_t h;
  std::memcpy(&h, base + 2 * i, 2);
  return FromBf16(h);
}

// v [count] into elements of a K column (stride = slots of a channel) or of a V row (stride 1).
void Store(const float* v, int32_t count, int32_t element_bytes, uint8_t* to, int64_t stride) {
  if (element_bytes == 4) {
    auto* out = reinterpret_cast<float*>(to);
    for (int32_t d = 0; d < count; ++d) out[d * stride] = v[d];
  } else {
    auto* out = reinterpret_cast<uint16_t*>(to);
    for (int32_t d = 0; d < count; ++d) out[d * stride] = ToBf16(v[d]);
  }
}

template <class T>
void CopyStrided(const uint8_t* from, int64_t from_stride, uint8_t* to, int64_t to_stride, int32_t count) {
  const T* a = reinterpret_cast<const T*>(from);
  T* b = reinterpret_cast<T*>(to);
  for (int32_t i = 0; i < count; ++i) b[i * to_stride] = a[i * from_stride];
}

}  // namespace

ChainCache::ChainCache(const CacheLayout& layout, PagePool* pool, int32_t heads)
    : layout_(layout), pool_(pool), heads_(static_cast<size_t>(heads)) {}

std::unique_ptr<ChainCache> ChainCache::Make(const CacheLayout& layout, PagePool* pool, int32_t heads) {
  std::unique_ptr<ChainCache> cache(new ChainCache(layout, pool, heads));
  if (!cache->rings_.Allocate(heads * layout.ring_bytes)) return nullptr;
  return cache;
}

ChainCache::~ChainCache() {
  std::vector<uint8_t*> pages;
  for (const Head& head : heads_) pages.insert(pages.end(), head.pages.begin(), head.pages.end());
  pool_->Release(pages);
}

std::unique_ptr<ChainCache> ChainCache::Fork() const {
  auto copy = Make(layout_, pool_, heads());
  if (copy == nullptr) return nullptr;
  std::memcpy(copy->rings_.data(), rings_.data(), static_cast<size_t>(rings_.size()));
  for (size_t h = 0; h < heads_.size(); ++h) {
    const Head& from = heads_[h];
    Head& to = copy->heads_[h];
    const auto sealed = static_cast<size_t>(from.log_count / layout_.page_slots);
    to.pages.reserve(from.pages.capacity());
    for (size_t p = 0; p < from.pages.size(); ++p) {
      uint8_t* page = from.pages[p];
      if (p < sealed) {
        pool_->Share(page);
      } else {
        uint8_t* fresh = pool_->Allocate();
        if (fresh == nullptr) return nullptr;
        std::memcpy(fresh, page, static_cast<size_t>(layout_.page_bytes));
        page = fresh;
      }
      to.pages.push_back(page);
    }
    to.log_count = from.log_count;
    to.length = from.length;
    to.dense_prompt = from.dense_prompt;
    to.log_flags = from.log_flags;
  }
  copy->decisions_ = decisions_;
  return copy;
}

ChainCache::Place ChainCache::InPage(const uint8_t* page, int32_t slot) const {
  int32_t position;
  std::memcpy(&position, page + layout_.page_positions_offset + slot * int64_t{4}, 4);
  return {page, layout_.page_k_slots, page + layout_.page_v_offset, slot, position};
}

bool ChainCache::KeepSurvivor(Head& head, const Place& from) {
  const int32_t at = head.log_count % layout_.page_slots;
  if (at == 0) {
    uint8_t* fresh = pool_->Allocate();
    if (fresh == nullptr) return false;
    head.pages.push_back(fresh);
  }
  uint8_t* page = head.pages.back();
  const int64_t e = layout_.element_bytes;
  if (e == 4) {
    CopyStrided<uint32_t>(from.k + from.slot * e, from.k_stride, page + at * e, layout_.page_k_slots, layout_.head_dim);
  } else {
    CopyStrided<uint16_t>(from.k + from.slot * e, from.k_stride, page + at * e, layout_.page_k_slots, layout_.head_dim);
  }
  const int64_t row_bytes = layout_.v_stride * e;
  std::memcpy(page + layout_.page_v_offset + at * row_bytes, from.v + from.slot * row_bytes, static_cast<size_t>(row_bytes));
  std::memcpy(page + layout_.page_positions_offset + at * int64_t{4}, &from.position, 4);
  ++head.log_count;
  return true;
}

bool ChainCache::Append(int32_t index, int32_t position, const float* k, const float* v, const Verdict& verdict) {
  const bool evict = decisions_.Say(index, position, verdict.evict);
  Head& head = heads_[static_cast<size_t>(index)];
  uint8_t* ring = Ring(index);
  uint8_t* flags = ring + layout_.ring_flags_offset;
  const int32_t slots = layout_.ring_slots;
  if (position > 0 && evict && !verdict.of_self) flags[(position - 1) % slots] = 1;
  const int32_t slot = position % slots;
  if (position >= slots && (flags[slot] == 0 || verdict.dense_prompt)) {
    if (!KeepSurvivor(head, {ring, layout_.ring_k_slots, ring + layout_.ring_v_offset, slot, position - slots})) return false;
    if (verdict.dense_prompt) {
      head.log_flags.resize(static_cast<size_t>(head.log_count - 1));
      head.log_flags.push_back(flags[slot]);
    }
  }
  flags[slot] = evict && verdict.of_self ? 1 : 0;
  const int32_t e = layout_.element_bytes;
  Store(k, layout_.head_dim, e, ring + slot * e, layout_.ring_k_slots);
  Store(v, layout_.head_dim, e, ring + layout_.ring_v_offset + slot * int64_t{layout_.v_stride} * e, 1);
  head.length = position + 1;
  head.dense_prompt = verdict.dense_prompt;
  return true;
}

// Pages before the first token that goes stay as they are, the others are written anew: a fork may hold them too.
bool ChainCache::EndPrompt(int32_t index, bool keep_window) {
  Head& head = heads_[static_cast<size_t>(index)];
  head.dense_prompt = false;
  if (keep_window) {
    uint8_t* flags = Ring(index) + layout_.ring_flags_offset;
    const int32_t slots = layout_.ring_slots;
    for (int32_t position = std::max(0, head.length - slots + 1); position < head.length; ++position) flags[position % slots] = 0;
  }
  const std::vector<uint8_t> gone = std::exchange(head.log_flags, {});
  const auto first = static_cast<size_t>(std::find(gone.begin(), gone.end(), 1) - gone.begin());
  if (first == gone.size()) return true;
  const auto page_slots = static_cast<size_t>(layout_.page_slots);
  size_t at = first / page_slots * page_slots;
  const std::vector<uint8_t*> old(head.pages.begin() + static_cast<std::ptrdiff_t>(at / page_slots), head.pages.end());
  head.pages.resize(at / page_slots);
  head.log_count = static_cast<int32_t>(at);
  bool enough = true;
  for (uint8_t* page : old) {
    for (int32_t slot = 0; slot < layout_.page_slots && at < gone.size(); ++slot, ++at) {
      if (gone[at] == 0) enough = enough && KeepSurvivor(head, InPage(page, slot));
    }
    pool_->Release(page);
  }
  return enough;
}

void ChainCache::AttachPage(int32_t index, uint8_t* page) {
  Head& head = heads_[static_cast<size_t>(index)];
  pool_->Share(page);
  head.pages.push_back(page);
  head.log_count += layout_.page_slots;
}

void ChainCache::DetachPages(int32_t index, int32_t pages) {
  Head& head = heads_[static_cast<size_t>(index)];
  const auto kept = std::min(head.pages.size(), static_cast<size_t>(pages));
  const std::span<uint8_t* const> gone = std::span<uint8_t* const>(head.pages).subspan(kept);
  head.log_count -= static_cast<int32_t>(gone.size()) * layout_.page_slots;
  pool_->Release(gone);
  head.pages.resize(kept);
}

uint8_t* ChainCache::AttachOpenPage(int32_t index, int32_t slots) {
  if (slots == 0) return nullptr;
  Head& head = heads_[static_cast<size_t>(index)];
  uint8_t* page = pool_->Allocate();
  if (page == nullptr) return nullptr;
  head.pages.push_back(page);
  head.log_count += slots;
  return page;
}

uint8_t* ChainCache::RestoreRing(int32_t index, int32_t length) {
  heads_[static_cast<size_t>(index)].length = length;
  return Ring(index);
}

HeadView ChainCache::View(int32_t index) const {
  const Head& head = heads_[static_cast<size_t>(index)];
  HeadView view;
  view.pages = head.pages.data();
  view.log_count = head.log_count;
  view.ring = Ring(index);
  view.ring_live = std::min(head.length, layout_.ring_slots);
  view.ring_oldest = head.length <= layout_.ring_slots ? 0 : head.length % layout_.ring_slots;
  return view;
}

int32_t ChainCache::Live(int32_t index) const {
  const Head& head = heads_[static_cast<size_t>(index)];
  return head.log_count + std::min(head.length, layout_.ring_slots);
}

int32_t ChainCache::NextLive(int32_t index) const {
  const Head& head = heads_[static_cast<size_t>(index)];
  const bool leaves = head.length >= layout_.ring_slots;
  const bool flagged = leaves && !head.dense_prompt && Ring(index)[layout_.ring_flags_offset + head.length % layout_.ring_slots] != 0;
  return Live(index) + (flagged ? 0 : 1);
}

int32_t ChainCache::SharedSurvivors(int32_t index) const {
  const Head& head = heads_[static_cast<size_t>(index)];
  int32_t shared = 0;
  for (int32_t p = 0; p < head.log_count / layout_.page_slots; ++p) {
    if (pool_->References(head.pages[static_cast<size_t>(p)]) > 1) shared += layout_.page_slots;
  }
  return shared;
}

HeadSnapshot ChainCache::Snapshot(int32_t index) const {
  const Head& head = heads_[static_cast<size_t>(index)];
  const HeadView view = View(index);
  const int32_t e = layout_.element_bytes;
  HeadSnapshot out;
  const auto add = [&](const Place& from) {
    out.positions.push_back(from.position);
    for (int32_t d = 0; d < layout_.head_dim; ++d) {
      out.k.push_back(Load(from.k, int64_t{d} * from.k_stride + from.slot, e));
      out.v.push_back(Load(from.v, from.slot * int64_t{layout_.v_stride} + d, e));
    }
  };
  for (int32_t i = 0; i < view.log_count; ++i) add(InPage(view.pages[i / layout_.page_slots], i % layout_.page_slots));
  for (int32_t i = 0; i < view.ring_live; ++i) {
    const int32_t slot = (view.ring_oldest + i) % layout_.ring_slots;
    add({view.ring, layout_.ring_k_slots, view.ring + layout_.ring_v_offset, slot, head.length - view.ring_live + i});
  }
  return out;
}

}  // namespace rum
