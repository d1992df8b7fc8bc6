// All K and V a KV head has ever seen, and the rule that says which of them a query sees (METHOD.md 1.3, 1.4). Nothing is ever
// dropped here: eviction is a mask over positions, so it shares no idea with the ring and the survivor log of the cpu backend.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "backend/backend.h"

namespace rum::reference {

// Stands for one sealed page of survivors. Only who else holds it matters: the bytes are in the histories.
struct SharedPage {};

// Who hides what, besides causality.
struct Mask {
  int32_t window = 0;  // tokens before the query that are always visible
  bool dense = false;  // KVzap: within the prompt nothing is hidden
  int32_t evictable_end = std::numeric_limits<int32_t>::max();  // keys from here on are never hidden
};

struct HeadHistory {
  std::vector<float> k, v;      // [length, head_dim]; k post-RoPE, both rounded to the KV type
  std::vector<uint8_t> evict;   // [length]; DMS: set by the decision of the next token, 0 for the newest; KVzap: by its own
  std::vector<std::shared_ptr<const SharedPage>> pages;  // sealed pages at the last fork

  int32_t length() const { return static_cast<int32_t>(evict.size()); }

  bool Visible(int32_t query, int32_t key, const Mask& mask) const {
    const bool hidden = query - key > mask.window && evict[static_cast<size_t>(key)] != 0 && !mask.dense && key < mask.evictable_end;
    return key <= query && !hidden;
  }

  // Positions a query at `query` sees, ascending.
  std::vector<int32_t> VisiblePositions(int32_t query, const Mask& mask) const {
    std::vector<int32_t> positions;
    for (int32_t key = 0; key <= query && key < length(); ++key) {
      if (Visible(query, key, mask)) positions.push_back(key);
    }
    return positions;
  }

  int64_t LiveCount(const Mask& mask) const { return static_cast<int64_t>(VisiblePositions(length() - 1, mask).size()); }

  // The next token sees what is visible to it of the present ones, and itself. Under DMS a window of 0 needs the next token's own
  // decision about the newest token; it counts as kept, so that a budget is never exceeded.
  int64_t NextLiveCount(const Mask& mask) const { return static_cast<int64_t>(VisiblePositions(length(), mask).size()) + 1; }

  // Tokens that have left the ring of the last window + 1 positions and stayed.
  int64_t SurvivorCount(const Mask& mask) const {
    int64_t count = 0;
    for (int32_t key = 0; key < length() - (mask.window + 1); ++key) count += Visible(length() - 1, key, mask);
    return count;
  }

  // Before a fork: every full page of survivors is sealed, and both chains hold it from then on.
  void SealPages(const Mask& mask, int32_t page_slots) {
    const auto sealed = static_cast<size_t>(SurvivorCount(mask) / page_slots);
    while (pages.size() < sealed) pages.push_back(std::make_shared<const SharedPage>());
  }

  // At the end of a dense prompt its pages are written anew from the first one that loses a token. `mask`: the one after it.
  void PrunePages(const Mask& mask, int32_t page_slots) {
    int32_t first = 0;
    while (first < length() - (mask.window + 1) && Visible(length() - 1, first, mask)) ++first;
    if (first < length() - (mask.window + 1)) pages.resize(std::min(pages.size(), static_cast<size_t>(first / page_slots)));
  }

  int64_t SharedPageCount() const {
    int64_t count = 0;
    for (const auto& page : pages) count += page.use_count() > 1;
    return count;
  }
};

struct Chain {
  int32_t length = 0;              // tokens fed
  bool in_prompt = false;          // the last of them is of a prompt that has not ended
  int32_t prompt_length = 0;       // once it has
  std::vector<HeadHistory> heads;  // [num_layers * num_kv_heads]
};

}  // namespace rum::reference
