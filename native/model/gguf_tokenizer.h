// What a GGUF file says of its tokenizer and chat template. engine/model/gguf.ts makes a tokenizer of it.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"
#include "model/safetensors.h"

namespace rum {

// Strings are valid UTF-8; views are into the file.
struct GgufTokenizer {
  std::string model;                          // "gpt2": byte-level BPE; "llama": SentencePiece BPE
  std::optional<std::string> pre;             // name of the rule that splits a text into words
  std::vector<std::string_view> tokens;       // [vocab]
  std::vector<int32_t> types;                 // [vocab]: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
  std::vector<float> scores;                  // [vocab] or empty
  std::vector<std::string_view> merges;       // "left right", most important first; or empty
  int32_t bos_id = -1, eos_id = -1, unk_id = -1;  // -1: not stated
  std::optional<bool> add_bos, add_eos, add_space_prefix;
  std::optional<std::string> chat_template;
  std::shared_ptr<const MappedFile> file;
};

// nullopt: the path names no GGUF file (gguf_model.h's FindGguf).
Expected<std::optional<GgufTokenizer>> ReadGgufTokenizer(const std::string& path);

}  // namespace rum
