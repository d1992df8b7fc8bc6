// A cache policy: which tokens of a KV head stay once they leave the window. One small file per policy; the cpu backend calls it,
// the reference backend implements the same rules on its own.
#pragma once
#include <cstdint>
#include <memory>

#include "cache/chain_cache.h"
#include "model/weights.h"

namespace rum {

struct Kernels;
class ThreadPool;

// What enters a layer, [rows][stride].
struct LayerInput {
  const float* residual;  // before input_layernorm
  const float* normed;    // after it: the input of self_attn
  int64_t stride;
  int32_t rows;
};

// Prepare is called once per layer and batch; Logit and MaskQuery from several threads, on different (row, KV head).
class Policy {
 public:
  explicit Policy(const PolicySpec& spec) : spec_(spec) {}
  virtual ~Policy() = default;
  int32_t window() const { return spec_.window; }
  virtual bool evicts() const { return true; }
  // DMS decides about the token before (METHOD.md 1.3), KVzap about the token itself.
  virtual bool decides_about_previous() const { return true; }
  // Whether the tokens of the prompt all stay until its end.
  virtual bool dense_prompt() const { return false; }
  bool prunes_generated() const { return spec_.prunes_generated; }
  virtual int64_t weight_bytes() const { return 0; }
  virtual void Prepare(int32_t /*layer*/, const LayerInput& /*input*/) {}
  // Eviction logit (METHOD.md 1.2) or score (2.1) of this row's token for one KV head.
  // q [head_dim]: the first query head of the group, after q_norm, before RoPE.
  virtual float Logit(int32_t row, int32_t kv_head, const float* q) const = 0;
  // Called on the first query head of the group before and after RoPE.
  virtual void MaskQuery(float* /*q*/) const {}
  // What comes of the logit. in_prompt: the row is of the prompt.
  Verdict Judge(float logit, bool in_prompt) const {
    const bool evict = evicts() && spec_.Evicts(logit) && (in_prompt || prunes_generated());
    return {evict, !decides_about_previous(), dense_prompt() && in_prompt};
  }

 protected:
  const PolicySpec spec_;
};

std::unique_ptr<Policy> MakeDense(const Model& model);
std::unique_ptr<Policy> MakeDmsBorrowed(const Model& model);
std::unique_ptr<Policy> MakeDmsSeparate(const Model& model, const Kernels& kernels, ThreadPool* threads);

// nullptr when memory cannot be had.
std::unique_ptr<Policy> MakeKvzap(const Model& model, const Kernels& kernels, ThreadPool* threads);

// The policy that model.config.policy names; nullptr when memory cannot be had.
std::unique_ptr<Policy> MakePolicy(const Model& model, const Kernels& kernels, ThreadPool* threads);

}  // namespace rum
