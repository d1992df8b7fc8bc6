// One sequence of bytes that lies in several pieces of memory.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace rum {

// Borrows the chunks' memory. Ranges asked for lie inside [0, size()).
class ChunkedBytes {
 public:
  explicit ChunkedBytes(std::span<const std::span<const uint8_t>> chunks);

  int64_t size() const { return ends_.empty() ? 0 : ends_.back(); }
  // The longest piece that begins at `offset`, lies in one chunk and has at most `bytes` > 0 bytes; at least one.
  std::span<const uint8_t> Piece(int64_t offset, int64_t bytes) const;
  void Copy(int64_t offset, std::span<uint8_t> to) const;
  bool AllZero(int64_t begin, int64_t end) const;

 private:
  std::vector<std::span<const uint8_t>> chunks_;  // none is empty
  std::vector<int64_t> ends_;                     // where each ends in the sequence
};

}  // namespace rum
