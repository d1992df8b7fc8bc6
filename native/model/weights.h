// The tensors of a model as views into mapped files. Nothing is copied here but what GGUF stores in another order: a backend packs
// what it needs.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/status.h"
#include "model/config.h"

namespace rum {

// Plain types first; the rest are block formats whose values model/quant.h defines.
enum class DType : int32_t { kF32, kF16, kBF16, kNf4, kQ8_0, kQ4_0, kQ4_1, kQ4_K, kQ6_K };
constexpr size_t kDTypeCount = 9;
constexpr bool IsPlain(DType t) { return t <= DType::kBF16; }
constexpr int32_t ElementBytes(DType t) { return t == DType::kF32 ? 4 : 2; }  // of a plain type

struct Nf4Scales;  // model/quant.h

// A row-major matrix [rows, cols] (a vector has rows == 1) inside a mapped file. data == nullptr: the model has no such tensor.
// Block formats: data holds the file's own blocks (GGUF: rows of whole blocks; NF4: packed codes of the flattened matrix).
struct TensorView {
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  const void* data = nullptr;  // may be unaligned: safetensors only promises byte offsets
  const Nf4Scales* nf4 = nullptr;  // kNf4 only
  explicit operator bool() const { return data != nullptr; }
};

struct LayerWeights {
  TensorView input_norm;      // [hidden]
  TensorView q_proj;          // [num_heads * head_dim, hidden]
  TensorView k_proj, v_proj;  // [num_kv_heads * head_dim, hidden]
  TensorView q_bias;          // [num_heads * head_dim], if qkv_bias
  TensorView k_bias, v_bias;  // [num_kv_heads * head_dim], if qkv_bias
  TensorView q_norm, k_norm;  // [head_dim], if qk_norm
  TensorView o_proj;          // [hidden, num_heads * head_dim]
  TensorView o_bias;          // [hidden], if o_bias
  TensorView post_norm;       // [hidden]
  TensorView gate_proj, up_proj;  // [intermediate, hidden]
  TensorView down_proj;       // [hidden, intermediate]
  TensorView alpha_proj;      // [num_kv_heads, hidden], DMS separate only
  TensorView alpha_bias;      // [num_kv_heads], DMS separate only, if alpha_bias
  TensorView alpha_norm;      // [hidden], DMS separate only
};

// One module of a KVzap surrogate: scores = out x + out_bias, or out GELU(in x + in_bias) + out_bias. x: the input of self_attn.
struct KvzapLayer {
  TensorView in;        // [width, hidden], mlp only
  TensorView in_bias;   // [width], mlp only
  TensorView out;       // [num_kv_heads, width], or of a linear one [num_kv_heads, hidden]
  TensorView out_bias;  // [num_kv_heads]
};

class MappedFile;  // safetensors.h

// An opened, fully checked model: every tensor present, of the right shape and finite. Immutable and thread-safe.
// The files stay mapped as long as the Model lives.
struct Model {
  ModelConfig config;
  TensorView embed;       // [vocab, hidden]
  TensorView final_norm;  // [hidden]
  TensorView lm_head;     // [vocab, hidden]; equals embed when tied
  std::vector<LayerWeights> layers;
  std::vector<KvzapLayer> kvzap;  // [layers], KVzap only: from the directory of the surrogate
  int64_t parameter_count = 0;
  int64_t file_bytes = 0;
  DType dtype = DType::kF32;  // of the projections (the most common one)
  std::array<int64_t, kDTypeCount> format_bytes{};  // [DType] of the tensors above, as their files' formats store them (FormatBytes)
  std::vector<std::shared_ptr<const MappedFile>> files;
  std::vector<std::shared_ptr<const Nf4Scales>> nf4_scales;  // what the views' nf4 point to
  std::vector<std::vector<uint8_t>> reordered;  // what views of tensors with another order of rows than their file's point to
};

// Opens a GGUF file or a directory whose only model it is (gguf_model.h), or a Hugging Face directory: config.json,
// generation_config.json, dms_metadata.json and ../training_log.json (each but the first optional), model.safetensors or
// model.safetensors.index.json with its shards; under KVzap the surrogate's directory too. Refuses before allocating anything that depends on the contents.
Expected<std::shared_ptr<const Model>> OpenModel(const std::string& path, const PolicyOverrides& overrides);

}  // namespace rum
