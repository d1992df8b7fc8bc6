// Puts the caches of a restored run together from stored objects: opens each once, verifies every byte, shares the pages of segments.
#pragma once
#include <memory>
#include <unordered_map>
#include <vector>

#include "backend/backend.h"
#include "checkpoint/geometry.h"
#include "checkpoint/journal.h"
#include "checkpoint/segment.h"
#include "checkpoint/tail.h"
#include "run/run.h"

namespace rum {

// All are borrowed and outlive the loader.
class CheckpointLoader {
 public:
  CheckpointLoader(Backend* backend, const Model& model, const RestoreOptions& restore, const CacheGeometry& geometry)
      : backend_(backend), model_(model), restore_(restore), geometry_(geometry) {}

  // All journals, folded; those of several shards as if one job had written them.
  Expected<Journal> Journals();
  // A chain's cache from its segments and tail.
  Expected<std::unique_ptr<ChainCache>> Cache(const std::vector<size_t>& segments, size_t tail, TailState* state);

 private:
  Expected<Journal> Folded(const std::vector<size_t>& journals);
  Expected<ObjectReader> Open(size_t index, ObjectKind kind);
  Status Load(size_t segment, PagePool* pool);
  ParallelFor Parallel();

  Backend* backend_;
  const Model& model_;
  const RestoreOptions& restore_;
  const CacheGeometry& geometry_;
  std::unordered_map<size_t, PageSet> sets_;
};

}  // namespace rum
