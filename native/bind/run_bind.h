// createRun and the functions of a run handle.
#pragma once
#include <node_api.h>

#include <memory>

#include "bind/async_task.h"
#include "bind/engine_bind.h"
#include "run/run.h"

namespace rum::bind {

// JS thread, except that the task in flight uses `run`. `snapshot` is replaced between slices, so a report never waits.
struct RunHandle {
  static constexpr napi_type_tag kTypeTag{0x1f0be1d8a3c9476e, 0x93d2546bfa07c815};
  std::shared_ptr<EngineCore> core;
  std::shared_ptr<Run> run;
  RunReport snapshot;
  std::weak_ptr<Task> call;  // the prefill or step in flight
  bool closed = false;
  ~RunHandle() { Release(); }
  // Frees the run and lets go of the engine.
  void Release();
};

// Exported functions; arguments and results: engine/runtime/native.ts.
napi_value CreateRun(napi_env env, napi_callback_info info);
napi_value RunPrefill(napi_env env, napi_callback_info info);
napi_value RunStep(napi_env env, napi_callback_info info);
napi_value RunCancel(napi_env env, napi_callback_info info);
napi_value RunEnd(napi_env env, napi_callback_info info);
napi_value RunReportNow(napi_env env, napi_callback_info info);
napi_value RunClose(napi_env env, napi_callback_info info);

}  // namespace rum::bind
