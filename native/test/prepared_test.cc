// Memory that is made present before a restore: what is restored into it is what is restored anywhere, it stays within its bounds, and
// what nobody takes goes back, whoever is faster.
#include <thread>

#include "checkpoint/prepared_memory.h"
#include "checkpoint/segment.h"
#include "test/vault.h"

namespace rum::test {
namespace {


constexpr int64_t kNoLimit = INT64_MAX;

Setting Tiny() {
  BackendOptions options;
  options.page_slots = 4;
  options.kv = KvType::kBF16;
  return {fixtures + "/models/tiny_qwen3_dms", {}, options};
}

CacheGeometry Geometry() { return {2, 2, CacheLayout::Make(16, 2, 4, 8)}; }

bool AllZero(std::span<const uint8_t> bytes) {
  return std::ranges::all_of(bytes, [](uint8_t byte) { return byte == 0; });
}

void WhatNobodyTakesGoesBack() {
  const CacheGeometry geometry = Geometry();
  PagePool pool(geometry.layout.page_bytes);
  const int64_t page_bytes = pool.page_bytes();
  {
    PreparedMemory memory(geometry, &pool, {10 * StoredPageBytes(geometry.layout) + 7, 1000, 2, kNoLimit});
    CHECK(pool.allocated_bytes() == 0);
    while (memory.Advance()) {
    }
    CHECK(pool.allocated_bytes() == 10 * page_bytes);
    const std::vector<uint8_t*> taken = memory.TakePages(4);
    CHECK(memory.TakePages(7).empty());
    CHECK(taken.size() == 4 && AllZero({taken[0], static_cast<size_t>(4 * page_bytes)}));
    auto cache = memory.TakeCache();
    CHECK(cache != nullptr && AllZero(cache->rings()) && memory.TakeCache() != nullptr && memory.TakeCache() == nullptr);
    memory.Close();
    CHECK(pool.allocated_bytes() == 4 * page_bytes && pool.References(taken[3]) == 1);
    CHECK(memory.TakePages(1).empty() && memory.TakeCache() == nullptr && !memory.Advance());
    pool.Release(taken);
  }
  CHECK(pool.allocated_bytes() == 0);
}

void NothingIsPreparedBeyondWhatChainsCanHoldOrTheLimit() {
  const CacheGeometry geometry = Geometry();
  PagePool pool(geometry.layout.page_bytes);
  const int64_t many = int64_t{1} << 50, rings = geometry.heads() * geometry.layout.ring_bytes;
  PreparedMemory chains(geometry, &pool, {many, 12, 1, kNoLimit});
  CHECK(chains.Advance() && pool.allocated_bytes() == 3 * geometry.heads() * pool.page_bytes());
  chains.Close();
  PreparedMemory fits(geometry, &pool, {many, 4, 1, geometry.heads() * pool.page_bytes() + rings});
  CHECK(fits.Advance() && pool.allocated_bytes() == geometry.heads() * pool.page_bytes());
  fits.Close();
  for (const int64_t limit : {geometry.heads() * pool.page_bytes() + rings - 1, int64_t{0}, int64_t{-1}}) {
    PreparedMemory above(geometry, &pool, {many, 4, 1, limit});
    CHECK(!above.Advance() && above.TakeCache() == nullptr && pool.allocated_bytes() == 0);
  }
}

// On one thread as far as it gets, while another takes and writes, or closes.
void WhoeverIsFasterNoByteIsLost() {
  const CacheGeometry geometry = Geometry();
  PagePool pool(geometry.layout.page_bytes);
  for (int round = 0; round < 40; ++round) {
    PreparedMemory memory(geometry, &pool, {int64_t{24} << 20, 1 << 20, 1, kNoLimit});
    CHECK(memory.Advance());
    std::thread other([&memory] {
      while (memory.Advance()) {
      }
    });
    if (round % 2 == 0) {
      const std::vector<uint8_t*> pages = memory.TakePages(1000);
      CHECK(pages.size() == 1000);
      for (uint8_t* page : pages) std::memset(page, 7, static_cast<size_t>(pool.page_bytes()));
      memory.Close();
      other.join();
      CHECK(std::ranges::all_of(pages, [&](const uint8_t* page) { return page[0] == 7 && page[pool.page_bytes() - 1] == 7; }));
      pool.Release(pages);
    } else {
      memory.Close();
      other.join();
    }
    CHECK(pool.allocated_bytes() == 0);
  }
}

// Raw and coded objects; memory for all, for some, for nothing of it; finished, begun, or not even that.
void ARestoreIntoItIsTheSameByteByByte() {
  const Setting s = Tiny();
  const RunOptions job = Job(s, 3);
  const RunReport whole = AtOnce(s, job);
  for (const Codec codec : {Codec::kRaw, Codec::kPlanesZstd}) {
    Bench first(s);
    Vault vault(first.layout_id);
    vault.codec = codec;
    auto run = first.Start(job);
    vault.Save(*run, true, job.width);
    StepTo(*run, 15);
    vault.Save(*run, true, job.width);
    StepTo(*run, 25);
    vault.Save(*run, true, job.width);
    RestoreOptions plan = vault.Plan(job.width);
    const auto golden_bench = Bench(s);
    auto golden = golden_bench.Resume(job, plan);
    CHECK_OK(golden->Step(1));
    int64_t stored = 0;
    for (const SavedObject& object : vault.objects) stored += object.size;
    for (const int64_t segment_bytes : {stored, stored / 8, int64_t{0}}) {
      for (const int32_t steps : {1 << 20, 1, 0}) {
        const Bench bench(s);
        const auto probe = bench.backend->NewCache();
        PreparedMemory memory(GeometryOf(bench.model->config, s.backend), probe->pool(), {segment_bytes, 3 * (s.prompt + s.length), 2, kNoLimit});
        for (int32_t i = 0; i < steps && memory.Advance(); ++i) {
        }
        plan.prepared = &memory;
        auto resumed = bench.Resume(job, plan);
        CHECK(memory.TakeCache() == nullptr);
        CHECK_OK(resumed->Step(1));
        CHECK(bench.backend->State(bench.model->config) == golden_bench.backend->State(bench.model->config));
        memory.Close();
        CHECK(bench.backend->Memory().kv_allocated_bytes == golden_bench.backend->Memory().kv_allocated_bytes);
        CHECK(Same(ToTheEnd(*resumed), whole));
      }
    }
  }
}

void WhatIsDamagedLeavesNothingThere() {
  const Setting s = Tiny();
  const RunOptions job = Job(s, 2);
  const Bench bench(s);
  Vault vault(bench.layout_id);
  {
    auto run = bench.Start(job);
    StepTo(*run, 25);
    vault.Save(*run, true, job.width);
  }
  RestoreOptions plan = vault.Plan(job.width);
  SavedObject& segment = vault.objects[vault.chains[0].segments.back()];
  segment.bytes.data()[segment.size / 2] ^= 1;
  const auto probe = bench.backend->NewCache();
  PreparedMemory memory(GeometryOf(bench.model->config, s.backend), probe->pool(), {segment.size, 1000, 2, kNoLimit});
  while (memory.Advance()) {
  }
  plan.prepared = &memory;
  const auto refused = Run::Restore(bench.backend, bench.model, job, plan);
  CHECK(!refused.ok() && std::string(refused.status().code) == kErrCheckpoint);
  memory.Close();
  CHECK(bench.backend->Memory().kv_allocated_bytes == 0);
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"what nobody takes goes back", WhatNobodyTakesGoesBack},
      {"nothing is prepared beyond what the chains can hold, or the limit", NothingIsPreparedBeyondWhatChainsCanHoldOrTheLimit},
      {"whoever is faster, no byte is lost", WhoeverIsFasterNoByteIsLost},
      {"a restore into it is the same byte by byte", ARestoreIntoItIsTheSameByteByByte},
      {"what is damaged is refused and leaves nothing there", WhatIsDamagedLeavesNothingThere},
  });
}
