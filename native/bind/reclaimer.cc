#include "bind/reclaimer.h"

#include <utility>

namespace rum::bind {

void Reclaimer::Take(napi_env env, MappedBuffer buffer) {
  waiting_.push_back(std::move(buffer));
  if (work_ == nullptr) Start(env);
}

// Where no work is to be had, as at the end of an environment, it goes here and now.
void Reclaimer::Start(napi_env env) {
  going_ = std::exchange(waiting_, {});
  napi_value name = nullptr;
  if (napi_create_string_utf8(env, "ruminate", NAPI_AUTO_LENGTH, &name) == napi_ok &&
      napi_create_async_work(env, nullptr, name, Execute, Complete, this, &work_) == napi_ok) {
    if (napi_queue_async_work(env, work_) == napi_ok) return;
    napi_delete_async_work(env, std::exchange(work_, nullptr));
  }
  going_.clear();
}

void Reclaimer::Execute(napi_env, void* data) { static_cast<Reclaimer*>(data)->going_.clear(); }

void Reclaimer::Complete(napi_env env, napi_status, void* data) {
  Reclaimer& reclaimer = *static_cast<Reclaimer*>(data);
  napi_delete_async_work(env, std::exchange(reclaimer.work_, nullptr));
  reclaimer.going_.clear();  // of a work that was never begun
  if (!reclaimer.waiting_.empty()) reclaimer.Start(env);
}

}  // namespace rum::bind
