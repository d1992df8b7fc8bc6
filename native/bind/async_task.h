// The edge between N-API and the engine: no exception and no abort crosses it. node-addon-api is built without C++ exceptions, and
// with NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS: a call that fails returns an empty value and leaves a JS exception, or none in an
// environment that is being torn down. Everything made may thus be empty; what is made of an empty Object (its Env is null) aborts.
//
// A task copies its arguments on the JS thread, works on a pool thread in slices, and settles a promise on the JS thread.
//
// Slices: Node waits for the work in flight before it runs any clean-up hook, so a worker thread that is terminated, or a process
// that exits, would wait for the end of a long call. A task therefore gives its thread back every 100 to 200 ms
// (slice_clock.h) and is queued again only if the environment still lives.
#pragma once
#include <napi.h>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "bind/reclaimer.h"
#include "core/status.h"

namespace rum::bind {

// Of one environment (main thread or worker); no state of this addon is process-wide.
struct AddonData {
  bool stopping = false;  // set by the clean-up hook
  Reclaimer reclaimer;
};

// Throws a JS Error with `.code`, unless an exception (of a getter, say) is already on its way. Returns an empty value for the
// caller to return.
Napi::Value Throw(Napi::Env env, const Status& status);

// Within catch (...): what was caught.
Status Caught();

enum class Progress { kDone, kMore };

class Bell;
class SerialQueue;
class SharedSlice;

// What works for all tasks of a slice that join. Created and destroyed on the JS thread, of which no task is: those leave in the middle.
class SharedWork {
 public:
  virtual ~SharedWork() = default;
  virtual void WorkTogether(SharedSlice&) = 0;  // pool thread
};

class Task {
 public:
  virtual ~Task() = default;
  // Pool thread. kMore: call again. A failure goes to `status`; then the result is kDone whatever is returned.
  virtual Progress Work(Status& /*status*/) { return Progress::kDone; }
  // Tasks that join share their slices with all others of the queue that do, also with those that start while a slice is in flight:
  // in place of Work, what one of them gives does the work of all.
  virtual bool joins() const { return false; }
  virtual std::shared_ptr<SharedWork> Together() { return nullptr; }
  // JS thread, after each slice (or, having left it, at once) and before the promise settles: publish what the slice did.
  virtual void AfterSlice() {}
  // JS thread, once, after success: the value of the promise.
  virtual Napi::Value Result(Napi::Env env) = 0;

  // JS thread. The task settles with ERR_CANCELLED: at once if no slice runs, else at the end of the step that runs.
  void Cancel();
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 protected:
  // JS thread, from Cancel, while a slice runs: make it return soon.
  virtual void Interrupt() {}

 private:
  friend class SerialQueue;
  friend class SharedSlice;
  std::optional<Napi::Promise::Deferred> deferred_;
  Status status_;
  Progress progress_ = Progress::kMore;
  std::atomic<bool> cancelled_{false};
  SerialQueue* queue_ = nullptr;
};

// The tasks of a slice that is worked together. Pool thread.
class SharedSlice {
 public:
  explicit SharedSlice(SerialQueue& queue) : queue_(queue) {}
  // Adds those that have come since the last call; the first call has all that began with the slice.
  void Admit(std::vector<std::shared_ptr<Task>>* tasks);
  // Someone waits for the slice to end who should not wait for long.
  bool IsOver() const;
  // A task that is not said to be done goes on in the next slice.
  void Done(Task& task, Status status);
  // Done too, and settled now, while the others go on: the queue has the only hold of it from here on. A slice that may not be left ends
  // instead, and whoever is the last in it ends it.
  bool may_be_left() const;
  void Leave(std::shared_ptr<Task> task, Status status);

 private:
  SerialQueue& queue_;
  size_t admitted_ = 0;
};

// Runs the tasks of one backend one at a time, or together those that join, slice by slice in turn. A waiting task holds no pool
// thread. JS thread only, except for what a SharedSlice takes in and lets go (mutex_); it is kept alive by the tasks.
class SerialQueue : public std::enable_shared_from_this<SerialQueue> {
 public:
  explicit SerialQueue(Napi::Env env) : env_(env), addon_(*env.GetInstanceData<std::shared_ptr<AddonData>>()) {}
  ~SerialQueue();
  SerialQueue(const SerialQueue&) = delete;
  // Returns a promise (empty with a JS exception if there is none to be had).
  Napi::Value Start(std::shared_ptr<Task> task);
  // Runs now, or when the slice in flight has ended. For the few cheap things that touch the backend outside a task.
  void WhenIdle(std::function<void()> function);
  bool idle() const { return work_ == nullptr; }
  Napi::Env env() const { return env_; }

 private:
  friend class Bell;
  friend class Task;
  friend class SharedSlice;
  static void Execute(napi_env env, void* data);
  static void Complete(napi_env env, napi_status status, void* data);
  void ExecuteTogether();
  void Next();
  bool Submit();
  bool IsActive(const Task* task);
  void Publish(Task& task);
  void RunDeferred(const std::vector<std::shared_ptr<Task>>& tasks);
  void SettleLeft();
  void SettleWaiting(Task* task);
  void Settle(Task& task);
  bool CanRunJs() const;

  Napi::Env env_;
  std::shared_ptr<AddonData> addon_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Task>> active_;   // of the slice in flight; if it is shared, guarded by mutex_
  std::vector<std::shared_ptr<Task>> left_;     // the slice in flight, and are to be settled; by mutex_
  std::shared_ptr<SharedWork> shared_work_;     // of the slice in flight, if it is shared
  bool shared_ = false;                         // whether it still takes tasks in, by mutex_
  std::atomic<bool> over_{false};               // whether it should end, since functions are deferred or others wait until then
  Bell* bell_ = nullptr;                        // nullptr: none yet, or none to be had
  napi_async_work work_ = nullptr;              // the slice in flight
  std::shared_ptr<SerialQueue> self_;           // while there is one
  std::deque<std::shared_ptr<Task>> waiting_;
  std::vector<std::function<void()>> deferred_;
};

}  // namespace rum::bind
