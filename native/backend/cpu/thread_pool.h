// Threads that split independent work items. Which thread does an item never matters to its result.
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "backend/backend.h"

namespace rum {

// One caller at a time. Workers spin briefly for the next piece of a step, then sleep.
class ThreadPool {
 public:
  explicit ThreadPool(int32_t threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int32_t threads() const { return static_cast<int32_t>(workers_.size()) + 1; }
  // f(begin, end, thread) over contiguous shares of [0, items). cost: rough operations of all items together; small work stays on
  // the caller, as waking a thread costs more than it saves.
  void Run(int64_t items, int64_t cost, const WorkShare& f);

 private:
  void Work(int32_t thread);
  void DoShare(int32_t thread);

  std::vector<std::thread> workers_;
  std::atomic<uint32_t> generation_{0};  // raised for each Run
  std::atomic<int32_t> pending_{0};      // workers that have not finished the current one
  std::atomic<bool> stop_{false};
  const WorkShare* share_ = nullptr;
  int64_t items_ = 0;
};

}  // namespace rum
