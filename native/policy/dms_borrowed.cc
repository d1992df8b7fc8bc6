// DMS, flavour A (METHOD.md 1.2): the last channel of the first query head of each group decides and is hidden from attention.
#include "policy/policy.h"

namespace rum {
namespace {

class DmsBorrowed final : public Policy {
 public:
  DmsBorrowed(const PolicySpec& spec, int32_t head_dim) : Policy(spec), channel_(head_dim - 1) {}
  float Logit(int32_t, int32_t, const float* q) const override {
    const float scaled = q[channel_] * spec_.alpha_scale;
    return scaled - spec_.alpha_offset;
  }
  // Before RoPE it keeps the channel out of its pair, after RoPE it removes what rotated in.
  void MaskQuery(float* q) const override { q[channel_] = 0.0f; }

 private:
  const int32_t channel_;
};

}  // namespace

std::unique_ptr<Policy> MakeDmsBorrowed(const Model& model) {
  return std::make_unique<DmsBorrowed>(model.config.policy, model.config.head_dim);
}

}  // namespace rum
