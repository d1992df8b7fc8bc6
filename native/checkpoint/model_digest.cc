#include "checkpoint/model_digest.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "checkpoint/digest.h"
#include "model/quant.h"
#include "model/rope.h"

namespace rum {
namespace {

constexpr int64_t kScalesOfPiece = WeightsHasher::kPieceBytes / static_cast<int64_t>(sizeof(float));

void AddText(Hasher& hasher, std::string_view text) { hasher.Update({reinterpret_cast<const uint8_t*>(text.data()), text.size()}); }

// As float: double quantisation is how they are stored, not what they are.
void AddScales(Hasher& hasher, const Nf4Scales& nf4, int64_t begin, int64_t end) {
  std::vector<float> scales;
  for (int64_t at = begin; at < end; at += 32768) {
    scales.clear();
    for (int64_t i = at; i < std::min(end, at + 32768); ++i) scales.push_back(Nf4AbsMax(nf4, i));
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

}  // namespace

WeightsHasher::WeightsHasher(const Model& model) : numerics_(RopeFrequencies(model.config.rope, model.config.head_dim)) {
  numerics_.push_back(static_cast<float>(model.config.rope.attention_factor));
  numerics_.push_back(static_cast<float>(model.config.rms_eps));
  Add("embed", model.embed);
  Add("final_norm", model.final_norm);
  Add("lm_head", model.lm_head);
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const LayerWeights& w = model.layers[i];
    const std::string layer = "layer " + std::to_string(i) + " ";
    const std::pair<const char*, const TensorView*> tensors[] = {
        {"input_norm", &w.input_norm}, {"q_proj", &w.q_proj},         {"k_proj", &w.k_proj},       {"v_proj", &w.v_proj},
        {"q_bias", &w.q_bias},         {"k_bias", &w.k_bias},         {"v_bias", &w.v_bias},       {"q_norm", &w.q_norm},
        {"k_norm", &w.k_norm},         {"o_proj", &w.o_proj},         {"o_bias", &w.o_bias},       {"post_norm", &w.post_norm},
        {"gate_proj", &w.gate_proj},   {"up_proj", &w.up_proj},       {"down_proj", &w.down_proj}, {"alpha_proj", &w.alpha_proj},
        {"alpha_bias", &w.alpha_bias}, {"alpha_norm", &w.alpha_norm}};
    for (const auto& [name, tensor] : tensors) Add(layer + name, *tensor);
  }
  for (size_t i = 0; i < model.kvzap.size(); ++i) {
    const std::string layer = "kvzap " + std::to_string(i) + " ";
    Add(layer + "in", model.kvzap[i].in);
    Add(layer + "in_bias", model.kvzap[i].in_bias);
    Add(layer + "out", model.kvzap[i].out);
    Add(layer + "out_bias", model.kvzap[i].out_bias);
  }
}

void WeightsHasher::Add(std::string name, const TensorView& view) {
  if (!view) return;
  tensors_.push_back({std::move(name), view});
  Cut(StoredBytes(view), kPieceBytes, false);
  if (view.nf4 != nullptr) Cut(Nf4BlockCount(view), kScalesOfPiece, true);
}

void WeightsHasher::Cut(int64_t size, int64_t piece, bool scales) {
  for (int64_t begin = 0; begin < size; begin += piece) {
    pieces_.push_back({tensors_.size() - 1, scales, begin, std::min(size, begin + piece), {}});
    ++tensors_.back().pieces;
  }
}

void WeightsHasher::Hash(Piece& piece) const {
  const TensorView& view = tensors_[piece.tensor].view;
  Hasher hasher(nullptr);
  if (piece.scales) {
    AddScales(hasher, *view.nf4, piece.begin, piece.end);
  } else {
    hasher.Update({static_cast<const uint8_t*>(view.data) + piece.begin, static_cast<size_t>(piece.end - piece.begin)});
  }
  hasher.Finish(piece.digest);
}

void WeightsHasher::Advance(int64_t pieces, const ParallelFor& parallel) {
  const auto count = std::min(pieces, static_cast<int64_t>(pieces_.size() - hashed_));
  parallel(count, [this](int64_t i) { Hash(pieces_[hashed_ + static_cast<size_t>(i)]); });
  hashed_ += static_cast<size_t>(count);
}

Digest WeightsHasher::Finish() const {
  Hasher hasher(nullptr);
  hasher.Update({reinterpret_cast<const uint8_t*>(numerics_.data()), numerics_.size() * sizeof(float)});
  auto piece = pieces_.begin();
  for (const Tensor& tensor : tensors_) {
    const TensorView& view = tensor.view;
    std::string head = tensor.name;
    head.append(1, ' ').append(DTypeName(view.dtype));
    for (const int64_t number : {view.rows, view.cols, int64_t{view.nf4 == nullptr ? 0 : view.nf4->block}}) head.append(1, ' ').append(std::to_string(number));
    AddText(hasher, head.append(1, '\n'));
    if (view.nf4 != nullptr) hasher.Update({reinterpret_cast<const uint8_t*>(view.nf4->table), sizeof view.nf4->table});
    for (size_t i = 0; i < tensor.pieces; ++i, ++piece) hasher.Update(piece->digest);
  }
  Digest digest;
  hasher.Finish(digest);
  return digest;
}

}  // namespace rum
