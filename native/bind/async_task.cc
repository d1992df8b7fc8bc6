#include "bind/async_task.h"

#include <algorithm>
#include <utility>

namespace rum::bind {
namespace {

napi_value MakeError(napi_env env, const Status& status) {
  napi_value code = nullptr;
  napi_value message = nullptr;
  napi_value error = nullptr;
  const char* name = status.code == nullptr ? kErrInternal : status.code;
  if (napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &code) != napi_ok) return nullptr;
  if (napi_create_string_utf8(env, status.message.data(), status.message.size(), &message) != napi_ok) return nullptr;
  return napi_create_error(env, code, message, &error) == napi_ok ? error : nullptr;
}

void ClearException(napi_env env) {
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) != napi_ok || !pending) return;
  napi_value ignored = nullptr;
  napi_get_and_clear_last_exception(env, &ignored);
}

}  // namespace

napi_value Throw(napi_env env, const Status& status) {
  bool pending = false;
  if (napi_is_exception_pending(env, &pending) == napi_ok && pending) return nullptr;
  const napi_value error = MakeError(env, status);
  if (error != nullptr) napi_throw(env, error);
  return nullptr;
}

void Task::Cancel() {
  cancelled_.store(true, std::memory_order_relaxed);
  if (queue_ == nullptr) return;
  if (queue_->active_.get() == this) {
    Interrupt();
  } else {
    queue_->SettleWaiting(this);
  }
}

napi_value SerialQueue::Start(std::shared_ptr<Task> task) {
  napi_value promise = nullptr;
  if (napi_create_promise(env_, &task->deferred_, &promise) != napi_ok) {
    return Throw(env_, Error(kErrInternal, "the JS environment is shutting down"));
  }
  task->queue_ = this;
  waiting_.push_back(std::move(task));
  if (active_ == nullptr) Next();
  return promise;
}

void SerialQueue::WhenIdle(std::function<void()> function) {
  if (idle()) {
    function();
  } else {
    deferred_.push_back(std::move(function));
  }
}

// Starts the next waiting task that can be started.
void SerialQueue::Next() {
  while (active_ == nullptr && !waiting_.empty()) {
    active_ = std::move(waiting_.front());
    waiting_.pop_front();
    if (Submit()) return;
    const std::shared_ptr<Task> failed = std::exchange(active_, nullptr);
    failed->status_ = Error(kErrInternal, "the JS environment takes no more work");
    Settle(*failed);
  }
}

bool SerialQueue::Submit() {
  napi_value name = nullptr;
  if (addon_->stopping || napi_create_string_utf8(env_, "ruminate", NAPI_AUTO_LENGTH, &name) != napi_ok) return false;
  if (napi_create_async_work(env_, nullptr, name, Execute, Complete, this, &active_->work_) != napi_ok) return false;
  if (napi_queue_async_work(env_, active_->work_) != napi_ok) {
    napi_delete_async_work(env_, std::exchange(active_->work_, nullptr));
    return false;
  }
  self_ = shared_from_this();
  return true;
}

void SerialQueue::Execute(napi_env, void* data) {
  Task& task = *static_cast<SerialQueue*>(data)->active_;
  if (task.cancelled()) {
    task.status_ = Error(kErrCancelled, "the call was cancelled");
    return;
  }
  try {
    task.progress_ = task.Work(task.status_);
  } catch (const std::bad_alloc&) {
    task.status_ = Error(kErrMemory, "the machine has not enough memory for this call");
  } catch (const std::exception& error) {
    task.status_ = Error(kErrInternal, error.what());
  } catch (...) {
    task.status_ = Error(kErrInternal, "unknown exception");
  }
}

void SerialQueue::Complete(napi_env env, napi_status status, void* data) {
  SerialQueue& queue = *static_cast<SerialQueue*>(data);
  const std::shared_ptr<SerialQueue> keep = std::move(queue.self_);
  const std::shared_ptr<Task> task = std::exchange(queue.active_, nullptr);
  napi_delete_async_work(env, std::exchange(task->work_, nullptr));
  if (status == napi_cancelled && task->status_.ok()) task->status_ = Error(kErrCancelled, "the environment is shutting down");
  try {
    task->AfterSlice();
    for (const auto& function : std::exchange(queue.deferred_, {})) function();
  } catch (const std::exception& error) {
    if (task->status_.ok()) task->status_ = Error(kErrMemory, error.what());
  }

  const bool lives = queue.CanRunJs();
  bool done = !task->status_.ok() || task->progress_ == Progress::kDone;
  if (!done && (task->cancelled() || !lives)) {
    task->status_ = Error(kErrCancelled, "the call was cancelled");
    done = true;
  }
  if (done) {
    queue.Settle(*task);
  } else {
    queue.waiting_.push_back(task);
  }
  if (lives) {
    queue.Next();
  } else {
    // Nobody can hear of these any more.
    for (const auto& waiting : std::exchange(queue.waiting_, {})) waiting->queue_ = nullptr;
  }
}

void SerialQueue::SettleWaiting(Task* task) {
  const auto it = std::ranges::find_if(waiting_, [task](const auto& waiting) { return waiting.get() == task; });
  if (it == waiting_.end()) return;
  const std::shared_ptr<Task> keep = *it;
  waiting_.erase(it);
  keep->status_ = Error(kErrCancelled, "the call was cancelled");
  keep->AfterSlice();
  Settle(*keep);
}

void SerialQueue::Settle(Task& task) {
  task.queue_ = nullptr;
  napi_value value = nullptr;
  if (task.status_.ok()) {
    try {
      value = task.Result(env_);
    } catch (const std::bad_alloc&) {
      task.status_ = Error(kErrMemory, "the machine has not enough memory for the result");
    }
    if (value == nullptr && task.status_.ok()) task.status_ = Error(kErrInternal, "the result could not be handed over");
  }
  if (task.status_.ok()) {
    napi_resolve_deferred(env_, task.deferred_, value);
  } else {
    value = MakeError(env_, task.status_);
    if (value != nullptr) napi_reject_deferred(env_, task.deferred_, value);
  }
  // In an environment that is being torn down the calls above fail; that must not surface as an uncaught exception.
  if (!CanRunJs()) ClearException(env_);
}

// A property look-up is refused exactly when the environment may not run JS any more (worker.terminate(), process exit).
bool SerialQueue::CanRunJs() const {
  napi_value global = nullptr;
  bool has = false;
  return !addon_->stopping && napi_get_global(env_, &global) == napi_ok && napi_has_named_property(env_, global, "Object", &has) == napi_ok;
}

}  // namespace rum::bind
