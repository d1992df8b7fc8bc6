// Plain structs from JS objects and back. Everything read is typed and bounded; the first fault is kept with the path of its field,
// e.g. "createRun.options.width". `null` means unspecified; `undefined` is a bug in the caller and is refused.
// JS thread only.
#pragma once
#include <napi.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/status.h"
#include "model/weights.h"
#include "run/run.h"

namespace rum::bind {

inline constexpr int64_t kExactIntegerMax = int64_t{1} << 53;

// Reads the fields of one object. After the first fault every read returns a default and `status()` says what was wrong, so
// callers read straight on and check once. A getter of the object may run any JS: read everything before looking at handles.
class Reader {
 public:
  Reader(std::string path, Napi::Value object);
  Reader(Reader&&) = delete;

  bool IsNull(const char* name);
  bool Bool(const char* name);
  // An integer in [min, max], else ERR_OPTION.
  int64_t Int(const char* name, int64_t min, int64_t max);
  int32_t Int32(const char* name, int32_t min, int32_t max) { return static_cast<int32_t>(Int(name, min, max)); }
  float Float(const char* name);  // finite
  uint64_t U64(const char* name);  // a BigInt
  std::string String(const char* name, size_t bytes_max);
  // Index into `choices`, or -1 after a fault.
  int32_t Choice(const char* name, std::initializer_list<const char*> choices);
  std::vector<int32_t> Int32Array(const char* name, size_t count_max);
  std::vector<uint32_t> Uint32Array(const char* name, size_t count_max);
  std::vector<uint8_t> Uint8Array(const char* name, size_t count_max);
  // A JS array of Uint32Array and null, which is read as an empty one.
  std::vector<std::vector<uint32_t>> Uint32Arrays(const char* name, size_t count_max, size_t each_max);
  std::vector<std::string> Strings(const char* name, size_t count_max, size_t bytes_max);
  std::vector<std::pair<std::string, std::string>> StringPairs(const char* name, size_t count_max, size_t bytes_max);
  std::vector<std::pair<int32_t, float>> NumberPairs(const char* name, size_t count_max);
  // A JS array of integers in [min, max].
  std::vector<int32_t> Ints(const char* name, size_t count_max, int32_t min, int32_t max);
  Napi::Value Object(const char* name);
  Napi::Value External(const char* name);  // a handle, of whatever kind

  void Fail(const char* code, const char* name, const std::string& what);
  const Status& status() const { return status_; }
  std::string PathOf(const char* name) const { return path_ + "." + name; }
  // Takes over the fault of a nested reader.
  void Merge(const Status& nested) {
    if (status_.ok() && !nested.ok()) status_ = nested;
  }

 private:
  Napi::Value Get(const char* name);
  bool Is(const char* name, Napi::Value value, napi_valuetype wanted, const char* what);
  int64_t Integer(const char* name, Napi::Value value, int64_t min, int64_t max);
  double Number(const char* name, Napi::Value value);
  std::string Text(const char* name, Napi::Value value, size_t bytes_max);
  template <class T>
  std::vector<T> Typed(const char* name, Napi::Value value, napi_typedarray_type wanted, const char* what, size_t count_max);
  // Calls `item(element)` up to the first fault.
  template <class F>
  void Each(const char* name, Napi::Value array, size_t count_max, F&& item);
  std::array<Napi::Value, 2> Pair(const char* name, Napi::Value array);

  std::string path_;
  Napi::Object object_;
  Status status_;
};

struct ModelRequest {
  std::string directory;
  PolicyOverrides overrides;
};
std::string ReadModelPath(Reader& reader, const char* name);
ModelRequest ReadModelRequest(Reader& reader);

struct EngineRequest {
  ModelRequest model;
  bool reference = false;
  bool kv_auto = false;  // kv by the type of the weights
  BackendOptions options;
};
EngineRequest ReadEngineRequest(Reader& reader);
RunOptions ReadRunOptions(Reader& reader);

// A typed array that takes over the vector's memory: V8 aborts the process if it cannot allocate a large ArrayBuffer itself.
template <class T>
Napi::Value Take(Napi::Env env, std::vector<T>&& values) {
  if (values.empty()) return Napi::TypedArrayOf<T>::New(env, 0);
  auto owner = std::make_unique<std::vector<T>>(std::move(values));
  const auto free = [](Napi::Env, void*, std::vector<T>* hint) { delete hint; };
  const auto buffer = Napi::ArrayBuffer::New(env, owner->data(), owner->size() * sizeof(T), free, owner.get());
  if (buffer.IsEmpty()) return buffer;
  return Napi::TypedArrayOf<T>::New(env, owner.release()->size(), buffer, 0);
}

// Sums of token counts and bytes become JS numbers: they are below 2^53.
Napi::Object ToJs(Napi::Env env, const Model& model);
Napi::Object ToJs(Napi::Env env, const RunReport& report);
Napi::Object ToJs(Napi::Env env, const MemoryUse& memory);
const char* KvName(KvType kv);

}  // namespace rum::bind
