#include "run/checkpoint_loader.h"

#include <algorithm>
#include <utility>

#include "cache/chain_cache.h"
#include "checkpoint/prepared_memory.h"

namespace rum {

Expected<Journal> CheckpointLoader::Journals() {
  auto journal = Folded(restore_.journals);
  for (const std::vector<size_t>& journals : restore_.shard_journals) {
    if (!journal.ok()) return journal.status();
    auto shard = Folded(journals);
    if (!shard.ok()) return shard.status();
    if (Status status = Join(std::move(*shard), &*journal); !status.ok()) return status;
  }
  return journal;
}

Expected<Journal> CheckpointLoader::Folded(const std::vector<size_t>& journals) {
  Journal journal;
  for (const size_t index : journals) {
    auto reader = Open(index, ObjectKind::kJournal);
    if (!reader.ok()) return reader.status();
    auto next = LoadJournal(*reader, model_.config.vocab_size);
    if (!next.ok()) return next.status();
    if (Status status = Fold(*next, &journal); !status.ok()) return status;
  }
  return journal;
}

Expected<std::unique_ptr<ChainCache>> CheckpointLoader::Cache(const std::vector<size_t>& segments, size_t tail, TailState* state) {
  auto reader = Open(tail, ObjectKind::kTail);
  if (!reader.ok()) return reader.status();
  auto loaded = LoadTailState(*reader, geometry_, model_.config.vocab_size);
  if (!loaded.ok()) return loaded.status();
  std::unique_ptr<ChainCache> cache = restore_.prepared == nullptr ? nullptr : restore_.prepared->TakeCache();
  if (cache == nullptr) cache = backend_->NewCache();
  if (cache == nullptr) return Error(kErrMemory, "The system has no memory for another chain's KV cache; use fewer chains.");
  for (size_t s = 0; s < segments.size(); ++s) {
    const size_t segment = segments[s];
    if (std::find(segments.begin(), segments.begin() + static_cast<std::ptrdiff_t>(s), segment) != segments.begin() + static_cast<std::ptrdiff_t>(s)) {
      return CheckpointError(reason::kDamaged, "a chain lists a segment twice");
    }
    if (Status status = Load(segment, cache->pool()); !status.ok()) return status;
    if (Status status = AttachPages(sets_.at(segment), loaded->pages, cache.get()); !status.ok()) return status;
  }
  if (SealedPages(*cache) != loaded->pages) return CheckpointError(reason::kDamaged, "a tail needs other pages than its segments hold");
  if (Status status = LoadTail(*reader, geometry_, loaded->report.fed, Parallel(), cache.get()); !status.ok()) return status;
  *state = std::move(*loaded);
  return cache;
}

Expected<ObjectReader> CheckpointLoader::Open(size_t index, ObjectKind kind) {
  if (index >= restore_.objects.size()) return Error(kErrOption, "restore: there is no such object");
  const StoredObject& object = restore_.objects[index];
  if (object.seal >= restore_.seals.size()) return Error(kErrOption, "restore: there is no such seal");
  const Expect expect{kind, restore_.layout_id, object.bytes, &object.digest, restore_.check_digests};
  return ObjectReader::Open(object.chunks, expect, restore_.seals[object.seal]);
}

Status CheckpointLoader::Load(size_t segment, PagePool* pool) {
  if (sets_.contains(segment)) return Status::Ok();
  auto reader = Open(segment, ObjectKind::kSegment);
  if (!reader.ok()) return reader.status();
  auto set = LoadSegment(*reader, geometry_, pool, Parallel(), restore_.prepared);
  if (!set.ok()) return set.status();
  sets_.emplace(segment, std::move(*set));
  return Status::Ok();
}

ParallelFor CheckpointLoader::Parallel() {
  return [this](int64_t items, const std::function<void(int64_t)>& f) {
    backend_->RunOnThreads(items, items << 24, [&f](int64_t begin, int64_t end, int32_t) {
      for (int64_t i = begin; i < end; ++i) f(i);
    });
  };
}

}  // namespace rum
