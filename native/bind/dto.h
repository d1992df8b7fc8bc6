// Plain structs from JS objects and back. Everything read is typed and bounded; the first fault is kept with the path of its field,
// e.g. "createRun.options.width". `null` means unspecified; `undefined` is a bug in the caller and is refused.
// JS thread only.
#pragma once
#include <node_api.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "core/status.h"
#include "model/weights.h"
#include "run/run.h"

namespace rum::bind {

// Reads the fields of one object. After the first fault every read returns a default and `status()` says what was wrong, so
// callers read straight on and check once. A getter of the object may run any JS: read everything before looking at handles.
class Reader {
 public:
  Reader(napi_env env, std::string path, napi_value object);
  Reader(Reader&&) = delete;

  bool IsNull(const char* name);
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
  std::vector<char> Uint8Array(const char* name, size_t count_max);
  std::vector<std::string> Strings(const char* name, size_t count_max, size_t bytes_max);
  std::vector<std::pair<std::string, std::string>> StringPairs(const char* name, size_t count_max, size_t bytes_max);
  std::vector<std::pair<int32_t, float>> NumberPairs(const char* name, size_t count_max);
  // A JS array of integers in [min, max].
  std::vector<int32_t> Ints(const char* name, size_t count_max, int32_t min, int32_t max);
  napi_value Object(const char* name);

  void Fail(const char* code, const char* name, const std::string& what);
  const Status& status() const { return status_; }
  std::string PathOf(const char* name) const { return path_ + "." + name; }
  // Takes over the fault of a nested reader.
  void Merge(const Status& nested) {
    if (status_.ok() && !nested.ok()) status_ = nested;
  }

 private:
  napi_value Get(const char* name);
  bool GetType(const char* name, napi_value value, napi_valuetype wanted, const char* what);
  int64_t Integer(const char* name, napi_value value, int64_t min, int64_t max);
  std::string Text(const char* name, napi_value value, size_t bytes_max);
  uint32_t ArrayLength(const char* name, napi_value array, size_t count_max);
  napi_value Element(const char* name, napi_value array, uint32_t index);
  template <class T>
  std::vector<T> Typed(const char* name, napi_typedarray_type type, const char* what, size_t count_max);

  napi_env env_;
  std::string path_;
  napi_value object_;
  Status status_;
};

struct ModelRequest {
  std::string directory;
  PolicyOverrides overrides;
};
ModelRequest ReadModelRequest(Reader& reader);

struct EngineRequest {
  ModelRequest model;
  bool reference = false;
  bool kv_auto = false;  // kv by the type of the weights
  BackendOptions options;
};
EngineRequest ReadEngineRequest(Reader& reader);
RunOptions ReadRunOptions(napi_env env, Reader& reader);

// Builds one object. Failures (an environment that is shutting down) leave fields out and never abort.
class Writer {
 public:
  explicit Writer(napi_env env) : env_(env) { napi_create_object(env, &object_); }
  void Set(const char* name, napi_value value) {
    if (value != nullptr) napi_set_named_property(env_, object_, name, value);
  }
  void Int(const char* name, int64_t value);  // below 2^53: sums of token counts and bytes
  void Double(const char* name, double value);
  void Bool(const char* name, bool value);
  void String(const char* name, const std::string& value);
  void Null(const char* name);
  napi_value object() const { return object_; }

 private:
  napi_env env_;
  napi_value object_ = nullptr;
};

// Typed arrays that take over the vector's memory: V8 aborts the process if it cannot allocate a large ArrayBuffer itself.
napi_value TakeInt32s(napi_env env, std::vector<int32_t>&& values);
napi_value TakeFloats(napi_env env, std::vector<float>&& values);
napi_value TakeBytes(napi_env env, std::vector<uint8_t>&& values);

napi_value ToJs(napi_env env, const Model& model);
napi_value ToJs(napi_env env, const RunReport& report);
napi_value ToJs(napi_env env, const MemoryUse& memory);
const char* KvName(KvType kv);

}  // namespace rum::bind
