// A tail: everything of one chain that its segments do not hold, at one cut between two steps. Frame 0: the chain's counters and the
// logits of its last token; then one frame for each layer with, for each KV head, its counts, the ring in order of slots and the open page.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/chain_cache.h"
#include "checkpoint/geometry.h"
#include "checkpoint/object_reader.h"
#include "checkpoint/object_writer.h"
#include "checkpoint/segment.h"
#include "run/run.h"

namespace rum {

// What a cache is the cache of. A tail serves no other chain, prompt or cut, whoever lists it.
using TokensDigest = std::array<uint8_t, 16>;
TokensDigest DigestOfTokens(std::span<const int32_t> prompt, std::span<const int32_t> generated);

struct TailState {
  int32_t generated = 0;      // tokens of the chain at the cut; the cache holds all of them, or all but the last
  ChainReport report;         // its counters; no tokens
  std::vector<float> logits;  // [vocab] of the last token, or empty: it was not fed
  TokensDigest tokens{};      // of the prompt and those generated
  PageMarks pages;            // sealed pages of each head that come before; SaveTail takes them from the cache
};

// `header.chain` says whose it is. header.frames is set here.
Expected<SavedObject> SaveTail(const ChainCache& cache, const TailState& state, int32_t kv_heads, ObjectHeader header, const Seal& seal, Codec codec);

// Frame 0 alone. ERR_CHECKPOINT.
Expected<TailState> LoadTailState(const ObjectReader& reader, const CacheGeometry& geometry, int32_t vocab);
// Ring and open page into a fresh cache that has those pages. ERR_CHECKPOINT, ERR_MEMORY.
Status LoadTail(const ObjectReader& reader, const CacheGeometry& geometry, int32_t length, const ParallelFor& parallel, ChainCache* cache);

// The counters of a report as tails and journals keep them.
class ByteReader;
class ByteWriter;
void PutCounters(const ChainReport& report, ByteWriter* out);
bool GetCounters(ByteReader* in, ChainReport* report);  // false: impossible

}  // namespace rum
