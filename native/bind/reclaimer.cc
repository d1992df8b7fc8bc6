#include "bind/reclaimer.h"

#include <system_error>
#include <utility>

namespace rum::bind {

Reclaimer::~Reclaimer() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  news_.notify_one();
  if (thread_.joinable()) thread_.join();
}

// Where no thread is to be had, it goes here and now.
void Reclaimer::Take(MappedBuffer buffer) {
  try {
    if (!thread_.joinable()) thread_ = std::thread([this] { Work(); });
  } catch (const std::system_error&) {
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(buffer));
  }
  news_.notify_one();
}

void Reclaimer::Work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    news_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    std::vector<MappedBuffer> going = std::exchange(waiting_, {});
    lock.unlock();
    going.clear();
    lock.lock();
  }
}

}  // namespace rum::bind
