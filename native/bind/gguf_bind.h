// readGgufTokenizer of the boundary (engine/runtime/native.ts).
#pragma once
#include <napi.h>

namespace rum::bind {

Napi::Value ReadGgufTokenizer(Napi::Env env, Napi::Value options);

}  // namespace rum::bind
