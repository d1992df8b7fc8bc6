// Any bytes as config.json and what stands beside it: texts separated by NUL, then overrides "key=value".
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/limits.h"
#include "model/config.h"
#include "model/rope.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace rum;
  std::vector<std::string_view> parts;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  while (parts.size() < 12) {
    const size_t end = rest.find('\0');
    parts.push_back(rest.substr(0, end));
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  PolicyOverrides overrides;
  for (size_t i = 4; i < parts.size(); ++i) {
    const size_t equals = parts[i].find('=');
    if (equals == std::string_view::npos) continue;
    overrides.emplace_back(parts[i].substr(0, equals), parts[i].substr(equals + 1));
  }
  parts.resize(4);
  const auto config = ParseConfig({parts[0], parts[1], parts[2], parts[3]}, overrides);
  if (config.ok()) {
    for (const float f : RopeFrequencies((*config).rope, (*config).head_dim)) {
      if (!(f >= 0.0f && f <= 1.0f)) __builtin_trap();  // an accepted config gives usable frequencies
    }
  }
  return 0;
}
