// A weight widened to float, once, when the backend is made.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "backend/reference/math.h"
#include "model/quant.h"
#include "model/weights.h"

namespace rum::reference {

struct Matrix {
  size_t rows = 0;
  size_t cols = 0;
  std::vector<float> data;  // [rows, cols]; empty: the model has no such tensor

  const float* row(size_t r) const { return data.data() + r * cols; }

  // y[r] = chain over k of (w[r][k], x[k]).
  void Times(const float* x, float* y) const {
    for (size_t r = 0; r < rows; ++r) y[r] = ChainSum(row(r), x, cols);
  }

  // For a bias: y[i] += w[0][i]; nothing when the model has none.
  void AddTo(float* y) const {
    for (size_t i = 0; i < data.size(); ++i) y[i] = y[i] + data[i];
  }
};

inline Matrix Widen(const TensorView& view) {
  Matrix m;
  if (!view) return m;
  m.rows = static_cast<size_t>(view.rows);
  m.cols = static_cast<size_t>(view.cols);
  m.data.resize(m.rows * m.cols);
  for (size_t r = 0; r < m.rows; ++r) DequantiseRow(view, static_cast<int64_t>(r), m.data.data() + r * m.cols);
  return m;
}

struct Layer {
  Matrix input_norm, q_proj, k_proj, v_proj, q_bias, k_bias, v_bias, q_norm, k_norm, o_proj, o_bias;
  Matrix post_norm, gate_proj, up_proj, down_proj;
  Matrix alpha_proj, alpha_bias, alpha_norm;
  Matrix score_in, score_in_bias, score_out, score_out_bias;  // KVzap
};

struct Weights {
  Matrix embed, final_norm, lm_head;  // lm_head is empty when tied: embed serves as both
  std::vector<Layer> layers;
  int64_t bytes = 0;

  const Matrix& head() const { return lm_head.data.empty() ? embed : lm_head; }
};

inline Weights WidenAll(const Model& model) {
  Weights w;
  const auto widen = [&w](const TensorView& view) {
    Matrix m = Widen(view);
    w.bytes += static_cast<int64_t>(m.data.size() * sizeof(float));
    return m;
  };
  w.embed = widen(model.embed);
  w.final_norm = widen(model.final_norm);
  if (model.lm_head.data != model.embed.data) w.lm_head = widen(model.lm_head);
  for (const LayerWeights& l : model.layers) {
    w.layers.push_back(Layer{widen(l.input_norm), widen(l.q_proj), widen(l.k_proj), widen(l.v_proj), widen(l.q_bias),
                             widen(l.k_bias), widen(l.v_bias), widen(l.q_norm), widen(l.k_norm), widen(l.o_proj),
                             widen(l.o_bias), widen(l.post_norm), widen(l.gate_proj), widen(l.up_proj), widen(l.down_proj),
                             widen(l.alpha_proj), widen(l.alpha_bias), widen(l.alpha_norm), {}, {}, {}, {}});
  }
  for (size_t i = 0; i < model.kvzap.size(); ++i) {
    w.layers[i].score_in = widen(model.kvzap[i].in);
    w.layers[i].score_in_bias = widen(model.kvzap[i].in_bias);
    w.layers[i].score_out = widen(model.kvzap[i].out);
    w.layers[i].score_out_bias = widen(model.kvzap[i].out_bias);
  }
  return w;
}

}  // namespace rum::reference
