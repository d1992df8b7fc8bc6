// Pages of one size, from slabs mapped straight from the system: a freed page's memory really goes back.
#pragma once
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace rum {

// Thread-safe. A page is shared by reference counts (sealed prompt pages of forked chains) and must be given back before the pool dies.
class PagePool {
 public:
  explicit PagePool(int64_t page_bytes);
  ~PagePool();
  PagePool(const PagePool&) = delete;
  PagePool& operator=(const PagePool&) = delete;

  // Zeroed memory with reference count 1, or nullptr when the system has none.
  uint8_t* Allocate();
  void Share(uint8_t* page);
  void Release(uint8_t* page);
  int32_t References(const uint8_t* page) const;
  int64_t allocated_bytes() const;  // pages held by someone, as mapped

 private:
  struct Slab {
    uint8_t* base = nullptr;
    std::vector<int32_t> references;    // [pages per slab]
    std::vector<int32_t> free_indices;
  };
  struct Location {
    size_t slab;
    int32_t index;
  };
  Location Find(const uint8_t* page) const;
  bool AddSlab();

  const int64_t stride_;  // bytes from page to page: a multiple of the system's page where that wastes less than an eighth
  const int32_t pages_per_slab_;
  mutable std::mutex mutex_;
  std::vector<Slab> slabs_;  // sorted by base
  int64_t used_ = 0;
};

}  // namespace rum
