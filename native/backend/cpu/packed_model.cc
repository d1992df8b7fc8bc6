#include "backend/cpu/packed_model.h"

#include "model/rope.h"

namespace rum {

bool PackedModel::Pack(const Model& model) {
  const ModelConfig& config = model.config;
  layers.resize(model.layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerWeights& w = model.layers[i];
    PackedLayer& l = layers[i];
    l.input_norm = Widen(w.input_norm);
    l.post_norm = Widen(w.post_norm);
    if (config.qk_norm) {
      l.q_norm = Widen(w.q_norm);
      l.k_norm = Widen(w.k_norm);
    }
    if (!rum::Pack({w.q_proj, w.k_proj, w.v_proj}, &l.qkv) || !rum::Pack({w.o_proj}, &l.o) ||
        !rum::Pack({w.gate_proj, w.up_proj}, &l.gate_up) || !rum::Pack({w.down_proj}, &l.down)) {
      return false;
    }
    if (config.qkv_bias) l.qkv_bias = WidenStacked({w.q_bias, w.k_bias, w.v_bias}, l.qkv);
    if (config.o_bias) l.o_bias = Widen(w.o_bias);
  }
  final_norm = Widen(model.final_norm);
  frequencies = RopeFrequencies(config.rope, config.head_dim);
  return rum::Pack({model.lm_head}, &head);
}

int64_t PackedModel::bytes() const {
  int64_t sum = head.bytes();
  for (const PackedLayer& l : layers) sum += l.qkv.bytes() + l.o.bytes() + l.gate_up.bytes() + l.down.bytes();
  return sum;
}

}  // namespace rum
