// The configuration of a model from the metadata and tensor shapes of its GGUF file.
#pragma once
#include <span>
#include <string>

#include "core/status.h"
#include "model/config.h"
#include "model/gguf.h"

namespace rum {

// Llama, Qwen2 and Qwen3. `file` is what `header` was parsed from: the RoPE divisors are a tensor. Every number is bounded
// (limits.h); an unknown architecture, rope type or feature that would change the computation is named in the error.
Expected<ModelConfig> ParseGgufConfig(std::span<const uint8_t> file, const GgufHeader& header, const std::string& where,
                                      const PolicyOverrides& overrides);

}  // namespace rum
