// Any bytes as the config.json of a KVzap surrogate; its tensors are read by the parser of safetensors_fuzz.
#include <cstdint>
#include <string_view>

#include "model/kvzap.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto config = rum::ParseKvzapConfig({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (config.ok() && ((*config).modules <= 0 || (*config).input_dim <= 0 || (*config).output_dim <= 0 || (*config).hidden_dim < 0)) __builtin_trap();
  return 0;
}
