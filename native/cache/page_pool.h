// Pages of one size, from slabs mapped straight from the system: a freed page's memory really goes back, but for two MiB that are kept at
// hand, since jobs that come and go would otherwise have the system take and clear the same memory again and again.
#pragma once
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "core/mapped_buffer.h"

namespace rum {

// Thread-safe. A page is shared by reference counts (sealed prompt pages of forked chains) and must be given back before the pool dies.
class PagePool {
 public:
  explicit PagePool(int64_t page_bytes);  // of a multiple of 64
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  // Zeroed memory with reference count 1, or nullptr when the system has none.
  uint8_t* Allocate();
  // All of them side by side, for whoever fills them at once: the system backs many by large pages of its own, which cost it a tenth of
  // the time of small ones. false when it has none, and no page is held.
  bool Allocate(std::span<uint8_t*> pages);
  void Share(uint8_t* page);
  void Release(uint8_t* page) { Release({&page, 1}); }
  void Release(std::span<uint8_t* const> pages);
  int32_t References(const uint8_t* page) const;
  int64_t page_bytes() const { return page_bytes_; }
  int64_t allocated_bytes() const;  // pages held by someone, as mapped
  int64_t reserved_bytes() const;   // free pages whose memory is kept at hand: kReserveBytes at most
  static constexpr int64_t kReserveBytes = int64_t{2} << 20;

 private:
  struct Slab {
    MappedBuffer memory;
    std::vector<int32_t> references;      // of each page
    std::vector<int32_t> free_indices;    // the system has their memory
    std::vector<int32_t> ready_indices;   // free too: zeroed, and their memory is there
    bool one_by_one = false;              // its pages were not allocated all at once
    uint8_t* base() const { return memory.data(); }
  };
  struct Location {
    size_t slab;
    int32_t index;
  };
  Location Find(const uint8_t* page) const;
  Slab* AddSlab(int32_t pages);

  const int64_t page_bytes_;
  mutable std::mutex mutex_;
  std::vector<Slab> slabs_;  // sorted by base
  int64_t used_ = 0;
  int64_t ready_ = 0;  // of all slabs
};

}  // namespace rum
