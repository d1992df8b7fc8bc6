#include "bind/engine_bind.h"

#include <chrono>
#include <string>
#include <utility>

#include "bind/dto.h"
#include "bind/forward.h"
#include "bind/handle.h"
#include "checkpoint/geometry.h"

namespace rum::bind {
namespace {

constexpr std::chrono::milliseconds kSlice{100};
constexpr size_t kForwardIdsMax = size_t{1} << 22;

class InspectTask final : public Task {
 public:
  explicit InspectTask(ModelRequest request) : request_(std::move(request)) {}
  Progress Work(Status& status) override {
    auto model = OpenModel(request_.directory, request_.overrides);
    if (model.ok()) {
      model_ = *model;
    } else {
      status = model.status();
    }
    return Progress::kDone;
  }
  Napi::Value Result(Napi::Env env) override { return ToJs(env, *model_); }

 private:
  ModelRequest request_;
  std::shared_ptr<const Model> model_;
};

class OpenTask final : public Task {
 public:
  OpenTask(std::shared_ptr<SerialQueue> queue, EngineRequest request) : queue_(std::move(queue)), request_(std::move(request)) {}

  Progress Work(Status& status) override {
    auto model = OpenModel(request_.model.directory, request_.model.overrides);
    if (!model.ok()) {
      status = model.status();
      return Progress::kDone;
    }
    model_ = *model;
    BackendOptions& options = request_.options;
    if (request_.kv_auto) options.kv = model_->dtype == DType::kF32 ? KvType::kF32 : KvType::kBF16;
    auto backend = request_.reference ? MakeReferenceBackend(model_, options) : MakeCpuBackend(model_, options);
    if (backend.ok()) {
      backend_ = std::move(*backend);
    } else {
      status = backend.status();
    }
    return Progress::kDone;
  }

  Napi::Value Result(Napi::Env env) override {
    auto engine = std::make_shared<EngineHandle>();
    engine->core = std::make_shared<EngineCore>(queue_, model_, backend_, request_.options);
    Napi::Object out = Napi::Object::New(env);
    out.Set("info", ToJs(env, *model_));
    out.Set("isa", IsaName(backend_->isa()));
    out.Set("kv", KvName(request_.options.kv));
    out.Set("handle", Handle<EngineHandle>::New(env, std::move(engine)));
    return out;
  }

 private:
  std::shared_ptr<SerialQueue> queue_;
  EngineRequest request_;
  std::shared_ptr<const Model> model_;
  std::shared_ptr<Backend> backend_;
};

class ForwardTask final : public Task {
 public:
  ForwardTask(std::shared_ptr<EngineCore> core, ForwardRequest request)
      : core_(std::move(core)), pass_(std::make_unique<ForwardPass>(core_->backend, core_->model, std::move(request))) {}
  // A pass given up between slices still holds its chain.
  ~ForwardTask() override {
    core_->queue->WhenIdle([pass = std::shared_ptr<ForwardPass>(std::move(pass_))] {});
  }

  Progress Work(Status& status) override {
    bool done = false;
    status = pass_->Advance(std::chrono::steady_clock::now() + kSlice, &done);
    memory_ = core_->backend->Memory();
    return done ? Progress::kDone : Progress::kMore;
  }
  void AfterSlice() override { core_->memory = memory_; }

  Napi::Value Result(Napi::Env env) override {
    ForwardOutcome& outcome = pass_->outcome();
    const ModelConfig& config = core_->model->config;
    Napi::Object out = Napi::Object::New(env);
    out.Set("logits", Take(env, std::move(outcome.logits)));
    out.Set("evictDecision", config.policy.decides() ? Take(env, std::move(outcome.evict_decision)) : env.Null());
    out.Set("scores", outcome.scores.empty() ? env.Null() : Take(env, std::move(outcome.scores)));
    out.Set("liveCount", Take(env, std::move(outcome.live_count)));
    out.Set("kvReadsDecode", outcome.kv_reads_decode);
    out.Set("kvReadsAll", outcome.kv_reads_all);
    out.Set("peakTokens", outcome.peak_tokens);
    Napi::Array layers = Napi::Array::New(env);
    size_t next = 0;
    for (uint32_t layer = 0; layer < static_cast<uint32_t>(config.num_layers); ++layer) {
      Napi::Array heads = Napi::Array::New(env);
      for (uint32_t head = 0; head < static_cast<uint32_t>(config.num_kv_heads); ++head) {
        HeadSnapshot& snapshot = outcome.heads[next++];
        Napi::Object item = Napi::Object::New(env);
        item.Set("positions", Take(env, std::move(snapshot.positions)));
        item.Set("k", Take(env, std::move(snapshot.k)));
        item.Set("v", Take(env, std::move(snapshot.v)));
        heads.Set(head, item);
      }
      layers.Set(layer, heads);
    }
    out.Set("heads", layers);
    return out;
  }

 protected:
  void Interrupt() override { pass_->RequestStop(); }

 private:
  std::shared_ptr<EngineCore> core_;
  std::unique_ptr<ForwardPass> pass_;
  MemoryUse memory_;
};

}  // namespace

EngineCore::EngineCore(std::shared_ptr<SerialQueue> queue_in, std::shared_ptr<const Model> model_in, std::shared_ptr<Backend> backend_in,
                       const BackendOptions& options)
    : queue(std::move(queue_in)), model(std::move(model_in)), backend(std::move(backend_in)), kv(options.kv),
      layout_id(LayoutIdOf(GeometryOf(model->config, options))), batch(backend, model->config.vocab_size), memory(backend->Memory()) {
  // V8 sees only a small object; told of the weights behind it, it collects dropped engines in time.
  Napi::MemoryManagement::AdjustExternalMemory(queue->env(), memory.weight_bytes);
}

EngineCore::~EngineCore() { Napi::MemoryManagement::AdjustExternalMemory(queue->env(), -memory.weight_bytes); }

void EngineHandle::Close() {
  if (const auto task = call.lock()) task->Cancel();
  core.reset();
}

Napi::Value NativeInfo(Napi::Env env, Napi::Value) {
  const Expected<Isa> isa = ResolveIsa(Isa::kAuto);
  if (!isa.ok()) return Throw(env, isa.status());
  Napi::Array isas = Napi::Array::New(env);
  uint32_t count = 0;
  for (const Isa level : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (ResolveIsa(level).ok()) isas.Set(count++, IsaName(level));
  }
  Napi::Object out = Napi::Object::New(env);
  out.Set("numericsId", kNumericsId);
  out.Set("isa", IsaName(*isa));
  out.Set("isas", isas);
  return out;
}

Napi::Value InspectModel(Napi::Env env, Napi::Value options) {
  Reader reader("inspectModel.options", options);
  ModelRequest request = ReadModelRequest(reader);
  if (!reader.status().ok()) return Throw(env, reader.status());
  const auto queue = std::make_shared<SerialQueue>(env);
  return queue->Start(std::make_shared<InspectTask>(std::move(request)));
}

Napi::Value OpenEngine(Napi::Env env, Napi::Value options) {
  Reader reader("openEngine.options", options);
  EngineRequest request = ReadEngineRequest(reader);
  if (!reader.status().ok()) return Throw(env, reader.status());
  const auto queue = std::make_shared<SerialQueue>(env);
  return queue->Start(std::make_shared<OpenTask>(queue, std::move(request)));
}

Napi::Value EngineMemory(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value) {
  if (engine->core == nullptr) return Throw(env, Error(kErrDisposed, "the engine is closed."));
  EngineCore& core = *engine->core;
  if (core.queue->idle()) core.memory = core.backend->Memory();
  return ToJs(env, core.memory);
}

Napi::Value EngineForward(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value options) {
  Reader reader("forward.options", options);
  ForwardRequest request;
  request.ids = reader.Int32Array("ids", kForwardIdsMax);
  request.prompt_len = reader.Int32("promptLen", 0, INT32_MAX);
  request.chunk = reader.Int32("chunk", 1, INT32_MAX);
  if (!reader.status().ok()) return Throw(env, reader.status());
  if (engine->core == nullptr) return Throw(env, Error(kErrDisposed, "the engine is closed."));
  if (!engine->call.expired()) return Throw(env, Error(kErrBusy, "a call of this engine is in flight."));
  const Status status = ForwardPass::Check(request, engine->core->model->config);
  if (!status.ok()) return Throw(env, status);
  const auto task = std::make_shared<ForwardTask>(engine->core, std::move(request));
  engine->call = task;
  return engine->core->queue->Start(task);
}

Napi::Value EngineCancel(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value) {
  if (const auto task = engine->call.lock()) task->Cancel();
  return env.Undefined();
}

Napi::Value EngineClose(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value) {
  engine->Close();
  return env.Undefined();
}

}  // namespace rum::bind
