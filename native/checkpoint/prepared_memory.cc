#include "checkpoint/prepared_memory.h"

#include <algorithm>
#include <utility>

#include "checkpoint/segment.h"

namespace rum {
namespace {

// For as long as this takes, whoever takes or closes may wait.
constexpr size_t kStepBytes = size_t{4} << 20;

}  // namespace

void PreparedMemory::Allocate() {
  const CacheLayout& layout = geometry_.layout;
  const int64_t heads = geometry_.heads();
  const int64_t pages = std::min(need_.segment_bytes / StoredPageBytes(layout), need_.tokens / layout.page_slots * heads);
  const int64_t bytes = pages * pool_->page_bytes() + need_.caches * heads * layout.ring_bytes;
  if (pages < 0 || bytes > need_.bytes_max) return;
  std::vector<uint8_t*> held(static_cast<size_t>(pages));
  if (!pool_->Allocate(held)) return;
  pages_ = std::move(held);
  if (!pages_.empty()) absent_.emplace_back(pages_[0], static_cast<size_t>(pages * pool_->page_bytes()));
  for (int32_t i = 0; i < need_.caches; ++i) {
    std::unique_ptr<ChainCache> cache = ChainCache::Make(layout, pool_, geometry_.heads());
    if (cache == nullptr) return;
    absent_.push_back(cache->rings());
    caches_.push_back(std::move(cache));
  }
}

bool PreparedMemory::Advance() {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!std::exchange(begun_, true)) Allocate();
  if (absent_.empty()) return false;
  std::span<uint8_t>& next = absent_.front();
  const size_t step = std::min(next.size(), kStepBytes);
  Populate(next.data(), static_cast<int64_t>(step));
  next = next.subspan(step);
  if (next.empty()) absent_.erase(absent_.begin());
  return !absent_.empty();
}

std::vector<uint8_t*> PreparedMemory::TakePages(size_t count) {
  const std::lock_guard<std::mutex> lock(mutex_);
  begun_ = true;
  absent_.clear();
  if (count > pages_.size() - taken_) return {};
  const auto first = pages_.begin() + static_cast<std::ptrdiff_t>(taken_);
  taken_ += count;
  return {first, first + static_cast<std::ptrdiff_t>(count)};
}

std::unique_ptr<ChainCache> PreparedMemory::TakeCache() {
  const std::lock_guard<std::mutex> lock(mutex_);
  begun_ = true;
  absent_.clear();
  if (caches_.empty()) return nullptr;
  std::unique_ptr<ChainCache> cache = std::move(caches_.front());
  caches_.erase(caches_.begin());
  return cache;
}

void PreparedMemory::Close() {
  const std::lock_guard<std::mutex> lock(mutex_);
  begun_ = true;
  absent_.clear();
  caches_.clear();
  pool_->Release(std::span(pages_).subspan(taken_));
  taken_ = pages_.size();
}

}  // namespace rum
