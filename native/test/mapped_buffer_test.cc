// Memory straight from the system: what it holds as it grows, and that threads that each have their own share nothing.
#include "core/mapped_buffer.h"

#include <cstring>
#include <thread>
#include <vector>

#include "test/check.h"

namespace rum::test {
namespace {

constexpr int64_t kPage = 4096, kHuge = int64_t{1} << 21;

bool Holds(const MappedBuffer& buffer, int64_t begin, int64_t end, uint8_t value) {
  for (int64_t at = begin; at < end; at += kPage / 2) {
    if (buffer.data()[at] != value) return false;
  }
  return buffer.data()[end - 1] == value;
}

void WhatItHoldsStaysAndWhatIsNewIsZero() {
  MappedBuffer buffer;
  if (!CHECK(buffer.Grow(kPage))) return;
  int64_t written = 0;
  for (int64_t bytes = kPage; bytes <= 3000 * kPage; bytes *= 3) {
    CHECK(buffer.Grow(bytes) && buffer.size() == bytes);
    CHECK(written == 0 || Holds(buffer, 0, written, 7));
    CHECK(Holds(buffer, written, bytes, 0));
    std::memset(buffer.data(), 7, static_cast<size_t>(bytes));
    written = bytes;
  }
  CHECK(buffer.Grow(1) && buffer.size() == written);
  CHECK(!buffer.Grow(int64_t{1} << 60) && Holds(buffer, 0, written, 7));
}

// Whatever the size: what is mapped beside it, to begin where a large page of the system does, is gone again.
void OfAnySizeAllOfItIsThereAndPresentingItChangesNothing() {
  for (const int64_t bytes : {kPage - 1, kHuge, 2 * kHuge - 1, 2 * kHuge, 2 * kHuge + 1, 3 * kHuge + 5 * kPage + 7}) {
    MappedBuffer buffer;
    if (!CHECK(buffer.Allocate(bytes))) return;
    CHECK(buffer.size() == bytes && (bytes < 2 * kHuge || reinterpret_cast<uintptr_t>(buffer.data()) % kHuge == 0));
    std::memset(buffer.data(), 5, static_cast<size_t>(bytes / 2));
    Populate(buffer.data() + bytes / 3, bytes - bytes / 3);
    CHECK(Holds(buffer, 0, bytes / 2, 5) && Holds(buffer, bytes / 2, bytes, 0));
    std::memset(buffer.data(), 6, static_cast<size_t>(bytes));
    CHECK(Holds(buffer, 0, bytes, 6));
  }
}

// One thread gets the addresses that another has just left.
void ThreadsThatGrowTheirOwnShareNothing() {
  const auto work = [] {
    for (int round = 0; round < 300; ++round) {
      MappedBuffer buffer;
      for (int64_t pages = 1; pages < 150; pages += 1 + pages) {
        CHECK(buffer.Grow(pages * kPage));
        std::memset(buffer.data(), 1, static_cast<size_t>(buffer.size()));
        CHECK(Holds(buffer, 0, buffer.size(), 1));
      }
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace rum::test

int main() {
  using namespace rum::test;
  return RunAll({
      {"what it holds stays as it grows, and what is new is zero", WhatItHoldsStaysAndWhatIsNewIsZero},
      {"of any size all of it is there, and presenting it changes nothing", OfAnySizeAllOfItIsThereAndPresentingItChangesNothing},
      {"threads that grow their own share nothing, also in the eyes of a sanitizer", ThreadsThatGrowTheirOwnShareNothing},
  });
}
