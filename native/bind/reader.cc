// Reading side of dto.h: one field at a time.
#include <cmath>
#include <cstring>

#include "bind/dto.h"

namespace rum::bind {
namespace {

std::string NumberText(double value) {
  if (std::isnan(value)) return "NaN";
  if (value == std::floor(value) && std::fabs(value) < 1e15) return std::to_string(static_cast<int64_t>(value));
  return std::to_string(value);
}

const char* TypeName(napi_env env, napi_value value) {
  napi_valuetype type = napi_undefined;
  if (value == nullptr || napi_typeof(env, value, &type) != napi_ok) return "nothing";
  switch (type) {
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

bool IsType(napi_env env, napi_value value, napi_valuetype wanted) {
  napi_valuetype type = napi_undefined;
  return value != nullptr && napi_typeof(env, value, &type) == napi_ok && type == wanted;
}

}  // namespace

Reader::Reader(napi_env env, std::string path, napi_value object) : env_(env), path_(std::move(path)), object_(object) {
  if (!IsType(env, object, napi_object)) {
    status_ = Error(kErrInternal, path_ + " must be an object; got " + TypeName(env, object) + ".");
  }
}

void Reader::Fail(const char* code, const char* name, const std::string& what) {
  if (status_.ok()) status_ = Error(code, PathOf(name) + " " + what);
}

napi_value Reader::Get(const char* name) {
  if (!status_.ok()) return nullptr;
  napi_value value = nullptr;
  if (napi_get_named_property(env_, object_, name, &value) != napi_ok) {
    Fail(kErrInternal, name, "could not be read.");
    return nullptr;
  }
  if (IsType(env_, value, napi_undefined)) {
    Fail(kErrInternal, name, "is undefined; use null for what is not specified.");
    return nullptr;
  }
  return value;
}

bool Reader::GetType(const char* name, napi_value value, napi_valuetype wanted, const char* what) {
  if (!status_.ok()) return false;
  if (IsType(env_, value, wanted)) return true;
  Fail(kErrInternal, name, std::string("must be ") + what + "; got " + TypeName(env_, value) + ".");
  return false;
}

bool Reader::IsNull(const char* name) { return IsType(env_, Get(name), napi_null); }

int64_t Reader::Int(const char* name, int64_t min, int64_t max) { return Integer(name, Get(name), min, max); }

int64_t Reader::Integer(const char* name, napi_value value, int64_t min, int64_t max) {
  if (!GetType(name, value, napi_number, "a number")) return min;
  double number = 0;
  napi_get_value_double(env_, value, &number);
  // Compared as doubles before the cast: a cast of NaN or of a number out of range is undefined.
  if (!(number >= static_cast<double>(min) && number <= static_cast<double>(max)) || number != std::floor(number)) {
    Fail(kErrOption, name, "must be an integer from " + std::to_string(min) + " to " + std::to_string(max) + "; got " + NumberText(number) + ".");
    return min;
  }
  return static_cast<int64_t>(number);
}

float Reader::Float(const char* name) {
  const napi_value value = Get(name);
  if (!GetType(name, value, napi_number, "a number")) return 0.0f;
  double number = 0;
  napi_get_value_double(env_, value, &number);
  if (!std::isfinite(number) || std::fabs(number) > 3.4e38) {
    Fail(kErrOption, name, "must be a finite number; got " + NumberText(number) + ".");
    return 0.0f;
  }
  return static_cast<float>(number);
}

uint64_t Reader::U64(const char* name) {
  const napi_value value = Get(name);
  if (!GetType(name, value, napi_bigint, "a bigint")) return 0;
  uint64_t result = 0;
  bool lossless = false;
  if (napi_get_value_bigint_uint64(env_, value, &result, &lossless) != napi_ok || !lossless) {
    Fail(kErrOption, name, "must be an integer from 0 to 2^64 - 1.");
  }
  return result;
}

std::string Reader::Text(const char* name, napi_value value, size_t bytes_max) {
  if (!GetType(name, value, napi_string, "a string")) return {};
  size_t bytes = 0;
  napi_get_value_string_utf8(env_, value, nullptr, 0, &bytes);
  if (bytes > bytes_max) {
    Fail(kErrOption, name, "must have at most " + std::to_string(bytes_max) + " bytes; got " + std::to_string(bytes) + ".");
    return {};
  }
  std::string text(bytes + 1, '\0');
  napi_get_value_string_utf8(env_, value, text.data(), text.size(), &bytes);
  text.resize(bytes);
  return text;
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
std::vector<T> Reader::Typed(const char* name, napi_typedarray_type wanted, const char* what, size_t count_max) {
  const napi_value value = Get(name);
  if (!status_.ok()) return {};
  bool is_typed = false;
  napi_typedarray_type type = napi_int8_array;
  size_t count = 0;
  void* data = nullptr;
  if (napi_is_typedarray(env_, value, &is_typed) != napi_ok || !is_typed ||
      napi_get_typedarray_info(env_, value, &type, &count, &data, nullptr, nullptr) != napi_ok || type != wanted) {
    Fail(kErrInternal, name, std::string("must be ") + what + "; got " + TypeName(env_, value) + ".");
    return {};
  }
  if (count > count_max) {
    Fail(kErrOption, name, "must have at most " + std::to_string(count_max) + " elements; got " + std::to_string(count) + ".");
    return {};
  }
  std::vector<T> result(count);
  if (count > 0 && data != nullptr) std::memcpy(result.data(), data, count * sizeof(T));
  return result;
}

std::vector<int32_t> Reader::Int32Array(const char* name, size_t count_max) {
  return Typed<int32_t>(name, napi_int32_array, "an Int32Array", count_max);
}
std::vector<uint32_t> Reader::Uint32Array(const char* name, size_t count_max) {
  return Typed<uint32_t>(name, napi_uint32_array, "a Uint32Array", count_max);
}
std::vector<char> Reader::Uint8Array(const char* name, size_t count_max) {
  return Typed<char>(name, napi_uint8_array, "a Uint8Array", count_max);
}

uint32_t Reader::ArrayLength(const char* name, napi_value array, size_t count_max) {
  if (!status_.ok()) return 0;
  bool is_array = false;
  uint32_t length = 0;
  if (napi_is_array(env_, array, &is_array) != napi_ok || !is_array || napi_get_array_length(env_, array, &length) != napi_ok) {
    Fail(kErrInternal, name, std::string("must be an array; got ") + TypeName(env_, array) + ".");
    return 0;
  }
  if (length > count_max) {
    Fail(kErrOption, name, "must have at most " + std::to_string(count_max) + " elements; got " + std::to_string(length) + ".");
    return 0;
  }
  return length;
}

napi_value Reader::Element(const char* name, napi_value array, uint32_t index) {
  napi_value value = nullptr;
  if (status_.ok() && napi_get_element(env_, array, index, &value) != napi_ok) Fail(kErrInternal, name, "could not be read.");
  return value;
}

std::vector<std::string> Reader::Strings(const char* name, size_t count_max, size_t bytes_max) {
  const napi_value array = Get(name);
  const uint32_t length = ArrayLength(name, array, count_max);
  std::vector<std::string> result;
  for (uint32_t i = 0; i < length && status_.ok(); ++i) result.push_back(Text(name, Element(name, array, i), bytes_max));
  return result;
}

std::vector<std::pair<std::string, std::string>> Reader::StringPairs(const char* name, size_t count_max, size_t bytes_max) {
  const napi_value array = Get(name);
  const uint32_t length = ArrayLength(name, array, count_max);
  std::vector<std::pair<std::string, std::string>> result;
  for (uint32_t i = 0; i < length && status_.ok(); ++i) {
    const napi_value pair = Element(name, array, i);
    if (ArrayLength(name, pair, 2) != 2) Fail(kErrInternal, name, "must hold pairs.");
    std::string key = Text(name, Element(name, pair, 0), bytes_max);
    std::string value = Text(name, Element(name, pair, 1), bytes_max);
    result.emplace_back(std::move(key), std::move(value));
  }
  return result;
}

std::vector<std::pair<int32_t, float>> Reader::NumberPairs(const char* name, size_t count_max) {
  const napi_value array = Get(name);
  const uint32_t length = ArrayLength(name, array, count_max);
  std::vector<std::pair<int32_t, float>> result;
  for (uint32_t i = 0; i < length && status_.ok(); ++i) {
    const napi_value pair = Element(name, array, i);
    if (ArrayLength(name, pair, 2) != 2) Fail(kErrInternal, name, "must hold pairs.");
    double numbers[2] = {0, 0};
    for (uint32_t j = 0; j < 2; ++j) {
      const napi_value value = Element(name, pair, j);
      if (GetType(name, value, napi_number, "a number")) napi_get_value_double(env_, value, &numbers[j]);
    }
    if (!(numbers[0] >= 0 && numbers[0] <= INT32_MAX) || numbers[0] != std::floor(numbers[0]) || !(std::fabs(numbers[1]) < 1e30)) {
      Fail(kErrOption, name, "must hold pairs of a token id and a finite number.");
      break;
    }
    result.emplace_back(static_cast<int32_t>(numbers[0]), static_cast<float>(numbers[1]));
  }
  return result;
}

std::vector<int32_t> Reader::Ints(const char* name, size_t count_max, int32_t min, int32_t max) {
  const napi_value array = Get(name);
  const uint32_t length = ArrayLength(name, array, count_max);
  std::vector<int32_t> result;
  for (uint32_t i = 0; i < length && status_.ok(); ++i) result.push_back(static_cast<int32_t>(Integer(name, Element(name, array, i), min, max)));
  return result;
}

napi_value Reader::Object(const char* name) {
  const napi_value value = Get(name);
  return GetType(name, value, napi_object, "an object") ? value : nullptr;
}

}  // namespace rum::bind
