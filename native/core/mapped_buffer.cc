#include "core/mapped_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <utility>

#if defined(__SANITIZE_THREAD__)
#define RUM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RUM_TSAN 1
#endif
#endif

namespace rum {
namespace {

constexpr int64_t kHugePageBytes = int64_t{1} << 21;

// One fault instead of 512. A hint: where it is refused, nothing but time is lost.
void AdviseHuge(uint8_t* data, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  if (bytes >= 2 * kHugePageBytes) (void)madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
}

}  // namespace

MappedBuffer::~MappedBuffer() {
  if (data_ != nullptr) munmap(data_, static_cast<size_t>(bytes_));
}

MappedBuffer::MappedBuffer(MappedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

MappedBuffer& MappedBuffer::operator=(MappedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

bool MappedBuffer::Allocate(int64_t bytes) {
  bytes = std::max<int64_t>(bytes, 1);
  void* mapped = mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return false;
  MappedBuffer fresh;
  fresh.data_ = static_cast<uint8_t*>(mapped);
  fresh.bytes_ = bytes;
  AdviseHuge(fresh.data_, bytes);
  *this = std::move(fresh);
  return true;
}

bool MappedBuffer::Grow(int64_t bytes) {
  if (bytes <= bytes_) return true;
// ThreadSanitizer does not see mremap: it would hold a thread's new pages for those that another has moved away from the same address.
#if defined(__linux__) && !defined(RUM_TSAN)
  if (data_ != nullptr) {  // moves page tables, not bytes
    void* moved = mremap(data_, static_cast<size_t>(bytes_), static_cast<size_t>(bytes), MREMAP_MAYMOVE);
    if (moved == MAP_FAILED) return false;
    data_ = static_cast<uint8_t*>(moved);
    bytes_ = bytes;
    AdviseHuge(data_, bytes);
    return true;
  }
#endif
  MappedBuffer larger;
  if (!larger.Allocate(bytes)) return false;
  if (bytes_ > 0) std::memcpy(larger.data_, data_, static_cast<size_t>(bytes_));
  *this = std::move(larger);
  return true;
}

}  // namespace rum
