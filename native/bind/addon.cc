// Module init. One addon, any number of environments: all state is in AddonData and in the handles.
#include <napi.h>

#include "bind/checkpoint_bind.h"
#include "bind/engine_bind.h"
#include "bind/files_bind.h"
#include "bind/gguf_bind.h"
#include "bind/handle.h"
#include "bind/prepare_bind.h"
#include "bind/run_bind.h"

namespace rum::bind {
namespace {

Napi::Value Call(const Napi::CallbackInfo& info, Napi::Value (*function)(Napi::Env, Napi::Value)) { return function(info.Env(), info[0]); }

// A function of a handle: the first argument. A wrong object is ERR_INTERNAL.
template <class T>
Napi::Value Call(const Napi::CallbackInfo& info, Napi::Value (*function)(Napi::Env, const std::shared_ptr<T>&, Napi::Value)) {
  const std::shared_ptr<T> handle = Handle<T>::Get(info[0]);
  if (handle == nullptr) return Throw(info.Env(), Error(kErrInternal, "the first argument is not a handle of the right kind."));
  return function(info.Env(), handle, info[1]);
}

// What JS calls. Node-API's own wrapper of it is noexcept.
template <auto kFunction>
Napi::Value Entry(const Napi::CallbackInfo& info) {
  try {
    return Call(info, kFunction);
  } catch (...) {
    return Throw(info.Env(), Caught());
  }
}

template <auto kFunction>
Napi::PropertyDescriptor Export(Napi::Env env, const char* name) {
  return Napi::PropertyDescriptor::Value(name, Napi::Function::New<Entry<kFunction>>(env, name), napi_enumerable);
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  try {
    const auto addon = std::make_shared<AddonData>();
    env.SetInstanceData(new std::shared_ptr<AddonData>(addon));
    // Runs before the finalizers of the handles, which close what is still open.
    env.AddCleanupHook([addon] { addon->stopping = true; });
    exports.DefineProperties({
        Export<NativeInfo>(env, "nativeInfo"),
        Export<InspectModel>(env, "inspectModel"),
        Export<ReadGgufTokenizer>(env, "readGgufTokenizer"),
        Export<OpenEngine>(env, "openEngine"),
        Export<EngineMemory>(env, "engineMemory"),
        Export<EngineForward>(env, "engineForward"),
        Export<EngineCancel>(env, "engineCancel"),
        Export<EngineClose>(env, "engineClose"),
        Export<CreateRun>(env, "createRun"),
        Export<RunPrefill>(env, "runPrefill"),
        Export<RunStep>(env, "runStep"),
        Export<RunCancel>(env, "runCancel"),
        Export<RunEnd>(env, "runEnd"),
        Export<RunReportNow>(env, "runReport"),
        Export<RunClose>(env, "runClose"),
        Export<RunSave>(env, "runSave"),
        Export<PrepareRestore>(env, "prepareRestore"),
        Export<PreparedWork>(env, "preparedWork"),
        Export<PreparedClose>(env, "preparedClose"),
        Export<RestoreRun>(env, "restoreRun"),
        Export<EngineIdentity>(env, "engineIdentity"),
        Export<DecodeJournals>(env, "decodeJournals"),
        Export<VerifyObject>(env, "verifyObject"),
        Export<FileSteps>(env, "fileSteps"),
    });
  } catch (...) {
    Throw(env, Caught());
  }
  return exports;
}

NODE_API_MODULE(ruminate, Init)

}  // namespace
}  // namespace rum::bind
