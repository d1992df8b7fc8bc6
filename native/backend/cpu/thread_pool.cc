#include "backend/cpu/thread_pool.h"

namespace rum {
namespace {

constexpr int kSpins = 4000;               // tens of microseconds: the gap between two matrices of one step
constexpr int64_t kCostPerThread = 60000;  // multiply-adds that outweigh a wake-up

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int32_t threads) {
  for (int32_t i = 1; i < threads; ++i) workers_.emplace_back([this, i] { Work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void ThreadPool::DoShare(int32_t thread) {
  const int64_t n = threads();
  const int64_t begin = items_ * thread / n, end = items_ * (thread + 1) / n;
  if (begin < end) (*share_)(begin, end, thread);
}

void ThreadPool::Work(int32_t thread) {
  uint32_t seen = 0;
  for (;;) {
    uint32_t now = generation_.load(std::memory_order_acquire);
    for (int i = 0; now == seen && i < kSpins; ++i) {
      Pause();
      now = generation_.load(std::memory_order_acquire);
    }
    while (now == seen) {
      generation_.wait(seen, std::memory_order_acquire);
      now = generation_.load(std::memory_order_acquire);
    }
    seen = now;
    if (stop_.load()) return;
    DoShare(thread);
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
  }
}

void ThreadPool::Run(int64_t items, int64_t cost, const WorkShare& f) {
  if (items <= 0) return;
  if (workers_.empty() || items == 1 || cost < 2 * kCostPerThread) {
    f(0, items, 0);
    return;
  }
  share_ = &f;
  items_ = items;
  pending_.store(static_cast<int32_t>(workers_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_acq_rel);
  generation_.notify_all();
  DoShare(0);
  int32_t left = pending_.load(std::memory_order_acquire);
  for (int i = 0; left != 0 && i < kSpins; ++i) {
    Pause();
    left = pending_.load(std::memory_order_acquire);
  }
  while (left != 0) {
    pending_.wait(left, std::memory_order_acquire);
    left = pending_.load(std::memory_order_acquire);
  }
}

}  // namespace rum
