// Stop strings found in a chain's text as its tokens arrive, across token borders (Knuth-Morris-Pratt, one state per string).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"

namespace rum {

inline constexpr size_t kStopStringsMax = 16;      // each costs a step per byte of text
inline constexpr size_t kStopStringBytesMax = 256;

// How far one chain's text has come. Made by StopMatcher::NewState.
struct StopState {
  std::vector<int32_t> matched;  // [strings] length of the longest prefix that the text ends with
  int64_t text_bytes = 0;
};

// Immutable and thread-safe: one for all chains of a run.
class StopMatcher {
 public:
  // ERR_OPTION: more than 16 strings, an empty one or one above 256 bytes.
  static Expected<StopMatcher> Make(const std::vector<std::string>& strings);

  StopState NewState() const { return StopState{std::vector<int32_t>(strings_.size(), 0), 0}; }
  // Appends one token's bytes. Returns the length of the text before the first match that is now complete, or -1: none.
  // Of several matches completed by the same token the one that starts first counts.
  int64_t Append(std::string_view piece, StopState& state) const;
  bool empty() const { return strings_.empty(); }

 private:
  struct Pattern {
    std::string bytes;
    std::vector<int32_t> border;  // [bytes + 1] longest proper prefix that is a suffix too, of the first i bytes
  };
  std::vector<Pattern> strings_;
};

}  // namespace rum
