#include "bind/engine_bind.h"

#include <chrono>
#include <string>
#include <utility>

#include "bind/addon.h"
#include "bind/dto.h"
#include "bind/forward.h"

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
  napi_value Result(napi_env env) override { return ToJs(env, *model_); }

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

  napi_value Result(napi_env env) override {
    auto engine = std::make_shared<EngineHandle>();
    engine->core = std::make_shared<EngineCore>(queue_, model_, backend_, request_.options.kv);
    Writer out(env);
    out.Set("info", ToJs(env, *model_));
    out.String("isa", IsaName(backend_->isa()));
    out.String("kv", KvName(request_.options.kv));
    const napi_value handle = Handle<EngineHandle>::New(env, std::move(engine));
    if (handle == nullptr) return nullptr;
    out.Set("handle", handle);
    return out.object();
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

  napi_value Result(napi_env env) override {
    ForwardOutcome& outcome = pass_->outcome();
    const ModelConfig& config = core_->model->config;
    Writer out(env);
    out.Set("logits", TakeFloats(env, std::move(outcome.logits)));
    if (config.policy.decides()) {
      out.Set("evictDecision", TakeBytes(env, std::move(outcome.evict_decision)));
    } else {
      out.Null("evictDecision");
    }
    outcome.scores.empty() ? out.Null("scores") : out.Set("scores", TakeFloats(env, std::move(outcome.scores)));
    out.Set("liveCount", TakeInt32s(env, std::move(outcome.live_count)));
    out.Double("kvReadsDecode", outcome.kv_reads_decode);
    out.Double("kvReadsAll", outcome.kv_reads_all);
    out.Double("peakTokens", outcome.peak_tokens);
    napi_value layers = nullptr;
    napi_create_array(env, &layers);
    size_t next = 0;
    for (uint32_t layer = 0; layer < static_cast<uint32_t>(config.num_layers); ++layer) {
      napi_value heads = nullptr;
      napi_create_array(env, &heads);
      for (uint32_t head = 0; head < static_cast<uint32_t>(config.num_kv_heads); ++head) {
        HeadSnapshot& snapshot = outcome.heads[next++];
        Writer item(env);
        item.Set("positions", TakeInt32s(env, std::move(snapshot.positions)));
        item.Set("k", TakeFloats(env, std::move(snapshot.k)));
        item.Set("v", TakeFloats(env, std::move(snapshot.v)));
        napi_set_element(env, heads, head, item.object());
      }
      napi_set_element(env, layers, layer, heads);
    }
    out.Set("heads", layers);
    return out.object();
  }

 protected:
  void Interrupt() override { pass_->RequestStop(); }

 private:
  std::shared_ptr<EngineCore> core_;
  std::unique_ptr<ForwardPass> pass_;
  MemoryUse memory_;
};

}  // namespace

EngineCore::EngineCore(std::shared_ptr<SerialQueue> queue_in, std::shared_ptr<const Model> model_in, std::shared_ptr<Backend> backend_in, KvType kv_in)
    : queue(std::move(queue_in)), model(std::move(model_in)), backend(std::move(backend_in)), kv(kv_in), memory(backend->Memory()) {
  // V8 sees only a small object; told of the weights behind it, it collects dropped engines in time.
  int64_t total = 0;
  napi_adjust_external_memory(queue->env(), memory.weight_bytes, &total);
}

EngineCore::~EngineCore() {
  int64_t total = 0;
  napi_adjust_external_memory(queue->env(), -memory.weight_bytes, &total);
}

void EngineHandle::Close() {
  if (const auto task = call.lock()) task->Cancel();
  core.reset();
}

napi_value NativeInfo(napi_env env, napi_callback_info) {
  return Guard(env, [&]() -> napi_value {
    const Expected<Isa> isa = ResolveIsa(Isa::kAuto);
    if (!isa.ok()) return Throw(env, isa.status());
    napi_value isas = nullptr;
    napi_create_array(env, &isas);
    uint32_t count = 0;
    for (const Isa level : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
      napi_value name = nullptr;
      if (!ResolveIsa(level).ok()) continue;
      napi_create_string_utf8(env, IsaName(level), NAPI_AUTO_LENGTH, &name);
      napi_set_element(env, isas, count++, name);
    }
    Writer out(env);
    out.String("numericsId", kNumericsId);
    out.String("isa", IsaName(*isa));
    out.Set("isas", isas);
    return out.object();
  });
}

napi_value InspectModel(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    Reader reader(env, "inspectModel.options", Arguments(env, info)[0]);
    ModelRequest request = ReadModelRequest(reader);
    if (!reader.status().ok()) return Throw(env, reader.status());
    const auto queue = std::make_shared<SerialQueue>(env, GetAddonData(env));
    return queue->Start(std::make_shared<InspectTask>(std::move(request)));
  });
}

napi_value OpenEngine(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    Reader reader(env, "openEngine.options", Arguments(env, info)[0]);
    EngineRequest request = ReadEngineRequest(reader);
    if (!reader.status().ok()) return Throw(env, reader.status());
    const auto queue = std::make_shared<SerialQueue>(env, GetAddonData(env));
    return queue->Start(std::make_shared<OpenTask>(queue, std::move(request)));
  });
}

napi_value EngineMemory(napi_env env, napi_callback_info info) {
  return WithHandle<EngineHandle>(env, info, [&](const std::shared_ptr<EngineHandle>& engine, napi_value) -> napi_value {
    if (engine->core == nullptr) return Throw(env, Error(kErrDisposed, "the engine is closed."));
    EngineCore& core = *engine->core;
    if (core.queue->idle()) core.memory = core.backend->Memory();
    return ToJs(env, core.memory);
  });
}

napi_value EngineForward(napi_env env, napi_callback_info info) {
  return WithHandle<EngineHandle>(env, info, [&](const std::shared_ptr<EngineHandle>& engine, napi_value options) -> napi_value {
    Reader reader(env, "forward.options", options);
    ForwardRequest request;
    request.ids = reader.Int32Array("ids", kForwardIdsMax);
    request.prompt_len = reader.Int32("promptLen", 0, INT32_MAX);
    request.chunk = reader.Int32("chunk", 1, INT32_MAX);
    if (!reader.status().ok()) return Throw(env, reader.status());
    if (engine->core == nullptr) return Throw(env, Error(kErrDisposed, "the engine is closed."));
    if (!engine->call.expired()) return Throw(env, Error(kErrBusy, "a forward pass of this engine is in flight."));
    const Status status = ForwardPass::Check(request, engine->core->model->config);
    if (!status.ok()) return Throw(env, status);
    const auto task = std::make_shared<ForwardTask>(engine->core, std::move(request));
    engine->call = task;
    return engine->core->queue->Start(task);
  });
}

napi_value EngineCancel(napi_env env, napi_callback_info info) {
  return WithHandle<EngineHandle>(env, info, [&](const std::shared_ptr<EngineHandle>& engine, napi_value) -> napi_value {
    if (const auto task = engine->call.lock()) task->Cancel();
    return Undefined(env);
  });
}

napi_value EngineClose(napi_env env, napi_callback_info info) {
  return WithHandle<EngineHandle>(env, info, [&](const std::shared_ptr<EngineHandle>& engine, napi_value) -> napi_value {
    engine->Close();
    return Undefined(env);
  });
}

}  // namespace rum::bind
