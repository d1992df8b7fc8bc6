// Numbers into and out of the frames of an object, little-endian. Reading never passes the end: after the first read that would, `ok()`
// is false and every read gives zeros, so that a parser reads on and checks once before it uses anything.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include "core/little_endian.h"

namespace rum {

class ByteWriter {
 public:
  template <class T>
  void Put(T value) {
    static_assert(std::is_arithmetic_v<T>);
    Bytes({reinterpret_cast<const uint8_t*>(&value), sizeof value});
  }
  void Bytes(std::span<const uint8_t> bytes) {
    if (bytes.empty()) return;
    const size_t at = bytes_.size();
    bytes_.resize(at + bytes.size());
    std::memcpy(bytes_.data() + at, bytes.data(), bytes.size());
  }
  template <class T>
  void Array(std::span<const T> values) {
    Bytes({reinterpret_cast<const uint8_t*>(values.data()), values.size_bytes()});
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(std::span<const uint8_t> bytes) : rest_(bytes) {}

  template <class T>
  T Get() {
    static_assert(std::is_arithmetic_v<T>);
    const std::span<const uint8_t> bytes = Bytes(sizeof(T));
    return bytes.empty() ? T{} : LoadAs<T>(bytes.data());
  }
  // Empty if there are fewer left.
  std::span<const uint8_t> Bytes(int64_t count) {
    if (count < 0 || count > static_cast<int64_t>(rest_.size())) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    const std::span<const uint8_t> taken = rest_.first(static_cast<size_t>(count));
    rest_ = rest_.subspan(static_cast<size_t>(count));
    return taken;
  }
  // Nothing is allocated before it is known to be there.
  template <class T>
  std::vector<T> Array(int64_t count) {
    if (count < 0 || count > static_cast<int64_t>(rest_.size() / sizeof(T))) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    std::vector<T> values(static_cast<size_t>(count));
    const std::span<const uint8_t> bytes = Bytes(count * static_cast<int64_t>(sizeof(T)));
    if (!bytes.empty()) std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
  bool ok() const { return ok_; }
  // All was read, and nothing more than there was.
  bool done() const { return ok_ && rest_.empty(); }

 private:
  std::span<const uint8_t> rest_;
  bool ok_ = true;
};

}  // namespace rum
