#include "model/json.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/limits.h"

namespace rum {

namespace dom = simdjson::dom;

std::string Quote(std::string_view text) {
  constexpr size_t kShownBytes = 80;
  std::string out = "\"";
  for (char c : text.substr(0, kShownBytes)) out += (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) ? '?' : c;
  return out + (text.size() > kShownBytes ? "...\"" : "\"");
}

Status RefuseDuplicateKeys(dom::object object, const char* code, std::string_view where) {
  std::vector<std::string_view> keys;
  for (dom::key_value_pair field : object) keys.push_back(field.key);
  std::sort(keys.begin(), keys.end());
  auto twice = std::adjacent_find(keys.begin(), keys.end());
  if (twice == keys.end()) return Status::Ok();
  return Error(code, std::string(where) + ": key " + Quote(*twice) + " appears twice");
}

JsonDocument::JsonDocument(std::unique_ptr<dom::parser> parser, dom::object root) : parser_(std::move(parser)), root_(root) {}

Expected<JsonDocument> JsonDocument::Parse(std::string_view text, int64_t depth_max, const char* code, std::string_view where) {
  auto refuse = [&](simdjson::error_code error) {
    return Error(code, std::string(where) + ": not valid JSON: " + simdjson::error_message(error));
  };
  if (text.empty()) return refuse(simdjson::EMPTY);
  auto parser = std::make_unique<dom::parser>();
  // The depth is a property of the allocation, so allocate before parse() does it with the default of 1024.
  if (auto error = parser->allocate(text.size(), static_cast<size_t>(depth_max))) return refuse(error);
  dom::element root;
  if (auto error = parser->parse(text.data(), text.size()).get(root)) return refuse(error);
  dom::object object;
  if (root.get_object().get(object)) return Error(code, std::string(where) + ": expected a JSON object");
  if (Status status = RefuseDuplicateKeys(object, code, where); !status.ok()) return status;
  return JsonDocument(std::move(parser), object);
}

FieldReader::FieldReader(dom::object object, const char* code, std::string where)
    : object_(object), code_(code), where_(std::move(where)) {}

std::optional<dom::element> FieldReader::Get(std::string_view key) const {
  dom::element value;
  if (object_.at_key(key).get(value) || value.is_null()) return std::nullopt;
  return value;
}

std::optional<dom::element> FieldReader::GetOrFail(std::string_view key, bool required) {
  if (!status_.ok()) return std::nullopt;
  auto value = Get(key);
  if (!value && required) Fail(key, "is missing");
  return value;
}

bool FieldReader::Has(std::string_view key) const { return Get(key).has_value(); }

void FieldReader::Fail(std::string_view key, const std::string& problem) {
  if (status_.ok()) status_ = Error(code_, where_ + ": " + std::string(key) + " " + problem);
}

int64_t FieldReader::Int(std::string_view key, int64_t min, int64_t max, std::optional<int64_t> fallback) {
  auto value = GetOrFail(key, !fallback);
  if (!value) return fallback.value_or(min);
  int64_t number = 0;
  if (!value->get_int64().get(number) && number >= min && number <= max) return number;
  Fail(key, "must be a whole number from " + std::to_string(min) + " to " + std::to_string(max) + ", found " +
                Quote(simdjson::minify(*value)));
  return fallback.value_or(min);
}

int64_t FieldReader::WholeNumber(std::string_view key, int64_t min, int64_t max, std::optional<int64_t> fallback) {
  double number = 0;
  auto value = Get(key);
  if (status_.ok() && value && value->is_double() && !value->get_double().get(number) && number == std::trunc(number) &&
      number >= static_cast<double>(min) && number <= static_cast<double>(max)) {
    return static_cast<int64_t>(number);
  }
  return Int(key, min, max, fallback);
}

double FieldReader::Number(std::string_view key, double min, double max, std::optional<double> fallback) {
  auto value = GetOrFail(key, !fallback);
  if (!value) return fallback.value_or(min);
  double number = 0;
  if (value->is_number() && !value->get_double().get(number) && number >= min && number <= max) return number;
  char range[96];
  std::snprintf(range, sizeof(range), "must be a number from %g to %g, found ", min, max);
  Fail(key, range + Quote(simdjson::minify(*value)));
  return fallback.value_or(min);
}

bool FieldReader::Bool(std::string_view key, bool fallback) {
  auto value = GetOrFail(key, false);
  bool flag = fallback;
  if (value && value->get_bool().get(flag)) Fail(key, "must be true or false, found " + Quote(simdjson::minify(*value)));
  return flag;
}

std::string FieldReader::String(std::string_view key, std::optional<std::string> fallback) {
  auto value = GetOrFail(key, !fallback);
  if (!value) return fallback.value_or("");
  std::string_view text;
  if (!value->get_string().get(text) && text.size() <= static_cast<size_t>(kConfigStringBytesMax)) return std::string(text);
  Fail(key, "must be a string of at most " + std::to_string(kConfigStringBytesMax) + " bytes, found " +
                Quote(simdjson::minify(*value)));
  return "";
}

std::optional<dom::object> FieldReader::Object(std::string_view key) {
  auto value = GetOrFail(key, false);
  if (!value) return std::nullopt;
  dom::object object;
  if (value->get_object().get(object)) {
    Fail(key, "must be an object, found " + Quote(simdjson::minify(*value)));
    return std::nullopt;
  }
  Status status = RefuseDuplicateKeys(object, code_, where_ + ": " + std::string(key));
  if (!status.ok()) {
    status_ = status;
    return std::nullopt;
  }
  return object;
}

std::vector<dom::element> FieldReader::List(std::string_view key, int64_t count_max) {
  auto value = GetOrFail(key, false);
  if (!value) return {};
  dom::array array;
  if (value->get_array().get(array)) return {*value};
  std::vector<dom::element> items;
  for (dom::element item : array) {
    if (static_cast<int64_t>(items.size()) == count_max) {
      Fail(key, "must have at most " + std::to_string(count_max) + " items");
      return {};
    }
    items.push_back(item);
  }
  return items;
}

}  // namespace rum
