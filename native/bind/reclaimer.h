// Gives memory back to the system on a thread of its own. The collector finalizes the objects of several checkpoints at once, a mapping for
// each of them and for each chain: in one turn of the JS thread that took 100 to 200 ms.
#pragma once
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "core/mapped_buffer.h"

namespace rum::bind {

// Of one environment. No work of Node's: an environment that ends finalizes what is left before it says so, and work that is queued then
// completes when there is no environment any more.
class Reclaimer {
 public:
  // All of it has gone afterwards.
  ~Reclaimer();
  void Take(MappedBuffer buffer);

 private:
  void Work();

  std::mutex mutex_;
  std::condition_variable news_;
  std::vector<MappedBuffer> waiting_;
  bool ending_ = false;
  std::thread thread_;  // from the first buffer on
};

}  // namespace rum::bind
