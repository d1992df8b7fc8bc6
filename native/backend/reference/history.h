// All K and V a KV head has ever seen, and the rule that says which of them a query sees (METHOD.md 1.3, 1.4). Nothing is ever
// dropped here: eviction is a mask over positions, so it shares no idea with the ring and the survivor log of the cpu backend.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"

namespace rum::reference {

// Stands for one sealed page of survivors. Only who else holds it matters: the bytes are in the histories.
struct SharedPage {};

struct HeadHistory {
  std::vector<float> k, v;      // [length, head_dim]; k post-RoPE, both rounded to the KV type
  std::vector<uint8_t> evict;   // [length]; set by the decision of the next token: 0 for the newest
  std::vector<std::shared_ptr<const SharedPage>> pages;  // sealed pages at the last fork

  int32_t length() const { return static_cast<int32_t>(evict.size()); }

  bool Visible(int32_t query, int32_t key, int32_t window) const {
    return key <= query && (query - key <= window || evict[static_cast<size_t>(key)] == 0);
  }

  // Positions a query at `query` sees, ascending.
  std::vector<int32_t> VisiblePositions(int32_t query, int32_t window) const {
    std::vector<int32_t> positions;
    for (int32_t key = 0; key <= query && key < length(); ++key) {
      if (Visible(query, key, window)) positions.push_back(key);
    }
    return positions;
  }

  int64_t LiveCount(int32_t window) const {
    return static_cast<int64_t>(VisiblePositions(length() - 1, window).size());
  }

  // The next token sees what is visible to it of the present ones, and itself. A window of 0 needs the next token's own decision
  // about the newest token; it counts as kept, so that a budget is never exceeded.
  int64_t NextLiveCount(int32_t window) const {
    return static_cast<int64_t>(VisiblePositions(length(), window).size()) + 1;
  }

  // Tokens that have left the ring of the last window + 1 positions and stayed.
  int64_t SurvivorCount(int32_t window) const {
    int64_t count = 0;
    for (int32_t key = 0; key < length() - (window + 1); ++key) count += evict[static_cast<size_t>(key)] == 0;
    return count;
  }

  // Before a fork: every full page of survivors is sealed, and both chains hold it from then on.
  void SealPages(int32_t window, int32_t page_slots) {
    const auto sealed = static_cast<size_t>(SurvivorCount(window) / page_slots);
    while (pages.size() < sealed) pages.push_back(std::make_shared<const SharedPage>());
  }

  int64_t SharedPageCount() const {
    int64_t count = 0;
    for (const auto& page : pages) count += page.use_count() > 1;
    return count;
  }
};

struct Chain {
  int32_t length = 0;              // tokens fed
  std::vector<HeadHistory> heads;  // [num_layers * num_kv_heads]
};

}  // namespace rum::reference
