// Zeroed memory straight from the system, given back on destruction.
#pragma once
#include <cstdint>

namespace rum {

// One call instead of a fault for each page of the system. Bytes of these pages that lie outside of the range stay as they are.
void Populate(uint8_t* begin, int64_t bytes);

class MappedBuffer {
 public:
  MappedBuffer() = default;
  ~MappedBuffer();
  MappedBuffer(MappedBuffer&& other) noexcept;
  MappedBuffer& operator=(MappedBuffer&& other) noexcept;
  bool Allocate(int64_t bytes);  // false when the system has none
  bool Grow(int64_t bytes);      // to at least `bytes`, keeping what it holds; it may move. false: unchanged
  uint8_t* data() const { return data_; }
  int64_t size() const { return bytes_; }

 private:
  uint8_t* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace rum
