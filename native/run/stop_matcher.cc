#include "run/stop_matcher.h"

#include <algorithm>

namespace rum {
namespace {

// The longest prefix of `bytes` that the text ends with after `byte`, if it was `matched` before.
int32_t Advance(const std::string& bytes, const std::vector<int32_t>& border, int32_t matched, char byte) {
  while (matched > 0 && (static_cast<size_t>(matched) == bytes.size() || bytes[static_cast<size_t>(matched)] != byte)) {
    matched = border[static_cast<size_t>(matched)];
  }
  return bytes[static_cast<size_t>(matched)] == byte ? matched + 1 : matched;
}

}  // namespace

Expected<StopMatcher> StopMatcher::Make(const std::vector<std::string>& strings) {
  if (strings.size() > kStopStringsMax) return Error(kErrOption, "stop must have at most 16 strings");
  StopMatcher matcher;
  for (const std::string& bytes : strings) {
    if (bytes.empty() || bytes.size() > kStopStringBytesMax) return Error(kErrOption, "a stop string must have 1 to 256 bytes");
    std::vector<int32_t> border(bytes.size() + 1, 0);
    for (size_t i = 1; i < bytes.size(); ++i) border[i + 1] = Advance(bytes, border, border[i], bytes[i]);
    matcher.strings_.push_back({bytes, std::move(border)});
  }
  return matcher;
}

int64_t StopMatcher::Append(std::string_view piece, StopState& state) const {
  int64_t first = -1;
  for (const char byte : piece) {
    ++state.text_bytes;
    for (size_t i = 0; i < strings_.size(); ++i) {
      const Pattern& pattern = strings_[i];
      state.matched[i] = Advance(pattern.bytes, pattern.border, state.matched[i], byte);
      if (static_cast<size_t>(state.matched[i]) < pattern.bytes.size()) continue;
      const int64_t start = state.text_bytes - static_cast<int64_t>(pattern.bytes.size());
      first = first < 0 ? start : std::min(first, start);
    }
  }
  return first;
}

}  // namespace rum
