// Writes GGUF files for tests, right ones and wrong ones: every count and length can be made to lie.
#pragma once
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/gguf.h"

namespace rum::test {

template <class T>
std::string Raw(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}
inline std::string RawString(std::string_view text) { return Raw(static_cast<uint64_t>(text.size())) + std::string(text); }
inline std::string RawType(GgufType type) { return Raw(static_cast<uint32_t>(type)); }

class GgufBuilder {
 public:
  uint32_t version = 3;
  uint64_t alignment = 32;                   // of the data; write general.alignment yourself to state another
  std::optional<uint64_t> metadata_count, tensor_count;  // instead of the true ones

  GgufBuilder& Value(std::string_view key, GgufType type, const std::string& payload) {
    metadata_ += RawString(key) + RawType(type) + payload;
    ++metadata_added_;
    return *this;
  }
  GgufBuilder& U32(std::string_view key, uint32_t value) { return Value(key, GgufType::kU32, Raw(value)); }
  GgufBuilder& F32(std::string_view key, float value) { return Value(key, GgufType::kF32, Raw(value)); }
  GgufBuilder& Bool(std::string_view key, bool value) { return Value(key, GgufType::kBool, Raw(static_cast<uint8_t>(value))); }
  GgufBuilder& String(std::string_view key, std::string_view value) { return Value(key, GgufType::kString, RawString(value)); }
  GgufBuilder& Array(std::string_view key, GgufType element, uint64_t count, const std::string& elements) {
    return Value(key, GgufType::kArray, RawType(element) + Raw(count) + elements);
  }
  GgufBuilder& Strings(std::string_view key, const std::vector<std::string>& values) {
    std::string elements;
    for (const std::string& value : values) elements += RawString(value);
    return Array(key, GgufType::kString, values.size(), elements);
  }

  // dims from the innermost, as ggml counts them. The tensor lies after the ones before it unless `offset` says where.
  GgufBuilder& Tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, const std::string& data,
                      std::optional<uint64_t> offset = {}) {
    tensors_ += RawString(name) + Raw(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) tensors_ += Raw(dim);
    tensors_ += Raw(type) + Raw(offset.value_or(data_.size()));
    data_ += data;
    Pad(data_);
    ++tensors_added_;
    return *this;
  }

  std::string Build() const {
    std::string file = "GGUF" + Raw(version) + Raw(tensor_count.value_or(tensors_added_)) + Raw(metadata_count.value_or(metadata_added_));
    file += metadata_ + tensors_;
    Pad(file);
    return file + data_;
  }

 private:
  void Pad(std::string& bytes) const { bytes.resize((bytes.size() + alignment - 1) / alignment * alignment); }

  std::string metadata_, tensors_, data_;
  uint64_t metadata_added_ = 0, tensors_added_ = 0;
};

}  // namespace rum::test
