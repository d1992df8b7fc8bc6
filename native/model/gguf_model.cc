#include "model/gguf_model.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "core/limits.h"
#include "model/assemble.h"
#include "model/gguf.h"
#include "model/gguf_config.h"
#include "model/json.h"
#include "model/quant.h"

namespace rum {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kExtension = ".gguf";

// Hugging Face's names without the layer's "model.layers.N.", and GGUF's without "blk.N.".
constexpr std::pair<std::string_view, std::string_view> kLayerNames[] = {
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.o_proj", "attn_output"},
    {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};
constexpr std::pair<std::string_view, std::string_view> kTopNames[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
};
constexpr std::string_view kLayerPrefix = "model.layers.";

constexpr std::pair<std::string_view, DType> kDTypes[] = {
    {"F32", DType::kF32},   {"F16", DType::kF16},   {"BF16", DType::kBF16}, {"Q8_0", DType::kQ8_0},
    {"Q4_0", DType::kQ4_0}, {"Q4_1", DType::kQ4_1}, {"Q4_K", DType::kQ4_K}, {"Q6_K", DType::kQ6_K},
};

// "" for a tensor that GGUF files do not have: DMS's alpha projections.
std::string GgufName(std::string_view name) {
  for (const auto& [theirs, ours] : kTopNames) {
    if (theirs == name) return std::string(ours);
  }
  if (!name.starts_with(kLayerPrefix)) return "";
  name.remove_prefix(kLayerPrefix.size());
  const size_t layer_end = name.find('.'), kind_begin = name.rfind('.');
  const std::string_view stem = name.substr(layer_end + 1, kind_begin - layer_end - 1);
  for (const auto& [theirs, ours] : kLayerNames) {
    if (theirs == stem) return "blk." + std::string(name.substr(0, layer_end)) + "." + std::string(ours) + std::string(name.substr(kind_begin));
  }
  return "";
}

class GgufSource final : public TensorSource {
 public:
  // head_dim 0: rows are stored in our order.
  GgufSource(std::span<const uint8_t> file, const GgufHeader& header, int64_t interleaved_head_dim)
      : file_(file), header_(header), interleaved_head_dim_(interleaved_head_dim) {}

  bool Has(const std::string& name) const override { return header_.FindTensor(GgufName(name)) != nullptr; }

  Expected<TensorView> Find(const std::string& name, const std::vector<int64_t>& shape, Model* model) const override {
    const std::string gguf_name = GgufName(name);
    if (gguf_name.empty()) return Error(kErrModelTensor, "a GGUF file has no place for the tensor " + name);
    const auto refuse = [&](const std::string& problem) { return Error(kErrModelTensor, "tensor " + gguf_name + " " + problem); };
    const TensorEntry* entry = header_.FindTensor(gguf_name);
    if (!entry) return refuse("is missing; the metadata and the tensors do not belong together");
    const auto dtype = std::ranges::find(kDTypes, entry->dtype, [](const auto& pair) { return pair.first; });
    if (dtype == std::end(kDTypes)) {
      return refuse("has type " + Quote(entry->dtype) + "; supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K");
    }
    if (entry->shape != shape) return refuse("must have shape " + ShapeText(shape) + " by the metadata, found " + ShapeText(entry->shape));
    const TensorView view{dtype->second, shape.size() == 1 ? 1 : shape[0], shape.back(), file_.data() + entry->begin};
    const bool rotated = name.find(".q_proj.") != std::string::npos || name.find(".k_proj.") != std::string::npos;
    if (!rotated || interleaved_head_dim_ == 0) return view;
    if (shape.size() == 1 && !IsPlain(view.dtype)) return refuse("is a vector of a block format, which is not supported");
    return Reorder(view, shape[0], model);
  }

 private:
  // Of each head, row 2 i + a is the one that belongs at a * head_dim / 2 + i. A bias has its elements in the order of the rows.
  TensorView Reorder(TensorView view, int64_t rows, Model* model) const {
    const int64_t half = interleaved_head_dim_ / 2;
    const auto row_bytes = static_cast<size_t>(FormatBytes(view) / rows);
    std::vector<uint8_t>& copy = model->reordered.emplace_back(static_cast<size_t>(rows) * row_bytes);
    const auto* from = static_cast<const uint8_t*>(view.data);
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t head = row / interleaved_head_dim_, at = row % interleaved_head_dim_;
      const int64_t stored = head * interleaved_head_dim_ + 2 * (at % half) + at / half;
      std::memcpy(copy.data() + static_cast<size_t>(row) * row_bytes, from + static_cast<size_t>(stored) * row_bytes, row_bytes);
    }
    view.data = copy.data();
    return view;
  }

  std::span<const uint8_t> file_;
  const GgufHeader& header_;
  int64_t interleaved_head_dim_;
};

}  // namespace

Expected<std::optional<std::string>> FindGguf(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return path.ends_with(kExtension) ? std::optional(path) : std::nullopt;
  for (const char* name : {"/config.json", "/model.safetensors", "/model.safetensors.index.json"}) {
    if (fs::exists(path + name, error)) return std::optional<std::string>();
  }
  std::optional<std::string> found;
  fs::directory_iterator it(path, error);
  for (int64_t seen = 0; !error && it != fs::directory_iterator() && seen < kGgufDirectoryFilesMax; it.increment(error), ++seen) {
    if (it->path().extension() != kExtension) continue;
    if (found) return Error(kErrModelFile, path + ": has several GGUF files; name the one to open");
    found = it->path().string();
  }
  return found;
}

Expected<std::shared_ptr<Model>> OpenGguf(const std::string& file_path, const PolicyOverrides& overrides) {
  auto file = MappedFile::Open(file_path, kWeightFileBytesMax);
  if (!file.ok()) return file.status();
  const std::span<const uint8_t> bytes = (*file)->bytes();
  auto header = ParseGgufHeader(bytes, file_path);
  if (!header.ok()) return header.status();
  auto config = ParseGgufConfig(bytes, *header, file_path, overrides);
  if (!config.ok()) return config.status();
  const bool interleaved = config->model_type == "llama";
  const GgufSource source(bytes, *header, interleaved ? config->head_dim : 0);
  auto model = AssembleModel(std::move(*config), source);
  if (!model.ok()) return model.status();
  (*model)->file_bytes = static_cast<int64_t>(bytes.size());
  (*model)->files = {*file};
  return model;
}

}  // namespace rum
