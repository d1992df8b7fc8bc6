#include "cache/decision_log.h"

#include <algorithm>

namespace rum {
namespace {

bool BitAt(std::span<const uint8_t> bits, int32_t i) { return (bits[static_cast<size_t>(i / 8)] >> (i % 8) & 1) != 0; }

void Push(std::vector<uint8_t>& bits, int32_t count, bool bit) {
  if (count % 8 == 0) bits.push_back(0);
  if (bit) bits.back() = static_cast<uint8_t>(bits.back() | 1 << (count % 8));
}

// Of head `h` of bits.
std::span<const uint8_t> BitsOf(const DecisionBits& b, size_t h) {
  const auto stride = static_cast<size_t>((b.end - b.first + 7) / 8);
  return std::span(b.bits).subspan(h * stride, stride);
}

}  // namespace

DecisionBits Slice(const DecisionBits& from, int32_t first, int32_t end, int32_t heads) {
  DecisionBits out{first, end, {}};
  for (size_t h = 0; h < static_cast<size_t>(heads); ++h) {
    std::vector<uint8_t> bits;
    const std::span<const uint8_t> own = BitsOf(from, h);
    for (int32_t position = first; position < end; ++position) Push(bits, position - first, BitAt(own, position - from.first));
    out.bits.insert(out.bits.end(), bits.begin(), bits.end());
  }
  return out;
}

void Extend(DecisionBits* bits, const DecisionBits& next, int32_t heads) {
  DecisionBits out{bits->first, next.end, {}};
  for (size_t h = 0; h < static_cast<size_t>(heads); ++h) {
    std::vector<uint8_t> own;
    for (int32_t i = 0; i < bits->end - bits->first; ++i) Push(own, i, BitAt(BitsOf(*bits, h), i));
    for (int32_t i = 0; i < next.end - next.first; ++i) Push(own, bits->end - bits->first + i, BitAt(BitsOf(next, h), i));
    out.bits.insert(out.bits.end(), own.begin(), own.end());
  }
  *bits = std::move(out);
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
  const auto stride = static_cast<std::ptrdiff_t>((count + 7) / 8);
  for (size_t h = 0; h < heads_.size(); ++h) {
    const auto begin = known.bits.begin() + static_cast<std::ptrdiff_t>(h) * stride;
    heads_[h].bits.assign(begin, begin + stride);
    heads_[h].count = count;
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
  DecisionBits out{first, end, {}};
  if (heads_.empty()) out.end = first;
  for (const Head& head : heads_) {
    std::vector<uint8_t> bits;
    for (int32_t position = first; position < out.end; ++position) Push(bits, position - first, BitAt(head.bits, position - first_));
    out.bits.insert(out.bits.end(), bits.begin(), bits.end());
  }
  return out;
}

}  // namespace rum
