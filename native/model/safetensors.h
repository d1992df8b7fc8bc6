// safetensors files: a read-only mapping, and a parser of the header that trusts nothing in it.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"

namespace rum {

// A regular file mapped read-only for its whole life. Immutable, so thread-safe.
// The size is taken once at open and every offset is checked against it. A file that another process truncates
// while it is mapped raises SIGBUS on the next touch; that is out of scope: model files are written once and
// replaced by rename.
class MappedFile {
 public:
  // ERR_MODEL_FILE if the file is missing, unreadable, not a regular file, empty or longer than `bytes_max`.
  static Expected<std::shared_ptr<const MappedFile>> Open(const std::string& path, int64_t bytes_max);

  MappedFile(const uint8_t* data, size_t size) : data_(data), size_(size) {}  // takes over a mapping; use Open
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const uint8_t> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  const uint8_t* data_;
  size_t size_;
};

struct TensorEntry {
  std::string name;
  std::string dtype;           // as the file states it: "F32", "BF16", "I8", ...
  std::vector<int64_t> shape;  // empty: a scalar
  int64_t begin = 0;           // byte offsets into the file, not into the data section
  int64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<TensorEntry> tensors;  // ascending by name
  const TensorEntry* Find(std::string_view name) const;  // nullptr: no such tensor
};

// Parses and checks the header of a whole file's bytes: u64 length, JSON, offsets. Every data byte belongs to
// exactly one tensor and every tensor of a type the format knows has the length of its shape, so an entry can be
// used without further checks of its range.
// `where` names the file in errors. Needs no file, so a fuzzer can call it.
Expected<SafetensorsHeader> ParseSafetensorsHeader(std::span<const uint8_t> file, std::string_view where);

}  // namespace rum
