#pragma once
#include <napi.h>

namespace rum::bind {

Napi::Value FileSteps(Napi::Env env, Napi::Value options);

}  // namespace rum::bind
