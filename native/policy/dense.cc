// Dense: every token stays. The window is 0, so a token goes to the log as soon as the next one arrives.
#include "policy/policy.h"

namespace rum {
namespace {

class Dense final : public Policy {
 public:
  using Policy::Policy;
  bool evicts() const override { return false; }
  float Logit(int32_t, int32_t, const float*) const override { return 0.0f; }
};

}  // namespace

std::unique_ptr<Policy> MakeDense(const Model& model) { return std::make_unique<Dense>(model.config.policy); }

std::unique_ptr<Policy> MakePolicy(const Model& model, const Kernels& kernels, ThreadPool* threads) {
  switch (model.config.policy.kind) {
    case PolicyKind::kDmsBorrowed: return MakeDmsBorrowed(model);
    case PolicyKind::kDmsSeparate: return MakeDmsSeparate(model, kernels, threads);
    default: break;  // baselines keep caches of their own: this one stays empty
  }
  return MakeDense(model);
}

}  // namespace rum
