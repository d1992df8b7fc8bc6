#include "cache/page_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "cache/layout.h"

namespace rum {
namespace {

constexpr int64_t kSystemPageBytes = 4096;
constexpr int64_t kSlabBytes = int64_t{1} << 20;

int64_t Stride(int64_t page_bytes) {
  const int64_t aligned = RoundUp(page_bytes, kSystemPageBytes);
  return aligned - page_bytes <= page_bytes / 8 ? aligned : RoundUp(page_bytes, 64);
}

uint8_t* Map(int64_t bytes) {
  void* p = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? nullptr : static_cast<uint8_t*>(p);
}

// One call instead of a fault for each 4 KiB, of which a restore would have many. A hint: where it is unknown, the faults come.
void Populate(uint8_t* page, int64_t bytes) {
#if defined(MADV_POPULATE_WRITE)
  if (bytes % kSystemPageBytes == 0) (void)madvise(page, static_cast<size_t>(bytes), MADV_POPULATE_WRITE);
#endif
}

}  // namespace

PagePool::PagePool(int64_t page_bytes)
    : stride_(Stride(page_bytes)),
      pages_per_slab_(static_cast<int32_t>(std::max<int64_t>(1, kSlabBytes / stride_))) {}

PagePool::~PagePool() {
  for (const Slab& s : slabs_) munmap(s.base, static_cast<size_t>(stride_ * pages_per_slab_));
}

bool PagePool::AddSlab() {
  Slab slab;
  slab.base = Map(stride_ * pages_per_slab_);
  if (slab.base == nullptr) return false;
  slab.references.assign(static_cast<size_t>(pages_per_slab_), 0);
  for (int32_t i = pages_per_slab_; i-- > 0;) slab.free_indices.push_back(i);
  const auto at = std::upper_bound(slabs_.begin(), slabs_.end(), slab.base,
                                   [](const uint8_t* base, const Slab& s) { return base < s.base; });
  slabs_.insert(at, std::move(slab));
  return true;
}

PagePool::Location PagePool::Find(const uint8_t* page) const {
  const auto after = std::upper_bound(slabs_.begin(), slabs_.end(), page,
                                      [](const uint8_t* p, const Slab& s) { return p < s.base; });
  const auto slab = static_cast<size_t>(after - slabs_.begin()) - 1;
  return {slab, static_cast<int32_t>((page - slabs_[slab].base) / stride_)};
}

uint8_t* PagePool::Allocate() {
  std::unique_lock<std::mutex> lock(mutex_);
  auto it = std::find_if(slabs_.begin(), slabs_.end(), [](const Slab& s) { return !s.free_indices.empty(); });
  if (it == slabs_.end()) {
    if (!AddSlab()) return nullptr;
    it = std::find_if(slabs_.begin(), slabs_.end(), [](const Slab& s) { return !s.free_indices.empty(); });
  }
  const int32_t index = it->free_indices.back();
  it->free_indices.pop_back();
  it->references[static_cast<size_t>(index)] = 1;
  ++used_;
  uint8_t* const page = it->base + stride_ * index;
  lock.unlock();
  Populate(page, stride_);
  return page;
}

void PagePool::Share(uint8_t* page) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Location at = Find(page);
  ++slabs_[at.slab].references[static_cast<size_t>(at.index)];
}

void PagePool::Release(uint8_t* page) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Location at = Find(page);
  Slab& slab = slabs_[at.slab];
  if (--slab.references[static_cast<size_t>(at.index)] > 0) return;
  --used_;
  slab.free_indices.push_back(at.index);
  if (static_cast<int32_t>(slab.free_indices.size()) == pages_per_slab_) {
    munmap(slab.base, static_cast<size_t>(stride_ * pages_per_slab_));
    slabs_.erase(slabs_.begin() + static_cast<std::ptrdiff_t>(at.slab));
  } else if (stride_ % kSystemPageBytes == 0) {
    madvise(page, static_cast<size_t>(stride_), MADV_DONTNEED);  // reads as zeros again
  } else {
    std::fill_n(page, stride_, uint8_t{0});
  }
}

int32_t PagePool::References(const uint8_t* page) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Location at = Find(page);
  return slabs_[at.slab].references[static_cast<size_t>(at.index)];
}

int64_t PagePool::allocated_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return used_ * stride_;
}

}  // namespace rum
