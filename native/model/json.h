// Bounded JSON for untrusted files, over simdjson's DOM: depth limited, duplicate keys refused, typed reads that name the field.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#ifndef SIMDJSON_EXCEPTIONS
#define SIMDJSON_EXCEPTIONS 0  // errors are values here
#endif
#include "simdjson.h"

#include "core/status.h"

namespace rum {

// A string from a file, safe to print in an error: control characters replaced, long ones cut.
std::string Quote(std::string_view text);

// Refuses an object that has a key twice: readers disagree about which one counts, so nobody may depend on it.
Status RefuseDuplicateKeys(simdjson::dom::object object, const char* code, std::string_view where);

// One parsed JSON object and the memory its strings live in.
class JsonDocument {
 public:
  // `where` names the file in errors. Refuses anything but an object with distinct keys.
  static Expected<JsonDocument> Parse(std::string_view text, int64_t depth_max, const char* code, std::string_view where);
  simdjson::dom::object root() const { return root_; }

 private:
  JsonDocument(std::unique_ptr<simdjson::dom::parser> parser, simdjson::dom::object root);
  std::unique_ptr<simdjson::dom::parser> parser_;  // on the heap: root_ points into it
  simdjson::dom::object root_;
};

// Typed, bounded reads from one object. The first failure sticks and later reads return their fallback, so that a caller reads
// all fields in a row and looks at status() once. JSON null counts as absent: Hugging Face writes it for "not set".
// A read without a fallback is of a required field.
class FieldReader {
 public:
  FieldReader(simdjson::dom::object object, const char* code, std::string where);

  bool Has(std::string_view key) const;
  int64_t Int(std::string_view key, int64_t min, int64_t max, std::optional<int64_t> fallback = {});
  // As Int, but 512.0 is 512: for counts that tools write out of Python arithmetic, not for shapes.
  int64_t WholeNumber(std::string_view key, int64_t min, int64_t max, std::optional<int64_t> fallback = {});
  double Number(std::string_view key, double min, double max, std::optional<double> fallback = {});
  bool Bool(std::string_view key, bool fallback);
  std::string String(std::string_view key, std::optional<std::string> fallback = {});
  // nullopt: absent. The object's own keys are checked for duplicates.
  std::optional<simdjson::dom::object> Object(std::string_view key);
  // An array, or a single value as an array of one (eos_token_id is written both ways).
  std::vector<simdjson::dom::element> List(std::string_view key, int64_t count_max);

  void Fail(std::string_view key, const std::string& problem);
  // The failure of a reader of a part of this object becomes this one's.
  void Adopt(const FieldReader& part) {
    if (status_.ok()) status_ = part.status_;
  }
  const Status& status() const { return status_; }
  const std::string& where() const { return where_; }

 private:
  std::optional<simdjson::dom::element> Get(std::string_view key) const;
  std::optional<simdjson::dom::element> GetOrFail(std::string_view key, bool required);

  simdjson::dom::object object_;
  const char* code_;
  std::string where_;  // "config.json" or "config.json: rope_parameters"
  Status status_;
};

}  // namespace rum
