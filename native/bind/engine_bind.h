// openEngine, inspectModel and the functions of an engine handle.
#pragma once
#include <napi.h>

#include <memory>

#include "backend/backend.h"
#include "bind/async_task.h"
#include "bind/slice_clock.h"
#include "checkpoint/object.h"
#include "run/batch.h"

namespace rum::bind {

// What an engine and its runs share; lives until the last of them is closed and its call in flight has settled. Its members are
// used by the slice in flight or, between slices, by the JS thread (SerialQueue); created and destroyed on the JS thread.
struct EngineCore {
  EngineCore(std::shared_ptr<SerialQueue> queue_in, std::shared_ptr<const Model> model_in, std::shared_ptr<Backend> backend_in,
             const BackendOptions& options);
  ~EngineCore();
  EngineCore(const EngineCore&) = delete;

  const std::shared_ptr<SerialQueue> queue;
  const std::shared_ptr<const Model> model;
  const std::shared_ptr<Backend> backend;
  const KvType kv;
  const LayoutId layout_id;  // of its checkpoints
  Batch batch;               // what its runs step in
  SliceClock clock;
  MemoryUse memory;  // as of the end of the last slice
};

struct EngineHandle {
  static constexpr napi_type_tag kTypeTag{0x8d6f3a1c52be4e07, 0xa4c9b07de81f3362};
  std::shared_ptr<EngineCore> core;  // nullptr: closed
  std::weak_ptr<Task> call;          // the forward pass or identity in flight
  ~EngineHandle() { Close(); }
  void Close();
};

// Exported functions; arguments and results: engine/runtime/native.ts.
Napi::Value NativeInfo(Napi::Env env, Napi::Value options);
Napi::Value InspectModel(Napi::Env env, Napi::Value options);
Napi::Value OpenEngine(Napi::Env env, Napi::Value options);
Napi::Value EngineMemory(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value options);
Napi::Value EngineForward(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value options);
Napi::Value EngineCancel(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value options);
Napi::Value EngineClose(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value options);

}  // namespace rum::bind
