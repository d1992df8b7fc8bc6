// A segment: sealed pages of one chain, or of the prompt that all chains share. One frame for each layer; in it, for each KV head, the
// index of its first page and their count, then the pages: K [head_dim][page_slots] | V [page_slots][head_dim] | positions i32 [page_slots].
#pragma once
#include <cstdint>
#include <vector>

#include "cache/chain_cache.h"
#include "checkpoint/geometry.h"
#include "checkpoint/object_reader.h"
#include "checkpoint/object_writer.h"

namespace rum {

// Pages of each head, [layers * kv_heads].
using PageMarks = std::vector<int32_t>;

std::vector<int32_t> PositionsOf(const CacheLayout& layout, const uint8_t* page);

// The sealed pages of a cache.
PageMarks SealedPages(const ChainCache& cache);

// Pages [from, to) of each head. header.frames is set here.
Expected<SavedObject> SaveSegment(const ChainCache& cache, const PageMarks& from, const PageMarks& to, int32_t kv_heads, ObjectHeader header,
                                  const Seal& seal, Codec codec);

// Pages that came out of a segment, side by side, each held once until the set goes; caches take references of their own.
class PageSet {
 public:
  struct Head {
    int32_t first = 0;  // index of its first page in the head's log
    std::span<uint8_t* const> pages;
  };
  PageSet(PagePool* pool, int32_t heads) : pool_(pool), heads_(static_cast<size_t>(heads)) {}
  PageSet(PageSet&&) noexcept = default;
  PageSet& operator=(PageSet&&) = delete;
  ~PageSet() { pool_->Release(pages_); }

  bool Allocate(size_t pages);  // once. false: no memory
  void Take(std::vector<uint8_t*> pages) { pages_ = std::move(pages); }  // instead: of the pool, each held once
  std::span<uint8_t* const> pages() const { return pages_; }
  std::vector<Head>& heads() { return heads_; }
  const std::vector<Head>& heads() const { return heads_; }

 private:
  PagePool* pool_;
  std::vector<uint8_t*> pages_;
  std::vector<Head> heads_;
};

// K, V and positions of a page as they are stored.
int64_t StoredPageBytes(const CacheLayout& layout);

class PreparedMemory;
// Verifies every byte. Into pages of `prepared` (nullptr: none) if it has as many, else into fresh ones. ERR_CHECKPOINT, ERR_MEMORY.
Expected<PageSet> LoadSegment(const ObjectReader& reader, const CacheGeometry& geometry, PagePool* pool, const ParallelFor& parallel,
                              PreparedMemory* prepared = nullptr);

// Shares the pages with a fresh cache, up to `pages` of each head in all. Those of a chain that went on from an older cut replace what the
// cache has from there on. ERR_CHECKPOINT(damaged) if pages are missing between, or tokens out of order.
Status AttachPages(const PageSet& set, const PageMarks& pages, ChainCache* cache);

}  // namespace rum
