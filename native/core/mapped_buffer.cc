#include "core/mapped_buffer.h"

#include <sys/mman.h>
#include <unistd.h>

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
constexpr int64_t kHugeFromBytes = 2 * kHugePageBytes;

// One fault instead of 512. A hint: where it is refused, nothing but time is lost.
void AdviseHuge(uint8_t* data, int64_t bytes) {
#if defined(MADV_HUGEPAGE)
  if (bytes >= kHugeFromBytes) (void)madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);
#endif
}

// Where the system's large pages begin too: what lies before the first of them would cost six times as much to clear.
uint8_t* Map(int64_t bytes) {
  const int64_t more = bytes >= kHugeFromBytes ? kHugePageBytes : 0;
  void* mapped = mmap(nullptr, static_cast<size_t>(bytes + more), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<uint8_t*>(mapped);
  if (more == 0) return begin;
  const int64_t system = sysconf(_SC_PAGESIZE), mapped_bytes = (bytes + more + system - 1) / system * system;
  const int64_t before = (more - static_cast<int64_t>(reinterpret_cast<uintptr_t>(begin)) % more) % more;
  const int64_t end = (before + bytes + system - 1) / system * system;
  if (before > 0) munmap(begin, static_cast<size_t>(before));
  if (end < mapped_bytes) munmap(begin + end, static_cast<size_t>(mapped_bytes - end));
  return begin + before;
}

}  // namespace

void Populate(uint8_t* begin, int64_t bytes) {
  if (bytes <= 0) return;
  const auto system = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
#if defined(MADV_POPULATE_WRITE)
  const uintptr_t first = reinterpret_cast<uintptr_t>(begin) / system * system;
  if (madvise(reinterpret_cast<void*>(first), reinterpret_cast<uintptr_t>(begin) + static_cast<uintptr_t>(bytes) - first, MADV_POPULATE_WRITE) == 0) return;
#endif
  // An older system: a fault for each page after all, but now.
  const auto touch = [](uint8_t* byte) { *const_cast<volatile uint8_t*>(byte) = *const_cast<const volatile uint8_t*>(byte); };
  for (uintptr_t at = 0; at < static_cast<uintptr_t>(bytes); at += system) touch(begin + at);
  touch(begin + bytes - 1);
}

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
  uint8_t* const mapped = Map(bytes);
  if (mapped == nullptr) return false;
  MappedBuffer fresh;
  fresh.data_ = mapped;
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
