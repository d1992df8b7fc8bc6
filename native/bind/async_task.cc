#include "bind/async_task.h"

#include <algorithm>
#include <new>
#include <utility>

namespace rum::bind {
namespace {

Napi::Error MakeError(Napi::Env env, const Status& status) {
  const Napi::Error error = Napi::Error::New(env, status.message);
  const auto code = Napi::String::New(env, status.code == nullptr ? kErrInternal : status.code);
  // Defined, not set: a setter of Error.prototype could throw, and node-addon-api aborts where it throws with an exception pending.
  error.Value().DefineProperty(Napi::PropertyDescriptor::Value("code", code, napi_default_jsproperty));
  return error;
}

void ClearException(Napi::Env env) {
  if (env.IsExceptionPending()) env.GetAndClearPendingException();
}

}  // namespace

Napi::Value Throw(Napi::Env env, const Status& status) {
  if (!env.IsExceptionPending()) MakeError(env, status).ThrowAsJavaScriptException();
  return {};
}

Status Caught() {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return Error(kErrMemory, "the machine has not enough memory for this call");
  } catch (const std::exception& error) {
    return Error(kErrInternal, error.what());
  } catch (...) {
    return Error(kErrInternal, "unknown exception");
  }
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

Napi::Value SerialQueue::Start(std::shared_ptr<Task> task) {
  const Napi::Promise::Deferred& deferred = task->deferred_.emplace(env_);
  // It does not say whether it is there, and is uninitialised if not. It is, if JS may run afterwards: an end is for good.
  if (env_.IsExceptionPending() || !CanRunJs()) return Throw(env_, Error(kErrInternal, "the JS environment is shutting down"));
  const Napi::Value promise = deferred.Promise();
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

// Plain Node-API: Napi::AsyncWorker does not say that it could not be made or queued, and its destructor then frees what it never had.
bool SerialQueue::Submit() {
  const Napi::Value name = Napi::String::New(env_, "ruminate");
  if (addon_->stopping || napi_create_async_work(env_, nullptr, name, Execute, Complete, this, &active_->work_) != napi_ok) return false;
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
  } catch (...) {
    task.status_ = Caught();
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
  } catch (...) {
    if (task->status_.ok()) task->status_ = Caught();
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
  Napi::Value value;
  if (task.status_.ok()) {
    try {
      value = task.Result(env_);
      if (value.IsEmpty() || env_.IsExceptionPending()) task.status_ = Error(kErrInternal, "the result could not be handed over");
    } catch (...) {
      task.status_ = Caught();
    }
    ClearException(env_);  // with one pending no promise settles
  }
  if (task.status_.ok()) {
    task.deferred_->Resolve(value);
  } else {
    task.deferred_->Reject(MakeError(env_, task.status_).Value());
  }
  // What V8 makes a rejection (a `then` of Object.prototype that throws) must not surface as an uncaught exception too.
  ClearException(env_);
}

// A property look-up is refused exactly when the environment may not run JS any more (worker.terminate(), process exit). This
// property cannot be deleted.
bool SerialQueue::CanRunJs() const { return !addon_->stopping && env_.Global().Has("undefined"); }

}  // namespace rum::bind
