// Module init. One addon, any number of environments: all state is in AddonData and in the handles.
#include "bind/addon.h"

#include "bind/engine_bind.h"
#include "bind/gguf_bind.h"
#include "bind/run_bind.h"

namespace rum::bind {
namespace {

using AddonBox = std::shared_ptr<AddonData>;

void DeleteBox(napi_env, void* data, void*) { delete static_cast<AddonBox*>(data); }

// Runs before the finalizers of the handles, which close what is still open.
void OnEnvironmentExit(void* data) {
  const std::unique_ptr<AddonBox> box(static_cast<AddonBox*>(data));
  (*box)->stopping = true;
}

napi_value Init(napi_env env, napi_value exports) {
  auto box = std::make_unique<AddonBox>(std::make_shared<AddonData>());
  auto hook = std::make_unique<AddonBox>(*box);
  if (napi_set_instance_data(env, box.get(), DeleteBox, nullptr) != napi_ok) return nullptr;
  box.release();
  if (napi_add_env_cleanup_hook(env, OnEnvironmentExit, hook.get()) != napi_ok) return nullptr;
  hook.release();

  const auto function = [](const char* name, napi_callback callback) {
    return napi_property_descriptor{name, nullptr, callback, nullptr, nullptr, nullptr, napi_enumerable, nullptr};
  };
  const napi_property_descriptor functions[] = {
      function("nativeInfo", NativeInfo),
      function("inspectModel", InspectModel),
      function("readGgufTokenizer", ReadGgufTokenizer),
      function("openEngine", OpenEngine),
      function("engineMemory", EngineMemory),
      function("engineForward", EngineForward),
      function("engineCancel", EngineCancel),
      function("engineClose", EngineClose),
      function("createRun", CreateRun),
      function("runPrefill", RunPrefill),
      function("runStep", RunStep),
      function("runCancel", RunCancel),
      function("runEnd", RunEnd),
      function("runReport", RunReportNow),
      function("runClose", RunClose),
  };
  napi_define_properties(env, exports, std::size(functions), functions);
  return exports;
}

}  // namespace

std::shared_ptr<AddonData> GetAddonData(napi_env env) {
  void* data = nullptr;
  if (napi_get_instance_data(env, &data) != napi_ok || data == nullptr) return std::make_shared<AddonData>();
  return *static_cast<AddonBox*>(data);
}

}  // namespace rum::bind

NAPI_MODULE_INIT() {
  return rum::bind::Guard(env, [&] { return rum::bind::Init(env, exports); });
}
