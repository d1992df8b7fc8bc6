#include "checkpoint/model_digest.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "checkpoint/digest.h"
#include "model/quant.h"
#include "model/rope.h"

namespace rum {
namespace {

void Add(Hasher& hasher, std::string_view text) { hasher.Update({reinterpret_cast<const uint8_t*>(text.data()), text.size()}); }

void AddNf4Scales(Hasher& hasher, const TensorView& view) {
  hasher.Update({reinterpret_cast<const uint8_t*>(view.nf4->table), sizeof view.nf4->table});
  const int64_t blocks = Nf4BlockCount(view);
  std::vector<float> scales;
  for (int64_t at = 0; at < blocks; at += 32768) {
    scales.clear();
    for (int64_t i = at; i < std::min(blocks, at + 32768); ++i) scales.push_back(Nf4AbsMax(*view.nf4, i));
    hasher.Update({reinterpret_cast<const uint8_t*>(scales.data()), scales.size() * sizeof(float)});
  }
}

int64_t StoredBytes(const TensorView& view) {
  const int64_t weights = view.rows * view.cols;
  if (IsPlain(view.dtype)) return weights * ElementBytes(view.dtype);
  if (view.dtype == DType::kNf4) return (weights + 1) / 2;
  const BlockShape block = BlockOf(view.dtype);
  return weights / block.weights * block.bytes;
}

void AddTensor(Hasher& hasher, std::string_view name, const TensorView& view) {
  if (!view) return;
  const int32_t block = view.nf4 == nullptr ? 0 : view.nf4->block;
  Add(hasher, name);
  for (const std::string_view part : {std::string_view(" "), std::string_view(DTypeName(view.dtype))}) Add(hasher, part);
  for (const int64_t number : {view.rows, view.cols, int64_t{block}}) Add(hasher, std::to_string(number).insert(0, 1, ' '));
  Add(hasher, "\n");
  hasher.Update({static_cast<const uint8_t*>(view.data), static_cast<size_t>(StoredBytes(view))});
  if (view.nf4 != nullptr) AddNf4Scales(hasher, view);
}

template <class T>
void AddNumber(Hasher& hasher, T number) { hasher.Update({reinterpret_cast<const uint8_t*>(&number), sizeof number}); }

// What config.json says about computing with the tensors and none of them shows: frequencies, not how they were arrived at.
void AddNumerics(Hasher& hasher, const ModelConfig& config) {
  Add(hasher, "rope ");
  for (const float frequency : RopeFrequencies(config.rope, config.head_dim)) AddNumber(hasher, frequency);
  AddNumber(hasher, config.rope.attention_factor);
  Add(hasher, "norm ");
  AddNumber(hasher, config.rms_eps);
}

}  // namespace

Digest DigestOfWeights(const Model& model) {
  Hasher hasher(nullptr);
  AddNumerics(hasher, model.config);
  AddTensor(hasher, "embed", model.embed);
  AddTensor(hasher, "final_norm", model.final_norm);
  AddTensor(hasher, "lm_head", model.lm_head);
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const LayerWeights& w = model.layers[i];
    const std::string layer = "layer " + std::to_string(i) + " ";
    const std::pair<const char*, const TensorView*> tensors[] = {
        {"input_norm", &w.input_norm}, {"q_proj", &w.q_proj},         {"k_proj", &w.k_proj},       {"v_proj", &w.v_proj},
        {"q_bias", &w.q_bias},         {"k_bias", &w.k_bias},         {"v_bias", &w.v_bias},       {"q_norm", &w.q_norm},
        {"k_norm", &w.k_norm},         {"o_proj", &w.o_proj},         {"o_bias", &w.o_bias},       {"post_norm", &w.post_norm},
        {"gate_proj", &w.gate_proj},   {"up_proj", &w.up_proj},       {"down_proj", &w.down_proj}, {"alpha_proj", &w.alpha_proj},
        {"alpha_bias", &w.alpha_bias}, {"alpha_norm", &w.alpha_norm}};
    for (const auto& [name, tensor] : tensors) AddTensor(hasher, layer + name, *tensor);
  }
  for (size_t i = 0; i < model.kvzap.size(); ++i) {
    const std::string layer = "kvzap " + std::to_string(i) + " ";
    AddTensor(hasher, layer + "in", model.kvzap[i].in);
    AddTensor(hasher, layer + "in_bias", model.kvzap[i].in_bias);
    AddTensor(hasher, layer + "out", model.kvzap[i].out);
    AddTensor(hasher, layer + "out_bias", model.kvzap[i].out_bias);
  }
  Digest digest;
  hasher.Finish(digest);
  return digest;
}

}  // namespace rum
