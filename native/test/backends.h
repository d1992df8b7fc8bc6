// The backends that are linked into a test program, the oracle first.
#pragma once
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "backend/backend.h"

namespace rum::test {

struct BackendFactory {
  const char* name;
  Expected<std::unique_ptr<Backend>> (*make)(std::shared_ptr<const Model>, const BackendOptions&);
};

inline std::vector<BackendFactory> Factories() {
  return {
      {"reference", MakeReferenceBackend},
#ifdef RUM_WITH_CPU
      {"cpu", MakeCpuBackend},
#endif
  };
}

// Another backend, with a function called before each Forward that may refuse it, and one that may spoil what it brought.
class HookedBackend final : public Backend {
 public:
  explicit HookedBackend(std::shared_ptr<Backend> inner) : inner_(std::move(inner)) {}
  std::function<Status()> before_forward = [] { return Status::Ok(); };
  std::function<Status(std::span<const Row>, float* logits)> after_forward = [](std::span<const Row>, float*) { return Status::Ok(); };

  const char* name() const override { return inner_->name(); }
  Isa isa() const override { return inner_->isa(); }
  Expected<ChainId> NewChain() override { return inner_->NewChain(); }
  Expected<ChainId> ForkChain(ChainId chain) override { return inner_->ForkChain(chain); }
  void FreeChain(ChainId chain) override { inner_->FreeChain(chain); }
  Status Forward(std::span<const Row> rows, float* logits) override {
    Status status = before_forward();
    if (status.ok()) status = inner_->Forward(rows, logits);
    return status.ok() ? after_forward(rows, logits) : status;
  }
  int32_t Length(ChainId chain) const override { return inner_->Length(chain); }
  int64_t LiveSum(ChainId chain) const override { return inner_->LiveSum(chain); }
  int64_t NextLiveSum(ChainId chain) const override { return inner_->NextLiveSum(chain); }
  int64_t SharedSum(ChainId chain) const override { return inner_->SharedSum(chain); }
  HeadSnapshot Snapshot(ChainId chain, int32_t layer, int32_t kv_head) const override {
    return inner_->Snapshot(chain, layer, kv_head);
  }
  MemoryUse Memory() const override { return inner_->Memory(); }
  void SetTrace(TraceSink* sink) override { inner_->SetTrace(sink); }

 private:
  std::shared_ptr<Backend> inner_;
};

}  // namespace rum::test
