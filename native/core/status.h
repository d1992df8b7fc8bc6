// Errors as values. Nothing in native/ throws across a function boundary; bind/ turns a Status into a JS error with its code.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace rum {

// Stable codes, the same strings as engine/core/errors.ts.
inline constexpr const char* kErrModelFile = "ERR_MODEL_FILE";        // missing, unreadable, truncated, lying or overlapping file
inline constexpr const char* kErrModelConfig = "ERR_MODEL_CONFIG";    // config.json: missing, unknown or absurd value
inline constexpr const char* kErrModelTensor = "ERR_MODEL_TENSOR";    // missing tensor, wrong shape or type
inline constexpr const char* kErrModelWeights = "ERR_MODEL_WEIGHTS";  // a weight is NaN or infinite
inline constexpr const char* kErrOption = "ERR_OPTION";               // an option is out of range
inline constexpr const char* kErrPromptTooLong = "ERR_PROMPT_TOO_LONG";
inline constexpr const char* kErrMemory = "ERR_MEMORY";               // planned or actual memory does not suffice
inline constexpr const char* kErrNumerics = "ERR_NUMERICS";           // a logit is not finite
inline constexpr const char* kErrCheckpoint = "ERR_CHECKPOINT";         // a stored object cannot be used; the message begins with a reason word
inline constexpr const char* kErrKey = "ERR_KEY";                     // a key, or the library that would use it, is missing
inline constexpr const char* kErrBusy = "ERR_BUSY";                   // the handle is in use by another call
inline constexpr const char* kErrDisposed = "ERR_DISPOSED";
inline constexpr const char* kErrCancelled = "ERR_CANCELLED";
inline constexpr const char* kErrInternal = "ERR_INTERNAL";           // a bug in the engine

// OK, or one stable code and one sentence that says what to do.
struct [[nodiscard]] Status {
  const char* code = nullptr;  // nullptr: OK
  std::string message;
  bool ok() const { return code == nullptr; }
  static Status Ok() { return {}; }
};

inline Status Error(const char* code, std::string message) { return Status{code, std::move(message)}; }

// A value or the Status that says why there is none.
template <class T>
class [[nodiscard]] Expected {
 public:
  Expected(T value) : value_(std::move(value)) {}
  Expected(Status status) : status_(std::move(status)) {}
  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& operator*() { return *value_; }
  const T& operator*() const { return *value_; }
  T* operator->() { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace rum
