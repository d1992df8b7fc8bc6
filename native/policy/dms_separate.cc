// DMS, flavour B (METHOD.md 1.2): a projection of its own, from the normalised residual stream, decides; queries are untouched.
#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_pool.h"
#include "policy/policy.h"

namespace rum {
namespace {

class DmsSeparate final : public Policy {
 public:
  DmsSeparate(const Model& model, const Kernels& kernels, ThreadPool* threads)
      : Policy(model.config.policy), kernels_(kernels), threads_(threads), hidden_(model.config.hidden_size),
        eps_(model.config.rms_eps), layers_(model.layers.size()) {}

  // False when memory cannot be had.
  bool PackWeights(const Model& model) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      layers_[i].norm = Widen(model.layers[i].alpha_norm);
      if (!Pack({model.layers[i].alpha_proj}, &layers_[i].proj)) return false;
      if (model.config.alpha_bias) layers_[i].bias = WidenStacked({model.layers[i].alpha_bias}, layers_[i].proj);
    }
    return true;
  }

  void Prepare(int32_t layer, const LayerInput& input) override {
    const float* residual = input.residual;
    const int64_t stride = input.stride, rows = input.rows;
    const Layer& l = layers_[static_cast<size_t>(layer)];
    normed_.resize(static_cast<size_t>(stride * rows));
    out_stride_ = l.proj.rows();
    out_.resize(static_cast<size_t>(out_stride_ * rows));
    threads_->Run(rows, rows * hidden_ * kPanelRows, [&](int64_t begin, int64_t end, int32_t) {
      for (int64_t r = begin; r < end; ++r) {
        kernels_.rms_norm(residual + r * stride, l.norm.data(), eps_, hidden_, normed_.data() + r * stride);
      }
      const auto count = static_cast<int32_t>(end - begin);
      kernels_.linear(l.proj, normed_.data() + begin * stride, stride, count, out_.data() + begin * out_stride_, out_stride_, 0,
                      l.proj.panels);
      if (l.bias.empty()) return;
      for (int64_t r = begin; r < end; ++r) kernels_.add(out_.data() + r * out_stride_, l.bias.data(), out_stride_);
    });
  }

  float Logit(int32_t row, int32_t kv_head, const float*) const override {
    const float raw = out_[static_cast<size_t>(row * out_stride_ + (spec_.alpha_per_layer ? 0 : kv_head))];
    const float scaled = raw * spec_.alpha_scale;
    return scaled - spec_.alpha_offset;
  }

 private:
  struct Layer {
    std::vector<float> norm;  // [hidden]
    PackedMatrix proj;        // [num_kv_heads, hidden]
    std::vector<float> bias;  // [rows of proj], zero in its padding, or empty
  };
  const Kernels& kernels_;
  ThreadPool* const threads_;
  const int64_t hidden_;
  const float eps_;
  std::vector<Layer> layers_;
  std::vector<float> normed_;  // [rows][stride]
  std::vector<float> out_;     // [rows][out_stride]
  int64_t out_stride_ = 0;
};

}  // namespace

std::unique_ptr<Policy> MakeDmsSeparate(const Model& model, const Kernels& kernels, ThreadPool* threads) {
  auto policy = std::make_unique<DmsSeparate>(model, kernels, threads);
  return policy->PackWeights(model) ? std::move(policy) : nullptr;
}

}  // namespace rum
