#include "model/assemble.h"

#include <algorithm>
#include <array>
#include <utility>

#include "model/quant.h"

namespace rum {
namespace {

struct LayerTensor {
  const char* suffix;  // after "model.layers.N."
  TensorView LayerWeights::* member;
  std::vector<int64_t> shape;
  bool used;
};

// METHOD.md 1.1 and 5.
std::vector<LayerTensor> LayerTensors(const ModelConfig& config) {
  using L = LayerWeights;
  const int64_t hidden = config.hidden_size, inter = config.intermediate_size, head_dim = config.head_dim;
  const int64_t q_rows = int64_t{config.num_heads} * head_dim;   // at most 2^20, see limits.h
  const int64_t kv_rows = int64_t{config.num_kv_heads} * head_dim;
  const bool separate = config.policy.kind == PolicyKind::kDmsSeparate;
  return {
      {"input_layernorm.weight", &L::input_norm, {hidden}, true},
      {"self_attn.q_proj.weight", &L::q_proj, {q_rows, hidden}, true},
      {"self_attn.k_proj.weight", &L::k_proj, {kv_rows, hidden}, true},
      {"self_attn.v_proj.weight", &L::v_proj, {kv_rows, hidden}, true},
      {"self_attn.q_proj.bias", &L::q_bias, {q_rows}, config.qkv_bias},
      {"self_attn.k_proj.bias", &L::k_bias, {kv_rows}, config.qkv_bias},
      {"self_attn.v_proj.bias", &L::v_bias, {kv_rows}, config.qkv_bias},
      {"self_attn.q_norm.weight", &L::q_norm, {head_dim}, config.qk_norm},
      {"self_attn.k_norm.weight", &L::k_norm, {head_dim}, config.qk_norm},
      {"self_attn.o_proj.weight", &L::o_proj, {hidden, q_rows}, true},
      {"self_attn.o_proj.bias", &L::o_bias, {hidden}, config.o_bias},
      {"post_attention_layernorm.weight", &L::post_norm, {hidden}, true},
      {"mlp.gate_proj.weight", &L::gate_proj, {inter, hidden}, true},
      {"mlp.up_proj.weight", &L::up_proj, {inter, hidden}, true},
      {"mlp.down_proj.weight", &L::down_proj, {hidden, inter}, true},
      {"self_attn.dms_proj_alpha.weight", &L::alpha_proj, {config.num_kv_heads, hidden}, separate},
      {"self_attn.dms_proj_alpha.bias", &L::alpha_bias, {config.num_kv_heads}, separate && config.alpha_bias},
      {"self_attn.dms_proj_alpha_norm.weight", &L::alpha_norm, {hidden}, separate},
  };
}

// Finds and checks tensors one by one; the first failure sticks.
struct Loader {
  const TensorSource& source;
  Model* model;
  Status status;
  std::vector<std::pair<std::string, TensorView>> used;  // in the order asked for

  TensorView Want(const std::string& name, const std::vector<int64_t>& shape) {
    if (!status.ok()) return {};
    auto view = source.Find(name, shape, model);
    if (!view.ok()) {
      status = view.status();
      return {};
    }
    used.emplace_back(name, *view);
    return *view;
  }
};

// Of the matrices inside the layers; ties go to the first type of the list.
DType MostCommonDType(const std::vector<LayerWeights>& layers) {
  std::array<int64_t, kDTypeCount> counts{};
  for (const LayerWeights& w : layers) {
    for (const TensorView* t : {&w.q_proj, &w.k_proj, &w.v_proj, &w.o_proj, &w.gate_proj, &w.up_proj, &w.down_proj}) {
      ++counts[static_cast<size_t>(t->dtype)];
    }
  }
  return static_cast<DType>(std::ranges::max_element(counts) - counts.begin());
}

}  // namespace

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

Expected<std::shared_ptr<Model>> AssembleModel(ModelConfig config, const TensorSource& source) {
  auto model = std::make_shared<Model>();
  model->config = std::move(config);
  const int64_t vocab = model->config.vocab_size, hidden = model->config.hidden_size;
  Loader loader{source, model.get(), {}, {}};
  model->embed = loader.Want("model.embed_tokens.weight", {vocab, hidden});
  const std::vector<LayerTensor> layer_tensors = LayerTensors(model->config);
  for (int32_t layer = 0; layer < model->config.num_layers && loader.status.ok(); ++layer) {
    LayerWeights weights;
    for (const LayerTensor& tensor : layer_tensors) {
      if (!tensor.used) continue;
      weights.*tensor.member = loader.Want("model.layers." + std::to_string(layer) + "." + tensor.suffix, tensor.shape);
    }
    model->layers.push_back(weights);
  }
  model->final_norm = loader.Want("model.norm.weight", {hidden});
  // Exporters leave lm_head out when it is tied, and old ones then do not say so; one that is there although config.json ties it is
  // a copy and not read.
  const bool tied = model->config.tie_word_embeddings.value_or(!source.Has("lm_head.weight"));
  model->config.tied_embeddings = tied;
  model->lm_head = tied ? model->embed : loader.Want("lm_head.weight", {vocab, hidden});
  if (!loader.status.ok()) return loader.status;

  // All shapes are right before the first weight is touched: a wrong file is refused without reading gigabytes.
  for (const auto& [name, view] : loader.used) {
    if (!AllFinite(view)) {
      return Error(kErrModelWeights, "tensor " + name + " has a NaN or infinite weight or scale; the checkpoint is damaged");
    }
    model->parameter_count += view.rows * view.cols;
    model->format_bytes[static_cast<size_t>(view.dtype)] += FormatBytes(view);
  }
  model->dtype = MostCommonDType(model->layers);
  return model;
}

}  // namespace rum
