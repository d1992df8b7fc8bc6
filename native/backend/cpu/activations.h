// The buffers of one Forward of the cpu backend. They only ever grow.
#pragma once
#include <cstdint>
#include <vector>

#include "backend/cpu/packed.h"
#include "cache/layout.h"
#include "model/config.h"

namespace rum {

// [rows][stride]; strides are padded to panels so that padding rows have a place to go.
struct Activations {
  int64_t hidden_stride = 0, qkv_stride = 0, attention_stride = 0, gate_up_stride = 0;
  std::vector<float> residual, normed, projected;  // [rows][hidden_stride]
  std::vector<float> qkv;                          // [rows][qkv_stride]
  std::vector<float> attention;                    // [rows][attention_stride], heads * head_dim
  std::vector<float> gate_up;                      // [rows][gate_up_stride]
  std::vector<int32_t> positions;                  // [rows]
  std::vector<float> cos, sin;                     // [rows][head_dim / 2]
  std::vector<float> decision_logits;              // [rows][kv_heads]
  std::vector<int32_t> live;                       // [rows][kv_heads]

  // qkv_rows, gate_up_rows: of the packed matrices, padding included.
  void Fit(const ModelConfig& config, int64_t qkv_rows, int64_t gate_up_rows, int64_t rows) {
    hidden_stride = RoundUp(config.hidden_size, kPanelRows);
    qkv_stride = qkv_rows;
    attention_stride = RoundUp(int64_t{config.num_heads} * config.head_dim, kPanelRows);
    gate_up_stride = gate_up_rows;
    const auto fit = [rows](auto* v, int64_t stride) {
      if (static_cast<int64_t>(v->size()) < rows * stride) v->resize(static_cast<size_t>(rows * stride));
    };
    for (auto* v : {&residual, &normed, &projected}) fit(v, hidden_stride);
    fit(&qkv, qkv_stride);
    fit(&attention, attention_stride);
    fit(&gate_up, gate_up_stride);
    fit(&positions, 1);
    fit(&cos, config.head_dim / 2);
    fit(&sin, config.head_dim / 2);
    fit(&decision_logits, config.num_kv_heads);
    live.resize(decision_logits.size());
  }
};

}  // namespace rum
