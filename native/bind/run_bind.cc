#include "bind/run_bind.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>
#include <vector>

#include "bind/dto.h"
#include "bind/handle.h"

namespace rum::bind {
namespace {

constexpr size_t kEndChainsMax = 65536;
constexpr size_t kMaskWordsMax = size_t{1} << 17;  // the largest vocabulary, a bit a token

// Prefill or step, in slices that all runs of the engine share. The user's cancel ends the call, the clock the slice.
class RunTask final : public Task {
 public:
  static constexpr int32_t kPrefill = 0;
  RunTask(std::shared_ptr<RunHandle> handle, int32_t steps, std::vector<TokenMask> masks)
      : handle_(std::move(handle)), steps_(steps), masks_(std::move(masks)) {}

  ~RunTask() override {
    if (handle_->closed) handle_->Release();
  }

  bool joins() const override { return true; }
  std::shared_ptr<SharedWork> Together() override;

  // Pool thread.
  RunCall* Begin() {
    if (call_.has_value()) return &*call_;
    Run& run = *handle_->run;
    // Cleared first, then looked at: a Cancel() after the look finds the flag for the run to see.
    run.ClearCancel();
    if (cancelled()) run.RequestCancel();
    call_ = steps_ == kPrefill ? RunCall::Prefill(run) : RunCall::Step(run, steps_, std::move(masks_));
    return &*call_;
  }

  // Pool thread. How far it has come, for when it is told.
  const RunCall& Pause(const MemoryUse& memory) {
    report_ = handle_->run->Report();
    memory_ = memory;
    worked_ = true;
    return *call_;
  }

  void AfterSlice() override {
    if (!std::exchange(worked_, false)) return;
    handle_->snapshot = std::move(report_);
    handle_->core->memory = memory_;
  }
  Napi::Value Result(Napi::Env env) override { return env.Undefined(); }

 protected:
  void Interrupt() override { handle_->run->RequestCancel(); }

 private:
  std::shared_ptr<RunHandle> handle_;
  const int32_t steps_;
  std::vector<TokenMask> masks_;
  std::optional<RunCall> call_;
  RunReport report_;
  MemoryUse memory_;
  bool worked_ = false;
};

class RunsTogether final : public SharedWork {
 public:
  explicit RunsTogether(std::shared_ptr<EngineCore> core) : core_(std::move(core)) {}

  void WorkTogether(SharedSlice& slice) override {
    std::atomic<bool> over{false};
    {
      const SliceClock::Scope scope(core_->clock, [&over] { over.store(true, std::memory_order_relaxed); });
      do {
        Admit(slice);
        core_->batch.Advance(calls_);
      } while (LetGo(slice) && !slice.IsOver() && !over.load(std::memory_order_relaxed));
    }
    const MemoryUse memory = core_->backend->Memory();
    for (const std::shared_ptr<Task>& task : tasks_) {
      const RunCall& call = RunOf(task).Pause(memory);
      if (call.done()) slice.Done(*task, call.status());
    }
    tasks_.clear();
  }

 private:
  static RunTask& RunOf(const std::shared_ptr<Task>& task) { return static_cast<RunTask&>(*task); }

  void Admit(SharedSlice& slice) {
    slice.Admit(&tasks_);
    for (size_t i = calls_.size(); i < tasks_.size(); ++i) calls_.push_back(RunOf(tasks_[i]).Begin());
  }

  // Whoever is done goes back to JS at once, and comes again while the others go on. false: the slice is at its end.
  bool LetGo(SharedSlice& slice) {
    const auto done = static_cast<size_t>(std::ranges::count_if(calls_, &RunCall::done));
    if (done == 0) return true;
    if (done == calls_.size() || !slice.may_be_left()) return false;
    const MemoryUse memory = core_->backend->Memory();
    for (size_t i = calls_.size(); i-- > 0;) {
      if (!calls_[i]->done()) continue;
      const Status status = RunOf(tasks_[i]).Pause(memory).status();
      std::shared_ptr<Task> task = std::move(tasks_[i]);
      tasks_.erase(tasks_.begin() + static_cast<std::ptrdiff_t>(i));
      calls_.erase(calls_.begin() + static_cast<std::ptrdiff_t>(i));
      slice.Leave(std::move(task), status);
    }
    return true;
  }

  const std::shared_ptr<EngineCore> core_;
  std::vector<std::shared_ptr<Task>> tasks_;
  std::vector<RunCall*> calls_;  // of each
};

std::shared_ptr<SharedWork> RunTask::Together() { return std::make_shared<RunsTogether>(handle_->core); }

Napi::Value StartTask(Napi::Env env, const std::shared_ptr<RunHandle>& run, int32_t steps, std::vector<TokenMask> masks = {}) {
  const Status status = CheckUsable(*run);
  if (!status.ok()) return Throw(env, status);
  const auto task = std::make_shared<RunTask>(run, steps, std::move(masks));
  run->call = task;
  return run->core->queue->Start(task);
}

}  // namespace

Status CheckUsable(const RunHandle& run) {
  if (run.closed) return Error(kErrDisposed, "the run is closed.");
  if (!run.call.expired()) return Error(kErrBusy, "a call of this run is in flight.");
  return Status::Ok();
}

void RunHandle::Release() {
  // Freeing the chains touches the backend, which another run's slice may be using.
  if (run != nullptr) core->queue->WhenIdle([freed = std::exchange(run, nullptr)] {});
  core.reset();
  snapshot = {};
}

Napi::Value CreateRun(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value options) {
  Reader reader("createRun.options", options);
  RunOptions request = ReadRunOptions(reader);
  if (!reader.status().ok()) return Throw(env, reader.status());
  if (engine->core == nullptr) return Throw(env, Error(kErrDisposed, "the engine is closed."));
  auto run = Run::Create(engine->core->backend, engine->core->model, std::move(request));
  if (!run.ok()) return Throw(env, run.status());
  auto handle = std::make_shared<RunHandle>();
  handle->core = engine->core;
  handle->run = std::move(*run);
  handle->snapshot = handle->run->Report();
  return Handle<RunHandle>::New(env, std::move(handle));
}

Napi::Value RunPrefill(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value) {
  return StartTask(env, run, RunTask::kPrefill);
}

Napi::Value RunStep(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value options) {
  Reader reader("step.options", options);
  const int32_t steps = reader.Int32("maxSteps", 1, INT32_MAX);
  std::vector<TokenMask> masks;
  if (!reader.IsNull("masks")) masks = reader.Uint32Arrays("masks", run->snapshot.chains.size(), kMaskWordsMax);
  if (!reader.status().ok()) return Throw(env, reader.status());
  return StartTask(env, run, steps, std::move(masks));
}

Napi::Value RunCancel(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value) {
  if (const auto task = run->call.lock()) task->Cancel();
  return env.Undefined();
}

Napi::Value RunEnd(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value options) {
  Reader reader("end.options", options);
  const auto width = static_cast<int32_t>(run->snapshot.chains.size());
  const std::vector<int32_t> chains = reader.Ints("chains", kEndChainsMax, 0, width - 1);
  if (!reader.status().ok()) return Throw(env, reader.status());
  const Status status = CheckUsable(*run);
  if (!status.ok()) return Throw(env, status);
  if (!run->core->queue->idle()) {
    // Another run's slice holds the backend: this run is told when that slice ends, the snapshot now.
    for (const int32_t i : chains) {
      ChainReport& chain = run->snapshot.chains[static_cast<size_t>(i)];
      if (chain.finish != Finish::kNone) continue;
      chain.finish = Finish::kEnded;
      run->snapshot.running -= 1;
    }
  }
  run->core->queue->WhenIdle([run, engine_run = run->run, chains] {
    engine_run->EndChains(chains);
    if (!run->closed) run->snapshot = engine_run->Report();
  });
  return env.Undefined();
}

Napi::Value RunReportNow(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value) {
  if (run->closed) return Throw(env, Error(kErrDisposed, "the run is closed."));
  return ToJs(env, run->snapshot);
}

Napi::Value RunClose(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value) {
  if (std::exchange(run->closed, true)) return env.Undefined();
  if (const auto task = run->call.lock()) {
    task->Cancel();  // which releases the run when it has settled
  } else {
    run->Release();
  }
  return env.Undefined();
}

}  // namespace rum::bind
