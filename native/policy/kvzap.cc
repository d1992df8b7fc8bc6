// KVzap (METHOD.md 2): a surrogate scores each token from the input of self_attn; below the threshold it goes with the window. The
// prompt attends to all of itself and is pruned once, at its end.
#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_pool.h"
#include "core/exact_math.h"
#include "policy/policy.h"

namespace rum {
namespace {

class Kvzap final : public Policy {
 public:
  Kvzap(const Model& model, const Kernels& kernels, ThreadPool* threads)
      : Policy(model.config.policy), kernels_(kernels), threads_(threads), layers_(model.kvzap.size()) {}

  // False when memory cannot be had.
  bool PackWeights(const Model& model) {
    for (size_t i = 0; i < layers_.size(); ++i) {
      const KvzapLayer& w = model.kvzap[i];
      Layer& l = layers_[i];
      if (w.in) {
        if (!Pack({w.in}, &l.in)) return false;
        l.in_bias = WidenStacked({w.in_bias}, l.in);
      }
      if (!Pack({w.out}, &l.out)) return false;
      l.out_bias = WidenStacked({w.out_bias}, l.out);
    }
    return true;
  }

  bool decides_about_previous() const override { return false; }
  bool dense_prompt() const override { return true; }
  int64_t weight_bytes() const override {
    int64_t bytes = 0;
    for (const Layer& l : layers_) bytes += l.in.storage.size() + l.out.storage.size();
    return bytes;
  }

  void Prepare(int32_t layer, const LayerInput& x) override {
    const Layer& l = layers_[static_cast<size_t>(layer)];
    if (l.in.panels == 0) return Project(l.out, l.out_bias, x.normed, x.stride, x.rows, &scores_);
    Project(l.in, l.in_bias, x.normed, x.stride, x.rows, &inner_);
    const int64_t stride = l.in.rows();
    threads_->Run(x.rows, x.rows * stride * kGeluCost, [&](int64_t begin, int64_t end, int32_t) {
      for (int64_t i = begin * stride; i < end * stride; ++i) inner_[static_cast<size_t>(i)] = GeluF(inner_[static_cast<size_t>(i)]);
    });
    Project(l.out, l.out_bias, inner_.data(), stride, x.rows, &scores_);
  }

  float Logit(int32_t row, int32_t kv_head, const float*) const override {
    return scores_[static_cast<size_t>(row * layers_[0].out.rows() + kv_head)];
  }

 private:
  static constexpr int64_t kGeluCost = 64;  // operations of one
  struct Layer {
    PackedMatrix in, out;                  // of KvzapLayer; `in` has no panels in a linear surrogate
    std::vector<float> in_bias, out_bias;  // [rows], zero in the padding
  };

  // y [rows][w.rows()] = w x + bias
  void Project(const PackedMatrix& w, const std::vector<float>& bias, const float* x, int64_t x_stride, int32_t rows, std::vector<float>* y) {
    y->resize(static_cast<size_t>(rows * w.rows()));
    threads_->Run(w.panels, w.rows() * w.cols * rows, [&](int64_t begin, int64_t end, int32_t) {
      kernels_.linear(w, x, x_stride, rows, y->data(), w.rows(), begin, end);
    });
    for (int64_t r = 0; r < rows; ++r) kernels_.add(y->data() + r * w.rows(), bias.data(), w.rows());
  }

  const Kernels& kernels_;
  ThreadPool* const threads_;
  std::vector<Layer> layers_;
  std::vector<float> inner_;   // [rows][in.rows()]
  std::vector<float> scores_;  // [rows][out.rows()]
};

}  // namespace

std::unique_ptr<Policy> MakeKvzap(const Model& model, const Kernels& kernels, ThreadPool* threads) {
  auto policy = std::make_unique<Kvzap>(model, kernels, threads);
  return policy->PackWeights(model) ? std::move(policy) : nullptr;
}

}  // namespace rum
