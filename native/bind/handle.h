// A JS value that owns a shared_ptr<T>, recognised by a type tag: anything else passed in its place is a clean error.
#pragma once
#include <napi.h>

#include <memory>

namespace rum::bind {

template <class T>
class Handle {
  using Box = std::shared_ptr<T>;

 public:
  // Empty if there can be none.
  static Napi::Value New(Napi::Env env, Box target) {
    auto box = std::make_unique<Box>(std::move(target));
    const auto handle = Napi::External<Box>::New(env, box.get(), [](Napi::Env, Box* data) { delete data; });
    if (handle.IsEmpty()) return handle;
    box.release();  // the collector's now
    handle.TypeTag(&T::kTypeTag);
    return handle;
  }

  // nullptr if `value` is no such handle.
  static Box Get(Napi::Value value) {
    if (!value.IsExternal()) return nullptr;
    const auto handle = value.As<Napi::External<Box>>();
    return handle.CheckTypeTag(&T::kTypeTag) ? *handle.Data() : nullptr;
  }
};

}  // namespace rum::bind
