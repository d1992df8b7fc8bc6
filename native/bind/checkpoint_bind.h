// Saving and restoring runs, reading journals, and the identity of an engine. Arguments and results: engine/runtime/native.ts.
#pragma once
#include <napi.h>

#include <memory>

#include "bind/run_bind.h"

namespace rum::bind {

Napi::Value RunSave(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value options);
Napi::Value RestoreRun(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value options);
Napi::Value EngineIdentity(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value options);
Napi::Value DecodeJournals(Napi::Env env, Napi::Value options);
Napi::Value VerifyObject(Napi::Env env, Napi::Value options);

}  // namespace rum::bind
