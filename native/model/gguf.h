// GGUF files: a parser of metadata and tensor table that trusts nothing in them, and typed reads of the metadata.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"
#include "model/safetensors.h"

namespace rum {

// As the file numbers them.
enum class GgufType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };

// One metadata value; key and payload are views into the file.
struct GgufValue {
  std::string_view key;
  GgufType type = GgufType::kU8;
  GgufType element = GgufType::kU8;   // of an array
  int64_t count = 0;                  // of an array
  std::span<const uint8_t> payload;   // of a string its bytes, of an array its elements one after another
};

// Valid as long as the bytes it was parsed from.
struct GgufHeader {
  std::vector<GgufValue> metadata;   // ascending by key
  std::vector<TensorEntry> tensors;  // ascending by name; dtype is ggml's name, "F32", "Q4_K", ...; shape is row-major: rows, cols
  const GgufValue* Find(std::string_view key) const;  // nullptr: no such key
  const TensorEntry* FindTensor(std::string_view name) const;
};

// Parses and checks everything before the data of a whole file's bytes, and that the tensors lie inside the data without
// touching each other. Versions 2 and 3, little-endian. A tensor of a type this engine knows by name has the length of its shape;
// one of a newer type has dtype "type N" and length 0. `where` names the file in errors. Needs no file, so a fuzzer can call it.
Expected<GgufHeader> ParseGgufHeader(std::span<const uint8_t> file, std::string_view where);

// Typed, bounded reads of metadata; ERR_MODEL_CONFIG. The first failure sticks and later reads return their fallback.
// A read without a fallback is of a required key. Any integer type serves where an integer is wanted: converters differ.
class GgufReader {
 public:
  GgufReader(const GgufHeader& header, std::string where) : header_(header), where_(std::move(where)) {}

  bool Has(const std::string& key) const { return header_.Find(key) != nullptr; }
  int64_t Int(const std::string& key, int64_t min, int64_t max, std::optional<int64_t> fallback = {});
  double Number(const std::string& key, double min, double max, std::optional<double> fallback = {});
  bool Bool(const std::string& key, bool fallback);
  // Valid UTF-8.
  std::string String(const std::string& key, std::optional<std::string> fallback = {});
  // Arrays; empty when the key is missing. Strings are views into the file and valid UTF-8.
  std::vector<std::string_view> Strings(const std::string& key);
  std::vector<int32_t> Ints(const std::string& key);
  std::vector<float> Floats(const std::string& key);

  void Fail(const std::string& key, const std::string& problem);
  const Status& status() const { return status_; }

 private:
  const GgufValue* Get(const std::string& key, bool required);
  const GgufValue* GetArray(const std::string& key, GgufType element, const char* what);

  const GgufHeader& header_;
  std::string where_;
  Status status_;
};

}  // namespace rum
