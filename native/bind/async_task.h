// The edge between N-API and the engine, and the only place of native/ with try/catch: no exception and no abort crosses it.
// A task copies its arguments on the JS thread, works on a pool thread in slices, and settles a promise on the JS thread.
//
// Slices: Node waits for the work in flight before it runs any clean-up hook, so a worker thread that is terminated, or a process
// that exits, would wait for the end of a long call. A task therefore gives its thread back every 100 to 200 ms
// (slice_clock.h) and is queued again only if the environment still lives.
#pragma once
#include <node_api.h>

#include <atomic>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "core/status.h"

namespace rum::bind {

// Of one environment (main thread or worker); no state of this addon is process-wide.
struct AddonData {
  bool stopping = false;  // set by the clean-up hook
};

// Throws a JS Error with `.code`, unless an exception (of a getter, say) is already on its way. Returns nullptr for the caller to return.
napi_value Throw(napi_env env, const Status& status);

// Runs a synchronous function of the boundary.
template <class F>
napi_value Guard(napi_env env, F&& function) {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return Throw(env, Error(kErrMemory, "out of memory"));
  } catch (const std::exception& error) {
    return Throw(env, Error(kErrInternal, error.what()));
  } catch (...) {
    return Throw(env, Error(kErrInternal, "unknown exception"));
  }
}

enum class Progress { kDone, kMore };

class SerialQueue;

class Task {
 public:
  virtual ~Task() = default;
  // Pool thread. kMore: call again. A failure goes to `status`; then the result is kDone whatever is returned.
  virtual Progress Work(Status& status) = 0;
  // JS thread, after each slice and before the promise settles: publish what the slice did.
  virtual void AfterSlice() {}
  // JS thread, once, after success: the value of the promise.
  virtual napi_value Result(napi_env env) = 0;

  // JS thread. The task settles with ERR_CANCELLED: at once if no slice runs, else at the end of the step that runs.
  void Cancel();
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 protected:
  // JS thread, from Cancel, while a slice runs: make it return soon.
  virtual void Interrupt() {}

 private:
  friend class SerialQueue;
  napi_deferred deferred_ = nullptr;
  napi_async_work work_ = nullptr;
  Status status_;
  Progress progress_ = Progress::kMore;
  std::atomic<bool> cancelled_{false};
  SerialQueue* queue_ = nullptr;
};

// Runs the tasks of one backend one at a time, slice by slice in turn. A waiting task holds no pool thread. JS thread only; it is
// kept alive by the tasks (`keep`), and nobody but the JS thread touches it, so nothing here is locked.
class SerialQueue : public std::enable_shared_from_this<SerialQueue> {
 public:
  SerialQueue(napi_env env, std::shared_ptr<AddonData> addon) : env_(env), addon_(std::move(addon)) {}
  // Returns a promise (nullptr with a JS exception if there is none to be had).
  napi_value Start(std::shared_ptr<Task> task);
  // Runs now, or when the slice in flight has ended. For the few cheap things that touch the backend outside a task.
  void WhenIdle(std::function<void()> function);
  bool idle() const { return active_ == nullptr; }
  napi_env env() const { return env_; }

 private:
  friend class Task;
  static void Execute(napi_env env, void* data);
  static void Complete(napi_env env, napi_status status, void* data);
  void Next();
  bool Submit();
  void SettleWaiting(Task* task);
  void Settle(Task& task);
  bool CanRunJs() const;

  napi_env env_;
  std::shared_ptr<AddonData> addon_;
  std::shared_ptr<Task> active_;
  std::shared_ptr<SerialQueue> self_;  // while a slice is in flight
  std::deque<std::shared_ptr<Task>> waiting_;
  std::vector<std::function<void()>> deferred_;
};

}  // namespace rum::bind
