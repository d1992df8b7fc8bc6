// createRun and the functions of a run handle.
#pragma once
#include <napi.h>

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

// ERR_DISPOSED, or ERR_BUSY while a call of the run is in flight.
Status CheckUsable(const RunHandle& run);

// Exported functions; arguments and results: engine/runtime/native.ts.
Napi::Value CreateRun(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value options);
Napi::Value RunPrefill(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value options);
Napi::Value RunStep(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value options);
Napi::Value RunCancel(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value options);
Napi::Value RunEnd(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value options);
Napi::Value RunReportNow(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value options);
Napi::Value RunClose(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value options);

}  // namespace rum::bind
