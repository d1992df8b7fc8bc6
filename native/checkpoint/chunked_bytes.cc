#include "checkpoint/chunked_bytes.h"

#include <algorithm>
#include <cstring>

namespace rum {

ChunkedBytes::ChunkedBytes(std::span<const std::span<const uint8_t>> chunks) {
  int64_t end = 0;
  for (const std::span<const uint8_t> chunk : chunks) {
    if (chunk.empty()) continue;
    end += static_cast<int64_t>(chunk.size());
    chunks_.push_back(chunk);
    ends_.push_back(end);
  }
}

std::span<const uint8_t> ChunkedBytes::Piece(int64_t offset, int64_t bytes) const {
  const auto at = static_cast<size_t>(std::upper_bound(ends_.begin(), ends_.end(), offset) - ends_.begin());
  const int64_t left = ends_[at] - offset;
  const std::span<const uint8_t> chunk = chunks_[at];
  return chunk.subspan(chunk.size() - static_cast<size_t>(left), static_cast<size_t>(std::min(left, bytes)));
}

void ChunkedBytes::Copy(int64_t offset, std::span<uint8_t> to) const {
  while (!to.empty()) {
    const std::span<const uint8_t> piece = Piece(offset, static_cast<int64_t>(to.size()));
    std::memcpy(to.data(), piece.data(), piece.size());
    to = to.subspan(piece.size());
    offset += static_cast<int64_t>(piece.size());
  }
}

bool ChunkedBytes::AllZero(int64_t begin, int64_t end) const {
  while (begin < end) {
    const std::span<const uint8_t> piece = Piece(begin, end - begin);
    if (std::any_of(piece.begin(), piece.end(), [](uint8_t byte) { return byte != 0; })) return false;
    begin += static_cast<int64_t>(piece.size());
  }
  return true;
}

}  // namespace rum
