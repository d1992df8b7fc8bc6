// The KV cache of one chain: a ring and a survivor log per (layer, KV head). A token leaves the ring into the log or for good,
// and a sealed page never changes (DESIGN.md 1, METHOD.md 1.3-1.5).
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "cache/decision_log.h"
#include "cache/layout.h"
#include "cache/page_pool.h"
#include "core/mapped_buffer.h"

namespace rum {

// What a policy says when a token arrives.
struct Verdict {
  bool evict = false;         // a token goes once it leaves the ring: the one before it, or
  bool of_self = false;       // the token itself
  bool dense_prompt = false;  // whoever leaves the ring stays for now: EndPrompt decides
};

// Heads are independent: different threads may work on different heads of one chain at a time.
class ChainCache {
 public:
  // heads = layers * KV heads; head = layer * kv_heads + kv_head. nullptr when memory cannot be had.
  static std::unique_ptr<ChainCache> Make(const CacheLayout& layout, PagePool* pool, int32_t heads);
  // Shares sealed pages, copies the ring and the open page: the fate of the last token is still open and may differ per chain.
  std::unique_ptr<ChainCache> Fork() const;
  ~ChainCache();

  // Token `position` of this head arrives: the one that leaves the ring goes to the log unless flagged, then k and v
  // [head_dim] take its slot. False: no memory for a page.
  bool Append(int32_t head, int32_t position, const float* k, const float* v, const Verdict& verdict);
  // After a dense prompt: flagged tokens of the log go for good and their memory goes back. keep_window: of the last `window`
  // tokens none will ever go. False: no memory for a page.
  bool EndPrompt(int32_t head, bool keep_window);

  HeadView View(int32_t head) const;
  int32_t Live(int32_t head) const;
  // Live length once one more token has been appended: known before it is, as its fate was decided a window ago.
  int32_t NextLive(int32_t head) const;
  int32_t SharedSurvivors(int32_t head) const;  // in sealed pages that another chain holds too
  HeadSnapshot Snapshot(int32_t head) const;
  int32_t heads() const { return static_cast<int32_t>(heads_.size()); }
  int64_t ring_bytes() const { return rings_.size(); }

  // What a checkpoint reads and writes (checkpoint/segment.h, tail.h).
  const CacheLayout& layout() const { return layout_; }
  PagePool* pool() const { return pool_; }
  int32_t length() const { return heads_[0].length; }  // tokens seen; the same for every head between two Forwards
  int32_t LogCount(int32_t head) const { return heads_[static_cast<size_t>(head)].log_count; }
  const uint8_t* Page(int32_t head, int32_t index) const { return heads_[static_cast<size_t>(head)].pages[static_cast<size_t>(index)]; }
  const uint8_t* RingOf(int32_t head) const { return Ring(head); }
  // Of a fresh cache: a sealed page that someone else holds too.
  void AttachPage(int32_t head, uint8_t* page);
  // Keeps the first `pages` of them.
  void DetachPages(int32_t head, int32_t pages);
  // Of a fresh cache, after its sealed pages: room for `slots` survivors of an open page (nullptr: no memory; also if slots is 0).
  uint8_t* AttachOpenPage(int32_t head, int32_t slots);
  // All rings, side by side.
  std::span<uint8_t> rings() { return {rings_.data(), static_cast<size_t>(rings_.size())}; }
  // Then the ring: its bytes to fill in, for a head that has seen `length` tokens.
  uint8_t* RestoreRing(int32_t head, int32_t length);
  // Records nothing unless given heads.
  DecisionLog& decisions() { return decisions_; }
  const DecisionLog& decisions() const { return decisions_; }

 private:
  struct Head {
    std::vector<uint8_t*> pages;
    int32_t log_count = 0;
    int32_t length = 0;  // tokens seen
    bool dense_prompt = false;       // the last token was of one that has not ended
    std::vector<uint8_t> log_flags;  // [log_count] within a dense prompt: who goes at its end
  };
  // One token of a ring or a page.
  struct Place {
    const uint8_t* k;
    int32_t k_stride;
    const uint8_t* v;
    int32_t slot, position;
  };
  ChainCache(const CacheLayout& layout, PagePool* pool, int32_t heads);
  bool KeepSurvivor(Head& head, const Place& from);
  Place InPage(const uint8_t* page, int32_t slot) const;
  uint8_t* Ring(int32_t head) const { return rings_.data() + head * layout_.ring_bytes; }

  const CacheLayout layout_;
  PagePool* const pool_;
  std::vector<Head> heads_;
  MappedBuffer rings_;  // [heads][ring_bytes]
  DecisionLog decisions_;
};

}  // namespace rum
