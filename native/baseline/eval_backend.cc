#include "baseline/eval_backend.h"

#include <utility>

namespace rum::baseline {
namespace {

class EvalBackend final : public Backend {
 public:
  EvalBackend(std::unique_ptr<Backend> inner, std::unique_ptr<EvalCache> cache) : cache_(std::move(cache)), inner_(std::move(inner)) {}

  const char* name() const override { return inner_->name(); }
  Isa isa() const override { return inner_->isa(); }
  int32_t threads() const override { return inner_->threads(); }
  void RunOnThreads(int64_t items, int64_t cost, const WorkShare& f) override { inner_->RunOnThreads(items, cost, f); }

  Expected<ChainId> NewChain() override {
    Expected<ChainId> chain = inner_->NewChain();
    if (chain.ok()) cache_->NewChain(*chain);
    return chain;
  }
  Expected<ChainId> ForkChain(ChainId from) override {
    Expected<ChainId> chain = inner_->ForkChain(from);
    if (chain.ok()) cache_->ForkChain(from, *chain);
    return chain;
  }
  void FreeChain(ChainId chain) override {
    cache_->FreeChain(chain);
    inner_->FreeChain(chain);
  }

  Status Forward(std::span<const Row> rows, float* logits) override {
    Status status = inner_->Forward(rows, logits);
    if (!status.ok() || trace_ == nullptr) return status;
    for (const Row& row : rows) cache_->Report(row.chain, trace_);  // all of a chain's at its first row
    return status;
  }

  int32_t Length(ChainId chain) const override { return inner_->Length(chain); }
  int64_t LiveSum(ChainId chain) const override { return cache_->LiveSum(chain); }
  int64_t ReadSum(ChainId chain) const override { return cache_->ReadSum(chain); }
  int64_t NextLiveSum(ChainId chain) const override { return cache_->NextReadSum(chain); }
  int64_t SharedSum(ChainId) const override { return 0; }

  // What the next query will find; what went after the last one is not in it.
  HeadSnapshot Snapshot(ChainId chain, int32_t layer, int32_t kv_head) const override {
    const History& head = cache_->At(chain, layer, kv_head);
    return {head.positions, head.k, head.v};
  }

  MemoryUse Memory() const override {
    MemoryUse use = inner_->Memory();
    use.kv_allocated_bytes += cache_->allocated_bytes();
    return use;
  }

  void SetTrace(TraceSink* sink) override {
    trace_ = sink;
    inner_->SetTrace(sink);
    cache_->Record(sink != nullptr);
  }

 private:
  std::unique_ptr<EvalCache> cache_;  // outlives inner_, which calls it
  std::unique_ptr<Backend> inner_;
  TraceSink* trace_ = nullptr;
};

}  // namespace

std::unique_ptr<EvalCache> MakeEvalCache(const ModelConfig& config, const BackendOptions& options) {
  return config.policy.is_baseline() ? std::make_unique<EvalCache>(config, options.kv) : nullptr;
}

std::unique_ptr<Backend> Decorate(std::unique_ptr<Backend> inner, std::unique_ptr<EvalCache> cache) {
  if (cache == nullptr) return inner;
  return std::make_unique<EvalBackend>(std::move(inner), std::move(cache));
}

}  // namespace rum::baseline
