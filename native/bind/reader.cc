// Reading side of dto.h: one field at a time.
#include <cmath>

#include "bind/dto.h"

namespace rum::bind {
namespace {

std::string NumberText(double value) {
  if (std::isnan(value)) return "NaN";
  if (value == std::floor(value) && std::fabs(value) < 1e15) return std::to_string(static_cast<int64_t>(value));
  return std::to_string(value);
}

const char* TypeName(Napi::Value value) {
  switch (value.Type()) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: return "a boolean";
    case napi_number: return "a number";
    case napi_string: return "a string";
    case napi_symbol: return "a symbol";
    case napi_object: return "an object";
    case napi_function: return "a function";
    case napi_external: return "an external";
    case napi_bigint: return "a bigint";
  }
  return "something else";
}

}  // namespace

Reader::Reader(std::string path, Napi::Value object) : path_(std::move(path)), object_(object.As<Napi::Object>()) {
  if (object.Type() != napi_object) status_ = Error(kErrInternal, path_ + " must be an object; got " + TypeName(object) + ".");
}

void Reader::Fail(const char* code, const char* name, const std::string& what) {
  if (status_.ok()) status_ = Error(code, PathOf(name) + " " + what);
}

Napi::Value Reader::Get(const char* name) {
  if (!status_.ok()) return {};
  const Napi::Value value = object_.Get(name);
  if (value.IsEmpty()) Fail(kErrInternal, name, "could not be read.");
  if (value.IsUndefined()) Fail(kErrInternal, name, "is undefined; use null for what is not specified.");
  return value;
}

bool Reader::Is(const char* name, Napi::Value value, napi_valuetype wanted, const char* what) {
  if (!status_.ok()) return false;
  if (value.Type() == wanted) return true;
  Fail(kErrInternal, name, std::string("must be ") + what + "; got " + TypeName(value) + ".");
  return false;
}

bool Reader::IsNull(const char* name) { return Get(name).IsNull(); }

bool Reader::Bool(const char* name) {
  const Napi::Value value = Get(name);
  return Is(name, value, napi_boolean, "a boolean") && value.As<Napi::Boolean>().Value();
}

int64_t Reader::Int(const char* name, int64_t min, int64_t max) { return Integer(name, Get(name), min, max); }

double Reader::Number(const char* name, Napi::Value value) {
  return Is(name, value, napi_number, "a number") ? value.As<Napi::Number>().DoubleValue() : 0;
}

int64_t Reader::Integer(const char* name, Napi::Value value, int64_t min, int64_t max) {
  const double number = Number(name, value);
  if (!status_.ok()) return min;
  // Compared as doubles before the cast: a cast of NaN or of a number out of range is undefined.
  if (!(number >= static_cast<double>(min) && number <= static_cast<double>(max)) || number != std::floor(number)) {
    Fail(kErrOption, name, "must be an integer from " + std::to_string(min) + " to " + std::to_string(max) + "; got " + NumberText(number) + ".");
    return min;
  }
  return static_cast<int64_t>(number);
}

float Reader::Float(const char* name) {
  const double number = Number(name, Get(name));
  if (!std::isfinite(number) || std::fabs(number) > 3.4e38) {
    Fail(kErrOption, name, "must be a finite number; got " + NumberText(number) + ".");
    return 0.0f;
  }
  return static_cast<float>(number);
}

uint64_t Reader::U64(const char* name) {
  const Napi::Value value = Get(name);
  if (!Is(name, value, napi_bigint, "a bigint")) return 0;
  bool lossless = false;
  const uint64_t result = value.As<Napi::BigInt>().Uint64Value(&lossless);
  if (!lossless) Fail(kErrOption, name, "must be an integer from 0 to 2^64 - 1.");
  return result;
}

std::string Reader::Text(const char* name, Napi::Value value, size_t bytes_max) {
  if (!Is(name, value, napi_string, "a string")) return {};
  size_t bytes = 0;
  napi_get_value_string_utf8(value.Env(), value, nullptr, 0, &bytes);  // node-addon-api tells the length only with a copy
  if (bytes > bytes_max) {
    Fail(kErrOption, name, "must have at most " + std::to_string(bytes_max) + " bytes; got " + std::to_string(bytes) + ".");
    return {};
  }
  return value.As<Napi::String>();
}

std::string Reader::String(const char* name, size_t bytes_max) { return Text(name, Get(name), bytes_max); }

int32_t Reader::Choice(const char* name, std::initializer_list<const char*> choices) {
  const std::string text = String(name, 64);
  if (!status_.ok()) return -1;
  int32_t index = 0;
  std::string list;
  for (const char* choice : choices) {
    if (text == choice) return index;
    list += (index++ == 0 ? "" : ", ") + std::string(choice);
  }
  Fail(kErrOption, name, "must be one of " + list + "; got \"" + text + "\".");
  return -1;
}

template <class T>
std::vector<T> Reader::Typed(const char* name, Napi::Value value, napi_typedarray_type wanted, const char* what, size_t count_max) {
  if (!status_.ok()) return {};
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != wanted) {
    Fail(kErrInternal, name, std::string("must be ") + what + "; got " + TypeName(value) + ".");
    return {};
  }
  const auto array = value.As<Napi::TypedArrayOf<T>>();
  const size_t count = array.ElementLength();
  if (count > count_max) {
    Fail(kErrOption, name, "must have at most " + std::to_string(count_max) + " elements; got " + std::to_string(count) + ".");
    return {};
  }
  return count == 0 ? std::vector<T>() : std::vector<T>(array.Data(), array.Data() + count);
}

std::vector<int32_t> Reader::Int32Array(const char* name, size_t count_max) {
  return Typed<int32_t>(name, Get(name), napi_int32_array, "an Int32Array", count_max);
}
std::vector<uint32_t> Reader::Uint32Array(const char* name, size_t count_max) {
  return Typed<uint32_t>(name, Get(name), napi_uint32_array, "a Uint32Array", count_max);
}
std::vector<uint8_t> Reader::Uint8Array(const char* name, size_t count_max) {
  return Typed<uint8_t>(name, Get(name), napi_uint8_array, "a Uint8Array", count_max);
}

template <class F>
void Reader::Each(const char* name, Napi::Value value, size_t count_max, F&& item) {
  if (!status_.ok()) return;
  if (!value.IsArray()) return Fail(kErrInternal, name, std::string("must be an array; got ") + TypeName(value) + ".");
  const auto array = value.As<Napi::Array>();
  const uint32_t length = array.Length();
  if (length > count_max) {
    return Fail(kErrOption, name, "must have at most " + std::to_string(count_max) + " elements; got " + std::to_string(length) + ".");
  }
  for (uint32_t i = 0; i < length && status_.ok(); ++i) {
    const Napi::Value element = array.Get(i);
    if (element.IsEmpty()) return Fail(kErrInternal, name, "could not be read.");
    item(element);
  }
}

std::array<Napi::Value, 2> Reader::Pair(const char* name, Napi::Value array) {
  std::array<Napi::Value, 2> pair;
  size_t count = 0;
  Each(name, array, pair.size(), [&](Napi::Value element) { pair[count++] = element; });
  if (count != pair.size()) Fail(kErrInternal, name, "must hold pairs.");
  return pair;
}

std::vector<std::vector<uint32_t>> Reader::Uint32Arrays(const char* name, size_t count_max, size_t each_max) {
  std::vector<std::vector<uint32_t>> result;
  Each(name, Get(name), count_max, [&](Napi::Value element) {
    result.push_back(element.IsNull() ? std::vector<uint32_t>() : Typed<uint32_t>(name, element, napi_uint32_array, "Uint32Arrays or null", each_max));
  });
  return result;
}

std::vector<std::string> Reader::Strings(const char* name, size_t count_max, size_t bytes_max) {
  std::vector<std::string> result;
  Each(name, Get(name), count_max, [&](Napi::Value element) { result.push_back(Text(name, element, bytes_max)); });
  return result;
}

std::vector<std::pair<std::string, std::string>> Reader::StringPairs(const char* name, size_t count_max, size_t bytes_max) {
  std::vector<std::pair<std::string, std::string>> result;
  Each(name, Get(name), count_max, [&](Napi::Value element) {
    const auto [key, value] = Pair(name, element);
    result.emplace_back(Text(name, key, bytes_max), Text(name, value, bytes_max));
  });
  return result;
}

std::vector<std::pair<int32_t, float>> Reader::NumberPairs(const char* name, size_t count_max) {
  std::vector<std::pair<int32_t, float>> result;
  Each(name, Get(name), count_max, [&](Napi::Value element) {
    const auto pair = Pair(name, element);
    const double id = Number(name, pair[0]);
    const double number = Number(name, pair[1]);
    if (!(id >= 0 && id <= INT32_MAX) || id != std::floor(id) || !(std::fabs(number) < 1e30)) {
      return Fail(kErrOption, name, "must hold pairs of a token id and a finite number.");
    }
    result.emplace_back(static_cast<int32_t>(id), static_cast<float>(number));
  });
  return result;
}

std::vector<int32_t> Reader::Ints(const char* name, size_t count_max, int32_t min, int32_t max) {
  std::vector<int32_t> result;
  Each(name, Get(name), count_max, [&](Napi::Value element) { result.push_back(static_cast<int32_t>(Integer(name, element, min, max))); });
  return result;
}

Napi::Value Reader::External(const char* name) {
  const Napi::Value value = Get(name);
  return Is(name, value, napi_external, "a handle") ? value : Napi::Value();
}

Napi::Value Reader::Object(const char* name) {
  const Napi::Value value = Get(name);
  return Is(name, value, napi_object, "an object") ? value : Napi::Value();
}

}  // namespace rum::bind
