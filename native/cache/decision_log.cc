#include "cache/decision_log.h"

#include <span>

namespace rum {
namespace {

bool BitAt(std::span<const uint8_t> bits, int32_t i) { return (bits[static_cast<size_t>(i / 8)] >> (i % 8) & 1) != 0; }

void Push(std::vector<uint8_t>& bits, int32_t count, bool bit) {
  if (count % 8 == 0) bits.push_back(0);
  if (bit) bits.back() = static_cast<uint8_t>(bits.back() | 1 << (count % 8));
}

}  // namespace

DecisionBits Slice(const DecisionBits& from, int32_t first, int32_t end, int32_t heads) {
  const int64_t row = DecisionRowBytes(heads);
  const auto begin = from.bits.begin();
  return {first, end, {begin + (first - from.first) * row, begin + (end - from.first) * row}};
}

void Extend(DecisionBits* bits, const DecisionBits& next) {
  bits->bits.insert(bits->bits.end(), next.bits.begin(), next.bits.end());
  bits->end = next.end;
}

DecisionLog& DecisionLog::operator=(const DecisionLog& other) {
  heads_ = other.heads_;
  first_ = other.first_;
  forced_ = other.forced_;
  drifted_.store(other.drifted(), std::memory_order_relaxed);
  return *this;
}

bool DecisionLog::Say(int32_t index, int32_t position, bool evict) {
  if (heads_.empty()) return evict;
  Head& head = heads_[static_cast<size_t>(index)];
  const int32_t at = position - first_;
  if (at < 0) return evict;  // journaled and dropped: a token before the known ones is fed again
  if (at < head.count) {
    const bool known = BitAt(head.bits, at);
    if (forced_) return known;
    if (known != evict) drifted_.store(true, std::memory_order_relaxed);
    return evict;
  }
  Push(head.bits, head.count++, evict);
  return evict;
}

void DecisionLog::Know(const DecisionBits& known, bool forced) {
  first_ = known.first;
  forced_ = forced;
  const int32_t count = known.end - known.first;
  const auto row = static_cast<size_t>(DecisionRowBytes(static_cast<int32_t>(heads_.size())));
  for (Head& head : heads_) head = {std::vector<uint8_t>(static_cast<size_t>((count + 7) / 8)), count};
  for (int32_t i = 0; i < count; ++i) {
    const std::span<const uint8_t> bits = std::span(known.bits).subspan(static_cast<size_t>(i) * row, row);
    for (size_t h = 0; h < heads_.size(); ++h) {
      if (!BitAt(bits, static_cast<int32_t>(h))) continue;
      uint8_t& byte = heads_[h].bits[static_cast<size_t>(i / 8)];
      byte = static_cast<uint8_t>(byte | 1 << (i % 8));
    }
  }
}

void DecisionLog::Drop(int32_t first) {
  if (first <= first_) return;
  for (Head& head : heads_) {
    Head rest;
    for (int32_t i = first - first_; i < head.count; ++i) Push(rest.bits, rest.count++, BitAt(head.bits, i));
    head = std::move(rest);
  }
  first_ = first;
}

DecisionBits DecisionLog::Take(int32_t first, int32_t end) const {
  if (heads_.empty()) return {first, first, {}};
  const auto row = static_cast<size_t>(DecisionRowBytes(static_cast<int32_t>(heads_.size())));
  DecisionBits out{first, end, std::vector<uint8_t>(static_cast<size_t>(end - first) * row)};
  for (int32_t i = 0; i < end - first; ++i) {
    const std::span<uint8_t> bits = std::span(out.bits).subspan(static_cast<size_t>(i) * row, row);
    for (size_t h = 0; h < heads_.size(); ++h) {
      if (BitAt(heads_[h].bits, first - first_ + i)) bits[h / 8] = static_cast<uint8_t>(bits[h / 8] | 1 << (h % 8));
    }
  }
  return out;
}

}  // namespace rum
