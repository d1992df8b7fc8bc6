#include "bind/prepare_bind.h"

#include <chrono>
#include <utility>

#include "bind/dto.h"
#include "bind/handle.h"
#include "core/limits.h"

namespace rum::bind {
namespace {

// Beside the engine's own work: it touches nothing but the pool.
class PrepareTask final : public Task {
 public:
  PrepareTask(std::shared_ptr<EngineCore> core, std::shared_ptr<PreparedMemory> memory) : core_(std::move(core)), memory_(std::move(memory)) {}
  Progress Work(Status&) override {
    const auto end = std::chrono::steady_clock::now() + kSlice;
    while (memory_->Advance()) {
      if (std::chrono::steady_clock::now() >= end) return Progress::kMore;
    }
    return Progress::kDone;
  }
  Napi::Value Result(Napi::Env env) override { return env.Undefined(); }

 private:
  static constexpr std::chrono::milliseconds kSlice{100};
  std::shared_ptr<EngineCore> core_;
  std::shared_ptr<PreparedMemory> memory_;
};

}  // namespace

Napi::Value PrepareRestore(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value options) {
  Reader reader("prepareRestore.options", options);
  PreparedMemory::Need need;
  need.segment_bytes = reader.Int("segmentBytes", 0, kExactIntegerMax);
  need.tokens = reader.Int("tokens", 0, int64_t{kPositionsMax} * kRunWidthMax);
  need.caches = reader.Int32("caches", 0, kRunWidthMax + 1);
  need.bytes_max = reader.IsNull("memoryLimitBytes") ? INT64_MAX : reader.Int("memoryLimitBytes", 0, kExactIntegerMax);
  if (!reader.status().ok()) return Throw(env, reader.status());
  if (engine->core == nullptr) return Throw(env, Error(kErrDisposed, "the engine is closed."));
  EngineCore& core = *engine->core;
  if (need.bytes_max != INT64_MAX) need.bytes_max -= core.memory.kv_allocated_bytes;
  auto handle = std::make_shared<PreparedHandle>();
  handle->core = engine->core;
  const std::unique_ptr<ChainCache> probe = core.backend->NewCache();
  if (probe != nullptr) {
    const ModelConfig& config = core.model->config;
    handle->memory = std::make_shared<PreparedMemory>(CacheGeometry{config.num_layers, config.num_kv_heads, probe->layout()}, probe->pool(), need);
  }
  return Handle<PreparedHandle>::New(env, std::move(handle));
}

Napi::Value PreparedWork(Napi::Env env, const std::shared_ptr<PreparedHandle>& prepared, Napi::Value) {
  if (prepared->memory == nullptr) return env.Undefined();
  const auto queue = std::make_shared<SerialQueue>(env);
  return queue->Start(std::make_shared<PrepareTask>(prepared->core, prepared->memory));
}

Napi::Value PreparedClose(Napi::Env env, const std::shared_ptr<PreparedHandle>& prepared, Napi::Value) {
  if (prepared->memory != nullptr) prepared->memory->Close();
  prepared->memory = nullptr;
  prepared->core = nullptr;
  return env.Undefined();
}

}  // namespace rum::bind
