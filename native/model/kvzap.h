// KVzap's surrogate (METHOD.md 2.1): a directory beside the model's own, config.json and model.safetensors, with one module for each
// layer that scores what a token is worth to each KV head.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "core/status.h"
#include "model/weights.h"

namespace rum {

// What the surrogate's config.json says.
struct KvzapConfig {
  int32_t input_dim = 0;   // hidden size of the model it was made for
  int32_t output_dim = 0;  // KV heads
  int32_t hidden_dim = 0;  // width of the mlp; 0: linear
  int32_t modules = 0;     // layers
};

// Every number is bounded (limits.h). `where` names the file in errors.
Expected<KvzapConfig> ParseKvzapConfig(std::string_view text, const std::string& where);

// Opens what model->config.policy.surrogate names into model->kvzap and model->files. Refuses a surrogate made for another model, a
// missing or misshapen tensor, and weights that are not finite, with the codes of OpenModel.
Status OpenKvzap(Model* model);

}  // namespace rum
