#include "bind/async_task.h"

#include <algorithm>
#include <iterator>
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

// With which the pool thread calls the JS thread in the middle of a slice. It belongs to the environment, which may end before its queue or after.
class Bell {
 public:
  // nullptr if there is none to be had.
  static Bell* New(napi_env env, SerialQueue* queue) {
    auto bell = std::make_unique<Bell>(queue);
    napi_value name = nullptr;
    if (napi_create_string_utf8(env, "ruminate", NAPI_AUTO_LENGTH, &name) != napi_ok) return nullptr;
    if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, bell.get(), Destroy, bell.get(), Answer, &bell->function_) != napi_ok) return nullptr;
    napi_unref_threadsafe_function(env, bell->function_);  // the slice keeps the environment awake
    return bell.release();
  }
  explicit Bell(SerialQueue* queue) : queue_(queue) {}

  void Ring() { (void)napi_call_threadsafe_function(function_, nullptr, napi_tsfn_nonblocking); }
  // The queue dies.
  void Drop() {
    queue_ = nullptr;
    (void)napi_release_threadsafe_function(function_, napi_tsfn_abort);
  }

 private:
  // The environment is nullptr when it ends; then the bell is gone too.
  static void Answer(napi_env env, napi_value, void* context, void*) {
    if (env == nullptr) return;
    SerialQueue* const queue = static_cast<Bell*>(context)->queue_;
    if (queue != nullptr) queue->SettleLeft();
  }
  static void Destroy(napi_env, void* data, void*) {
    const std::unique_ptr<Bell> bell(static_cast<Bell*>(data));
    if (bell->queue_ != nullptr) bell->queue_->bell_ = nullptr;
  }

  SerialQueue* queue_;
  napi_threadsafe_function function_ = nullptr;
};

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
  if (queue_->IsActive(this)) {
    Interrupt();
  } else {
    queue_->SettleWaiting(this);
  }
}

void SharedSlice::Admit(std::vector<std::shared_ptr<Task>>* tasks) {
  const std::lock_guard lock(queue_.mutex_);
  tasks->insert(tasks->end(), queue_.active_.begin() + static_cast<std::ptrdiff_t>(admitted_), queue_.active_.end());
  admitted_ = queue_.active_.size();
}

bool SharedSlice::IsOver() const { return queue_.over_.load(std::memory_order_relaxed); }

void SharedSlice::Done(Task& task, Status status) {
  task.status_ = std::move(status);
  task.progress_ = Progress::kDone;
}

bool SharedSlice::may_be_left() const { return queue_.bell_ != nullptr; }

void SharedSlice::Leave(std::shared_ptr<Task> task, Status status) {
  Done(*task, std::move(status));
  {
    const std::lock_guard lock(queue_.mutex_);
    queue_.active_.erase(std::ranges::find(queue_.active_, task));
    --admitted_;
    queue_.left_.push_back(std::move(task));
  }
  queue_.bell_->Ring();
}

SerialQueue::~SerialQueue() {
  if (bell_ != nullptr) bell_->Drop();
}

Napi::Value SerialQueue::Start(std::shared_ptr<Task> task) {
  const Napi::Promise::Deferred& deferred = task->deferred_.emplace(env_);
  // It does not say whether it is there, and is uninitialised if not. It is, if JS may run afterwards: an end is for good.
  if (env_.IsExceptionPending() || !CanRunJs()) return Throw(env_, Error(kErrInternal, "the JS environment is shutting down"));
  const Napi::Value promise = deferred.Promise();
  task->queue_ = this;
  // What was deferred comes first: it may be about the same run.
  if (task->joins() && deferred_.empty()) {
    const std::lock_guard lock(mutex_);
    if (shared_) {
      active_.push_back(std::move(task));
      return promise;
    }
  }
  waiting_.push_back(std::move(task));
  if (idle()) {
    Next();
  } else {
    over_.store(true, std::memory_order_relaxed);  // a shared slice would go on for as long as its clock lets it
  }
  return promise;
}

void SerialQueue::WhenIdle(std::function<void()> function) {
  if (idle()) {
    function();
  } else {
    deferred_.push_back(std::move(function));
    over_.store(true, std::memory_order_relaxed);
  }
}

// Starts the next waiting task that can be started, and all that join it.
void SerialQueue::Next() {
  while (idle() && !waiting_.empty()) {
    active_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    if (active_[0]->joins()) {
      const auto joined = std::stable_partition(waiting_.begin(), waiting_.end(), [](const auto& task) { return !task->joins(); });
      std::move(joined, waiting_.end(), std::back_inserter(active_));
      waiting_.erase(joined, waiting_.end());
    }
    if (Submit()) return;
    for (const std::shared_ptr<Task>& failed : std::exchange(active_, {})) {
      failed->status_ = Error(kErrInternal, "the JS environment takes no more work");
      Settle(*failed);
    }
  }
}

// Plain Node-API: Napi::AsyncWorker does not say that it could not be made or queued, and its destructor then frees what it never had.
bool SerialQueue::Submit() {
  const Napi::Value name = Napi::String::New(env_, "ruminate");
  if (addon_->stopping || napi_create_async_work(env_, nullptr, name, Execute, Complete, this, &work_) != napi_ok) return false;
  shared_ = active_[0]->joins();
  if (shared_) {
    shared_work_ = active_[0]->Together();
    if (bell_ == nullptr) bell_ = Bell::New(env_, this);
  }
  over_.store(false, std::memory_order_relaxed);
  self_ = shared_from_this();
  if (napi_queue_async_work(env_, work_) == napi_ok) return true;
  shared_ = false;
  shared_work_ = nullptr;
  self_ = nullptr;
  napi_delete_async_work(env_, std::exchange(work_, nullptr));
  return false;
}

void SerialQueue::Execute(napi_env, void* data) {
  SerialQueue& queue = *static_cast<SerialQueue*>(data);
  if (queue.shared_work_ != nullptr) return queue.ExecuteTogether();
  const std::shared_ptr<Task>& task = queue.active_[0];
  if (task->cancelled()) {
    task->status_ = Error(kErrCancelled, "the call was cancelled");
    return;
  }
  try {
    task->progress_ = task->Work(task->status_);
  } catch (...) {
    task->status_ = Caught();
  }
}

void SerialQueue::ExecuteTogether() {
  Status status = Status::Ok();
  try {
    SharedSlice slice(*this);
    shared_work_->WorkTogether(slice);
  } catch (...) {
    status = Caught();
  }
  const std::lock_guard lock(mutex_);
  shared_ = false;
  for (const std::shared_ptr<Task>& task : active_) {
    if (task->status_.ok()) task->status_ = status;
  }
}

void SerialQueue::Complete(napi_env env, napi_status status, void* data) {
  SerialQueue& queue = *static_cast<SerialQueue*>(data);
  const std::shared_ptr<SerialQueue> keep = std::move(queue.self_);
  queue.shared_ = false;  // a slice that was never begun
  queue.shared_work_ = nullptr;
  const std::vector<std::shared_ptr<Task>> tasks = std::exchange(queue.active_, {});
  napi_delete_async_work(env, std::exchange(queue.work_, nullptr));
  queue.SettleLeft();
  for (const std::shared_ptr<Task>& task : tasks) {
    if (status == napi_cancelled && task->status_.ok()) task->status_ = Error(kErrCancelled, "the environment is shutting down");
    queue.Publish(*task);
  }
  queue.RunDeferred(tasks);
  const bool lives = queue.CanRunJs();
  for (const std::shared_ptr<Task>& task : tasks) {
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
  }
  if (lives) {
    queue.Next();
  } else {
    // Nobody can hear of these any more.
    for (const auto& waiting : std::exchange(queue.waiting_, {})) waiting->queue_ = nullptr;
  }
}

// What a slice did is published before anyone is told.
void SerialQueue::Publish(Task& task) {
  try {
    task.AfterSlice();
  } catch (...) {
    if (task.status_.ok()) task.status_ = Caught();
  }
}

void SerialQueue::RunDeferred(const std::vector<std::shared_ptr<Task>>& tasks) {
  try {
    for (const auto& function : std::exchange(deferred_, {})) function();
  } catch (...) {
    for (const std::shared_ptr<Task>& task : tasks) {
      if (task->status_.ok()) task->status_ = Caught();
    }
  }
}

void SerialQueue::SettleLeft() {
  std::vector<std::shared_ptr<Task>> left;
  {
    const std::lock_guard lock(mutex_);
    left = std::exchange(left_, {});
  }
  for (const std::shared_ptr<Task>& task : left) {
    Publish(*task);
    Settle(*task);
  }
}

bool SerialQueue::IsActive(const Task* task) {
  const std::lock_guard lock(mutex_);
  return std::ranges::any_of(active_, [task](const auto& active) { return active.get() == task; });
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
