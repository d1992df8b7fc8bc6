// The bytes of one frame in order, and the check of them as they go by, so that each comes from memory once.
#pragma once
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "checkpoint/chunked_bytes.h"
#include "checkpoint/digest.h"
#include "checkpoint/frame_index.h"

namespace rum {

// The stored bytes of a frame against its digest or, if that is not asked for, its CRC: whatever a CRC finds, a digest finds.
class FrameCheck {
 public:
  FrameCheck(const FrameEntry& entry, const Key* digest_key, bool digests);
  void Update(std::span<const uint8_t> piece);
  const char* Finish() const;  // nullptr: right; else what is wrong

 private:
  const FrameEntry* entry_;
  uint32_t crc32c_ = 0;
  std::optional<Hasher> hasher_;
};

// For a parser that puts what it reads where nobody looks before Finish: with a check, bytes are handed out before they are verified.
// Reading never passes the end: after the first read that would, ok() is false and every read gives zeros.
class FrameStream {
 public:
  // `bytes` [begin, begin + count), borrowed; with a check they are those of its entry.
  FrameStream(const ChunkedBytes& bytes, int64_t begin, int64_t count, std::optional<FrameCheck> check)
      : bytes_(bytes), begin_(begin), count_(count), check_(std::move(check)) {}

  template <class T>
  T Get() {
    T value{};
    Read(reinterpret_cast<uint8_t*>(&value), sizeof value);
    return value;
  }
  void Read(uint8_t* to, int64_t count) {
    if (count == 0) return;  // of a frame without bytes there is no address to read from
    if (count < 0 || count > here_left_) return ReadAcross(to, count);
    std::memcpy(to, here_, static_cast<size_t>(count));
    Advance(count);
  }
  // `rows` rows of `row_bytes`, to_stride apart; one read where they touch.
  void ReadRows(uint8_t* to, int64_t to_stride, int64_t row_bytes, int64_t rows);
  bool ok() const { return ok_; }
  // All was read, and nothing more than there was.
  bool done() const { return ok_ && at_ == count_; }
  // Checks all, also what was not read. nullptr: right; else what is wrong.
  const char* Finish();

 private:
  void ReadAcross(uint8_t* to, int64_t count);
  void CheckTo(int64_t end);
  void Advance(int64_t count) {
    here_ += count;
    here_left_ -= count;
    at_ += count;
  }

  const ChunkedBytes& bytes_;
  const int64_t begin_, count_;
  int64_t at_ = 0, checked_ = 0;
  const uint8_t* here_ = nullptr;  // what comes next, as far as it lies in one chunk and within what is checked next
  int64_t here_left_ = 0;
  std::optional<FrameCheck> check_;
  bool ok_ = true;
};

}  // namespace rum
