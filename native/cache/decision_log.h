// What a policy said when each token arrived, by (layer, KV head): one bit, whether some token is to go (DMS: the one before it, KVzap:
// itself). A journal keeps these bits; when tokens are fed again they are compared with them, or forced (DESIGN.md 3).
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

namespace rum {

// Bits of positions [first, end), one row after the other: what follows is appended, whatever came before.
struct DecisionBits {
  int32_t first = 0, end = 0;
  std::vector<uint8_t> bits;  // [end - first][DecisionRowBytes(heads)], head 0 in the lowest bit
};

constexpr int64_t DecisionRowBytes(int32_t heads) { return (int64_t{heads} + 7) / 8; }

// next.first == bits->end.
void Extend(DecisionBits* bits, const DecisionBits& next);
// Those of [first, end), which lie within.
DecisionBits Slice(const DecisionBits& bits, int32_t first, int32_t end, int32_t heads);

// As ChainCache: different threads may speak for different heads at a time, so each head has bits of its own here.
class DecisionLog {
 public:
  DecisionLog() = default;  // records nothing
  explicit DecisionLog(int32_t heads) : heads_(static_cast<size_t>(heads)) {}
  DecisionLog(const DecisionLog& other) : heads_(other.heads_), first_(other.first_), forced_(other.forced_), drifted_(other.drifted()) {}
  DecisionLog& operator=(const DecisionLog& other);

  // The token at `position` has arrived and the policy wants `evict`. Returns what is to be done: known bits beyond the newest token are
  // compared (drifted() from then on) or, if forced, win.
  bool Say(int32_t head, int32_t position, bool evict);
  // Tokens not yet fed whose bits are known. known.first must be at or before the next token, known.end not; forced: another numerics
  // computes here.
  void Know(const DecisionBits& known, bool forced);
  // Forgets what is before `first`, which has been journaled.
  void Drop(int32_t first);
  // The bits of [first, end), all of them recorded; none if this records nothing.
  DecisionBits Take(int32_t first, int32_t end) const;
  int32_t first() const { return first_; }
  bool records() const { return !heads_.empty(); }
  bool drifted() const { return drifted_.load(std::memory_order_relaxed); }

 private:
  struct Head {
    std::vector<uint8_t> bits;  // of positions from first_ on, lowest bit first
    int32_t count = 0;
  };
  std::vector<Head> heads_;
  int32_t first_ = 0;
  bool forced_ = false;
  std::atomic<bool> drifted_{false};
};

}  // namespace rum
