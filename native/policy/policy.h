// A cache policy: which tokens of a KV head stay once they leave the window. One small file per policy; the cpu backend calls it,
// the reference backend implements the same rules on its own.
#pragma once
#include <cstdint>
#include <memory>

#include "core/status.h"
#include "model/weights.h"

namespace rum {

struct Kernels;
class ThreadPool;

// Prepare is called once per layer and batch; Logit and MaskQuery from several threads, on different (row, KV head).
class Policy {
 public:
  explicit Policy(const PolicySpec& spec) : spec_(spec) {}
  virtual ~Policy() = default;
  int32_t window() const { return spec_.window; }
  virtual bool evicts() const { return true; }
  // residual [rows][stride]: the stream entering the layer, before input_layernorm.
  virtual void Prepare(int32_t /*layer*/, const float* /*residual*/, int64_t /*stride*/, int32_t /*rows*/) {}
  // Eviction logit (METHOD.md 1.2) that this row's token gives about the token before it, for one KV head.
  // q [head_dim]: the first query head of the group, after q_norm, before RoPE.
  virtual float Logit(int32_t row, int32_t kv_head, const float* q) const = 0;
  // Called on the first query head of the group before and after RoPE.
  virtual void MaskQuery(float* /*q*/) const {}
  // > 0 evicts, strictly.
  bool Evicts(float logit) const { return logit > 0.0f && !spec_.disable_eviction; }

 protected:
  const PolicySpec spec_;
};

std::unique_ptr<Policy> MakeDense(const Model& model);
std::unique_ptr<Policy> MakeDmsBorrowed(const Model& model);
std::unique_ptr<Policy> MakeDmsSeparate(const Model& model, const Kernels& kernels, ThreadPool* threads);

// The policy that model.config.policy names.
std::unique_ptr<Policy> MakePolicy(const Model& model, const Kernels& kernels, ThreadPool* threads);

}  // namespace rum
