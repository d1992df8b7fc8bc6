// Reads what the tests compare with: tensors of a safetensors fixture and the JSON files beside them. Trusted files: a missing
// tensor or a wrong type ends the test program.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/json.h"
#include "model/safetensors.h"
#include "model/weights.h"

namespace rum::test {

[[noreturn]] inline void Abort(const std::string& message) {
  std::fprintf(stderr, "cannot run: %s\n", message.c_str());
  std::exit(2);
}

// By the text: the same constant has an address of its own in each object file.
inline bool Has(const Status& status, const char* code) { return !status.ok() && std::strcmp(status.code, code) == 0; }

template <class T>
T Must(Expected<T> value) {
  if (!value.ok()) Abort(std::string(value.status().code) + ": " + value.status().message);
  return std::move(*value);
}

inline std::shared_ptr<const Model> Open(const std::string& directory, const PolicyOverrides& overrides = {}) {
  return Must(OpenModel(directory, overrides));
}

class Fixture {
 public:
  explicit Fixture(const std::string& path)
      : path_(path), file_(Must(MappedFile::Open(path, int64_t{1} << 30))),
        header_(Must(ParseSafetensorsHeader(file_->bytes(), path))) {}

  // All elements, row-major, of a tensor stored as `dtype` with sizeof(T) bytes each.
  template <class T>
  std::vector<T> Read(const std::string& name, const char* dtype) const {
    const TensorEntry* entry = header_.Find(name);
    if (!entry || entry->dtype != dtype) Abort(path_ + " has no " + dtype + " tensor " + name);
    std::vector<T> values(static_cast<size_t>(entry->end - entry->begin) / sizeof(T));
    std::memcpy(values.data(), file_->bytes().data() + entry->begin, values.size() * sizeof(T));
    return values;
  }
  std::vector<float> Floats(const std::string& name) const { return Read<float>(name, "F32"); }
  std::vector<int32_t> Ints(const std::string& name) const { return Read<int32_t>(name, "I32"); }
  std::vector<uint8_t> Bytes(const std::string& name) const { return Read<uint8_t>(name, "U8"); }

 private:
  std::string path_;
  std::shared_ptr<const MappedFile> file_;
  SafetensorsHeader header_;
};

// A JSON file, parsed; the parser owns the memory of its elements.
class JsonFile {
 public:
  explicit JsonFile(const std::string& path) {
    if (parser_.load(path).get(root_) != simdjson::SUCCESS) Abort("cannot parse " + path);
  }
  simdjson::dom::element root() const { return root_; }

 private:
  simdjson::dom::parser parser_;
  simdjson::dom::element root_;
};

template <class T>
T Get(simdjson::simdjson_result<simdjson::dom::element> element) {
  T value;
  if (element.get(value) != simdjson::SUCCESS) Abort("a fixture's JSON lacks a field or has another type");
  return value;
}

inline std::vector<int32_t> GetInts(simdjson::simdjson_result<simdjson::dom::element> element) {
  std::vector<int32_t> values;
  for (simdjson::dom::element value : Get<simdjson::dom::array>(element)) {
    values.push_back(static_cast<int32_t>(Get<int64_t>(std::move(value))));
  }
  return values;
}

}  // namespace rum::test
