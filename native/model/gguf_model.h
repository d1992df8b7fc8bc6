// A model in one GGUF file.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "core/status.h"
#include "model/weights.h"

namespace rum {

// The GGUF file that a path names: a file called *.gguf, or the only such file of a directory that has neither config.json nor
// model.safetensors. nullopt: a Hugging Face directory, or nothing. ERR_MODEL_FILE if the directory has several.
Expected<std::optional<std::string>> FindGguf(const std::string& path);

// Tensors are views into the file, except q_proj and k_proj of a Llama: converters store the rows of each head interleaved, so these
// are copies in our order.
Expected<std::shared_ptr<Model>> OpenGguf(const std::string& file_path, const PolicyOverrides& overrides);

}  // namespace rum
