// Memory that a restore will fill, made present while the bytes are still on their way: clearing it takes the system a quarter of the time
// of hashing what goes there, and nobody waits for it then.
#pragma once
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "cache/chain_cache.h"
#include "checkpoint/geometry.h"

namespace rum {

// Thread-safe. Only ever saves time: what is not here, or not yet present, the restore allocates, or its faults make present.
class PreparedMemory {
 public:
  struct Need {
    int64_t segment_bytes = 0;  // as stored; coded ones hold more pages than are then prepared
    int64_t tokens = 0;         // that all chains together can hold at most
    int32_t caches = 0;
    int64_t bytes_max = 0;      // above it nothing is prepared
  };
  // Allocates nothing yet. `pool` outlives it.
  PreparedMemory(const CacheGeometry& geometry, PagePool* pool, const Need& need) : geometry_(geometry), pool_(pool), need_(need) {}
  ~PreparedMemory() { Close(); }
  PreparedMemory(const PreparedMemory&) = delete;

  // The next few MiB; the first call allocates. false: nothing is left to do.
  bool Advance();
  // Whoever takes ends the preparing: what is absent then comes with his own faults.
  // All of them or none; of the pool, each held once.
  std::vector<uint8_t*> TakePages(size_t count);
  std::unique_ptr<ChainCache> TakeCache();  // a fresh one, or nullptr
  // What nobody took goes back; there is nothing to do or take any more.
  void Close();

 private:
  void Allocate();

  const CacheGeometry geometry_;
  PagePool* const pool_;
  const Need need_;
  std::mutex mutex_;
  bool begun_ = false;
  std::vector<uint8_t*> pages_;  // side by side; the first `taken_` are somebody else's
  size_t taken_ = 0;
  std::vector<std::unique_ptr<ChainCache>> caches_;
  std::vector<std::span<uint8_t>> absent_;  // nobody's but ours
};

}  // namespace rum
