// Gives memory back to the system on a pool thread. The collector finalizes the objects of several checkpoints at once, a mapping for
// each of them and for each chain: in one turn of the JS thread that took 100 to 200 ms.
#pragma once
#include <napi.h>

#include <vector>

#include "core/mapped_buffer.h"

namespace rum::bind {

// JS thread, of one environment. What comes while a pool thread is at work waits for it, and then goes together.
class Reclaimer {
 public:
  void Take(napi_env env, MappedBuffer buffer);

 private:
  static void Execute(napi_env env, void* data);
  static void Complete(napi_env env, napi_status status, void* data);
  void Start(napi_env env);

  std::vector<MappedBuffer> waiting_;
  std::vector<MappedBuffer> going_;  // the pool thread's while there is work
  napi_async_work work_ = nullptr;
};

}  // namespace rum::bind
