// readGgufTokenizer of the boundary (engine/runtime/native.ts).
#pragma once
#include <node_api.h>

namespace rum::bind {

napi_value ReadGgufTokenizer(napi_env env, napi_callback_info info);

}  // namespace rum::bind
