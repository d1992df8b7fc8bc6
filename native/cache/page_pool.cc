#include "cache/page_pool.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "cache/layout.h"

namespace rum {
namespace {

constexpr int64_t kSlabBytes = int64_t{1} << 20;

uintptr_t SystemPageBytes() {
  static const auto bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

// [begin, end) reads as zeros again, and what whole pages of the system are in it go back.
void Clear(uint8_t* begin, uint8_t* end) {
  const uintptr_t system = SystemPageBytes();
  uint8_t* const first = begin + (system - reinterpret_cast<uintptr_t>(begin) % system) % system;
  uint8_t* const last = end - reinterpret_cast<uintptr_t>(end) % system;
  if (first >= last || madvise(first, static_cast<size_t>(last - first), MADV_DONTNEED) != 0) {
    std::memset(begin, 0, static_cast<size_t>(end - begin));
    return;
  }
  std::memset(begin, 0, static_cast<size_t>(first - begin));
  std::memset(last, 0, static_cast<size_t>(end - last));
}

}  // namespace

PagePool::PagePool(int64_t page_bytes) : page_bytes_(RoundUp(page_bytes, 64)) {}

PagePool::Slab* PagePool::AddSlab(int32_t pages) {
  Slab slab;
  if (!slab.memory.Allocate(page_bytes_ * pages)) return nullptr;
  slab.references.assign(static_cast<size_t>(pages), 0);
  for (int32_t i = pages; i-- > 0;) slab.free_indices.push_back(i);
  const auto at = std::upper_bound(slabs_.begin(), slabs_.end(), slab.base(), [](const uint8_t* base, const Slab& s) { return base < s.base(); });
  return &*slabs_.insert(at, std::move(slab));
}

PagePool::Location PagePool::Find(const uint8_t* page) const {
  const auto after = std::upper_bound(slabs_.begin(), slabs_.end(), page, [](const uint8_t* p, const Slab& s) { return p < s.base(); });
  const auto slab = static_cast<size_t>(after - slabs_.begin()) - 1;
  return {slab, static_cast<int32_t>((page - slabs_[slab].base()) / page_bytes_)};
}

uint8_t* PagePool::Allocate() {
  std::unique_lock<std::mutex> lock(mutex_);
  const bool ready = ready_ > 0;
  const auto it = std::find_if(slabs_.begin(), slabs_.end(), [ready](const Slab& s) { return !(ready ? s.ready_indices : s.free_indices).empty(); });
  Slab* slab = it != slabs_.end() ? &*it : nullptr;
  if (slab == nullptr) {
    slab = AddSlab(static_cast<int32_t>(std::max<int64_t>(1, kSlabBytes / page_bytes_)));
    if (slab == nullptr) return nullptr;
    slab->one_by_one = true;
  }
  std::vector<int32_t>& indices = ready ? slab->ready_indices : slab->free_indices;
  const int32_t index = indices.back();
  indices.pop_back();
  slab->references[static_cast<size_t>(index)] = 1;
  ++used_;
  uint8_t* const page = slab->base() + page_bytes_ * index;
  if (ready) {
    --ready_;
    return page;
  }
  lock.unlock();
  Populate(page, page_bytes_);
  return page;
}

bool PagePool::Allocate(std::span<uint8_t*> pages) {
  if (pages.empty()) return true;
  const std::lock_guard<std::mutex> lock(mutex_);
  Slab* const slab = AddSlab(static_cast<int32_t>(pages.size()));
  if (slab == nullptr) return false;
  slab->free_indices.clear();
  std::ranges::fill(slab->references, 1);
  for (size_t i = 0; i < pages.size(); ++i) pages[i] = slab->base() + page_bytes_ * static_cast<int64_t>(i);
  used_ += static_cast<int64_t>(pages.size());
  return true;
}

void PagePool::Share(uint8_t* page) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Location at = Find(page);
  ++slabs_[at.slab].references[static_cast<size_t>(at.index)];
}

// Neighbours together, and a slab that has none left as a whole: a call to the system for each page takes as long as filling it.
void PagePool::Release(std::span<uint8_t* const> pages) {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<uint8_t*> gone;
  for (uint8_t* page : pages) {
    const Location at = Find(page);
    Slab& slab = slabs_[at.slab];
    if (--slab.references[static_cast<size_t>(at.index)] > 0) continue;
    --used_;
    if (slab.one_by_one && (ready_ + 1) * page_bytes_ <= kReserveBytes) {
      std::memset(page, 0, static_cast<size_t>(page_bytes_));
      slab.ready_indices.push_back(at.index);
      ++ready_;
    } else {
      slab.free_indices.push_back(at.index);
      gone.push_back(page);
    }
  }
  std::ranges::sort(gone);
  for (size_t i = 0; i < gone.size();) {
    const auto slab = slabs_.begin() + static_cast<std::ptrdiff_t>(Find(gone[i]).slab);
    const uint8_t* const slab_end = slab->base() + page_bytes_ * static_cast<int64_t>(slab->references.size());
    if (slab->free_indices.size() == slab->references.size()) {
      while (i < gone.size() && gone[i] < slab_end) ++i;
      slabs_.erase(slab);
      continue;
    }
    uint8_t* const begin = gone[i];
    uint8_t* end = begin;
    for (; i < gone.size() && gone[i] == end && end < slab_end; ++i) end += page_bytes_;
    Clear(begin, end);
  }
}

int32_t PagePool::References(const uint8_t* page) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Location at = Find(page);
  return slabs_[at.slab].references[static_cast<size_t>(at.index)];
}

int64_t PagePool::allocated_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return used_ * page_bytes_;
}

int64_t PagePool::reserved_bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return ready_ * page_bytes_;
}

}  // namespace rum
