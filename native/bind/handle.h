// A JS object that owns a shared_ptr<T>, recognised by a type tag: any other object passed in its place is a clean error.
#pragma once
#include <node_api.h>

#include <memory>

#include "bind/async_task.h"

namespace rum::bind {

template <class T>
class Handle {
 public:
  static napi_value New(napi_env env, std::shared_ptr<T> target) {
    napi_value object = nullptr;
    if (napi_create_object(env, &object) != napi_ok) return nullptr;
    auto box = std::make_unique<std::shared_ptr<T>>(std::move(target));
    const auto finalize = [](napi_env, void* data, void*) { delete static_cast<std::shared_ptr<T>*>(data); };
    if (napi_wrap(env, object, box.get(), finalize, nullptr, nullptr) != napi_ok) return nullptr;
    box.release();  // the collector's now
    return napi_type_tag_object(env, object, &T::kTypeTag) == napi_ok ? object : nullptr;
  }

  // nullptr if `value` is no such handle.
  static std::shared_ptr<T> Get(napi_env env, napi_value value) {
    bool tagged = false;
    void* data = nullptr;
    napi_valuetype type = napi_undefined;
    if (value == nullptr || napi_typeof(env, value, &type) != napi_ok || type != napi_object) return nullptr;
    if (napi_check_object_type_tag(env, value, &T::kTypeTag, &tagged) != napi_ok || !tagged) return nullptr;
    if (napi_unwrap(env, value, &data) != napi_ok || data == nullptr) return nullptr;
    return *static_cast<std::shared_ptr<T>*>(data);
  }
};

}  // namespace rum::bind
