// Ends a long call of the engine at its next step: while armed, `interrupt` is called once, 100 to 200 ms later. One thread per
// engine, asleep while nothing is armed; arming costs no wake-up in a busy engine.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

namespace rum::bind {

class SliceClock {
 public:
  static constexpr std::chrono::milliseconds kTick{100};

  ~SliceClock() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
  }

  // Arms for a scope. `interrupt` is never called after the scope has ended.
  class Scope {
   public:
    Scope(SliceClock& clock, std::function<void()> interrupt) : clock_(clock) { clock_.Arm(std::move(interrupt)); }
    ~Scope() { clock_.Disarm(); }
    Scope(const Scope&) = delete;

   private:
    SliceClock& clock_;
  };

 private:
  void Arm(std::function<void()> interrupt) {
    bool asleep = false;
    {
      const std::lock_guard lock(mutex_);
      interrupt_ = std::move(interrupt);
      armed_at_tick_ = tick_;
      asleep = asleep_;
      asleep_ = false;
      if (!thread_.joinable()) thread_ = std::thread([this] { Loop(); });
    }
    if (asleep) wake_.notify_one();
  }

  void Disarm() {
    const std::lock_guard lock(mutex_);
    interrupt_ = nullptr;
  }

  void Loop() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
      const auto last_armed = armed_at_tick_;
      wake_.wait_for(lock, kTick, [this] { return stop_; });
      ++tick_;
      // Armed for a whole tick at least: armed before the tick that just ended began.
      if (interrupt_ && armed_at_tick_ + 1 < tick_) std::exchange(interrupt_, nullptr)();
      if (interrupt_ == nullptr && armed_at_tick_ == last_armed) {
        asleep_ = true;
        wake_.wait(lock, [this] { return stop_ || !asleep_; });
      }
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::thread thread_;
  std::function<void()> interrupt_;
  uint64_t tick_ = 0;
  uint64_t armed_at_tick_ = 0;
  bool asleep_ = false;
  bool stop_ = false;
};

}  // namespace rum::bind
