// Memory for a restore, made present while its objects are read. Arguments and results: engine/runtime/native.ts.
#pragma once
#include <napi.h>

#include <memory>

#include "bind/engine_bind.h"
#include "checkpoint/prepared_memory.h"

namespace rum::bind {

// JS thread; a task in flight shares `memory`.
struct PreparedHandle {
  static constexpr napi_type_tag kTypeTag{0x5b8e20c7f4193ad6, 0xc16a7d93e5084bf2};
  std::shared_ptr<EngineCore> core;  // first, as the memory is of its pool; nullptr: closed
  std::shared_ptr<PreparedMemory> memory;  // nullptr too if the backend restores nothing
};

Napi::Value PrepareRestore(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value options);
Napi::Value PreparedWork(Napi::Env env, const std::shared_ptr<PreparedHandle>& prepared, Napi::Value options);
Napi::Value PreparedClose(Napi::Env env, const std::shared_ptr<PreparedHandle>& prepared, Napi::Value options);

}  // namespace rum::bind
