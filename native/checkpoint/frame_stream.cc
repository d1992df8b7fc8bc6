#include "checkpoint/frame_stream.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "checkpoint/crc32c.h"
#include "checkpoint/object_layout.h"

namespace rum {

FrameCheck::FrameCheck(const FrameEntry& entry, const Key* digest_key, bool digests) : entry_(&entry) {
  if (digests) hasher_.emplace(digest_key);
}

void FrameCheck::Update(std::span<const uint8_t> piece) {
  if (hasher_) {
    hasher_->Update(piece);
  } else {
    crc32c_ = Crc32c(piece, crc32c_);
  }
}

const char* FrameCheck::Finish() const {
  if (!hasher_) return crc32c_ == entry_->crc32c ? nullptr : "has another CRC";
  std::array<uint8_t, 16> found;
  hasher_->Finish(found);
  return found == entry_->digest ? nullptr : "has another digest";
}

void FrameStream::ReadAcross(uint8_t* to, int64_t count) {
  if (!ok_ || count < 0 || count > count_ - at_) {
    ok_ = false;
    here_left_ = 0;
    if (count > 0) std::memset(to, 0, static_cast<size_t>(count));
    return;
  }
  while (count > 0) {
    if (here_left_ == 0) {
      if (at_ - checked_ == kPieceBytes) CheckTo(at_);
      const std::span<const uint8_t> piece = bytes_.Piece(begin_ + at_, std::min(count_, checked_ + kPieceBytes) - at_);
      here_ = piece.data();
      here_left_ = static_cast<int64_t>(piece.size());
    }
    const int64_t part = std::min(count, here_left_);
    std::memcpy(to, here_, static_cast<size_t>(part));
    to += part;
    count -= part;
    Advance(part);
  }
}

void FrameStream::ReadRows(uint8_t* to, int64_t to_stride, int64_t row_bytes, int64_t rows) {
  if (to_stride == row_bytes) return Read(to, row_bytes * rows);
  for (int64_t r = 0; r < rows; ++r) Read(to + r * to_stride, row_bytes);
}

const char* FrameStream::Finish() {
  CheckTo(count_);
  return check_ ? check_->Finish() : nullptr;
}

void FrameStream::CheckTo(int64_t end) {
  while (checked_ < end) {
    const std::span<const uint8_t> piece = bytes_.Piece(begin_ + checked_, std::min(end - checked_, kPieceBytes));
    if (check_) check_->Update(piece);
    checked_ += static_cast<int64_t>(piece.size());
  }
}

}  // namespace rum
