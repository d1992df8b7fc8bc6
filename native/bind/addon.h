// What every exported function starts with.
#pragma once
#include <node_api.h>

#include <array>
#include <memory>

#include "bind/async_task.h"
#include "bind/handle.h"

namespace rum::bind {

std::shared_ptr<AddonData> GetAddonData(napi_env env);

// The first two arguments; missing ones are undefined.
inline std::array<napi_value, 2> Arguments(napi_env env, napi_callback_info info) {
  std::array<napi_value, 2> values{};
  size_t count = values.size();
  napi_get_cb_info(env, info, &count, values.data(), nullptr, nullptr);
  return values;
}

// Runs `function(handle, options)` with the handle of the first argument. A wrong object is ERR_INTERNAL.
template <class T, class F>
napi_value WithHandle(napi_env env, napi_callback_info info, F&& function) {
  return Guard(env, [&]() -> napi_value {
    const auto arguments = Arguments(env, info);
    const std::shared_ptr<T> handle = Handle<T>::Get(env, arguments[0]);
    if (handle == nullptr) return Throw(env, Error(kErrInternal, "the first argument is not a handle of the right kind."));
    return function(handle, arguments[1]);
  });
}

inline napi_value Undefined(napi_env env) {
  napi_value value = nullptr;
  napi_get_undefined(env, &value);
  return value;
}

}  // namespace rum::bind
