// Helpers of the model loader's tests: fixtures, temporary copies of them, and safetensors files with any header.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "test/check.h"

namespace rum::test {

namespace fs = std::filesystem;


inline std::string ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void WriteFile(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// A directory of its own, removed at the end; optionally with a fixture's files copied into it.
struct TempDir {
  fs::path path;
  explicit TempDir(const char* fixture = nullptr) {
    std::string pattern = (fs::temp_directory_path() / "ruminate_model_test_XXXXXX").string();
    path = mkdtemp(pattern.data());
    if (!fixture) return;
    for (const auto& file : fs::directory_iterator(fs::path(fixtures) / "models" / fixture)) {
      fs::copy(file, path / file.path().filename());
    }
  }
  ~TempDir() { fs::remove_all(path); }
};

inline Expected<std::shared_ptr<const Model>> OpenFixture(const char* name, const PolicyOverrides& overrides = {}) {
  return OpenModel((fs::path(fixtures) / "models" / name).string(), overrides);
}

// Whether the status is an error with this code whose message has this word in it; prints the message if not.
inline bool Names(const Status& status, const char* code, const std::string& word) {
  const bool named = !status.ok() && std::string(status.code) == code && status.message.find(word) != std::string::npos;
  if (!named) {
    const char* found = status.ok() ? "OK" : status.code;
    std::printf("    expected %s naming %s, found %s: %s\n", code, word.c_str(), found, status.message.c_str());
  }
  return named;
}

inline std::string Replace(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  if (!CHECK(at != std::string::npos)) return text;
  return text.replace(at, from.size(), to);
}

inline std::string QwenConfig() { return ReadFile(fs::path(fixtures) / "models/tiny_qwen3/config.json"); }

// tiny_qwen3's config with `"key": old` replaced by `"key": value`.
inline std::string WithValue(const std::string& key, const std::string& value) {
  std::string text = QwenConfig();
  const size_t begin = text.find("\"" + key + "\": ");
  if (!CHECK(begin != std::string::npos)) return text;
  const size_t value_begin = begin + key.size() + 4;
  size_t end = text.find_first_of(",\n", value_begin);
  if (text[value_begin] == '[') end = text.find(']', value_begin) + 1;
  return text.replace(value_begin, end - value_begin, value);
}

inline std::string WithField(const std::string& field) { return Replace(QwenConfig(), "{", "{ " + field + ","); }

inline Status ConfigStatus(const std::string& json, const PolicyOverrides& overrides = {}, const std::string& generation = "") {
  return ParseConfig({json, generation}, overrides).status();
}

// A safetensors file of a header and data_bytes zero bytes.
inline std::string SafetensorsFile(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file + header + std::string(data_bytes, '\0');
}

// Parses a copy of exactly the file's size, so that AddressSanitizer sees a read past its end.
inline Expected<SafetensorsHeader> ParseHeader(std::string_view file) {
  const std::vector<uint8_t> bytes(file.begin(), file.end());
  return ParseSafetensorsHeader(bytes, "test.safetensors");
}

inline Status HeaderStatus(const std::string& header, size_t data_bytes) {
  return ParseHeader(SafetensorsFile(header, data_bytes)).status();
}

// The JSON header of a file, and the file with another header in its place.
inline std::string HeaderOf(const std::string& file) {
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof(length));
  return file.substr(8, length);
}
inline std::string WithHeader(const std::string& file, const std::string& header) {
  return SafetensorsFile(header, 0) + file.substr(8 + HeaderOf(file).size());
}

inline bool SameBytes(const TensorView& a, const TensorView& b) {
  if (a.dtype != b.dtype || a.rows != b.rows || a.cols != b.cols || !a.data != !b.data) return false;
  return !a.data || std::memcmp(a.data, b.data, static_cast<size_t>(a.rows * a.cols * ElementBytes(a.dtype))) == 0;
}

}  // namespace rum::test
