// The narrow waist: what every backend (reference, cpu, later cuda) does for the layers above. A backend owns the packed weights,
// the KV cache of its chains and its threads. Bits: docs/NUMERICS.md.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/status.h"
#include "model/weights.h"

namespace rum {

enum class KvType : int32_t { kF32, kBF16 };
enum class Isa : int32_t { kAuto, kPortable, kAvx2, kAvx512 };

struct BackendOptions {
  KvType kv = KvType::kF32;
  int32_t page_slots = 64;  // survivors per page; a layout parameter, never changes a bit
  int32_t threads = 1;
  Isa isa = Isa::kAuto;     // kAuto: RUMINATE_ISA if set, else the best level of this machine
};

using ChainId = int32_t;

class ChainCache;  // cache/chain_cache.h

// One token to feed. Rows of one chain in one call are consecutive positions of it, in order. The rows of its prompt come first.
struct Row {
  ChainId chain = 0;
  int32_t token = 0;
  bool want_logits = false;
  bool prefill = false;     // a token of the prompt
  bool prompt_end = false;  // its last one
};

// The live keys of one (chain, layer, KV head), in ascending order of position. For tests, tools and checkpoints' checks.
struct HeadSnapshot {
  std::vector<int32_t> positions;  // [n]
  std::vector<float> k;            // [n, head_dim], post-RoPE, widened to float
  std::vector<float> v;            // [n, head_dim]
};

// Called once per (row, layer), in order of position for a chain.
class TraceSink {
 public:
  virtual ~TraceSink() = default;
  // decision_logits [num_kv_heads] or nullptr (no decisions): DMS about the token before, KVzap's scores of the token itself.
  // live [num_kv_heads] = visible keys of this query, itself included.
  virtual void OnToken(ChainId chain, int32_t layer, int32_t position, const float* decision_logits, const int32_t* live) = 0;
  // Baselines that score: what they scored and chose, after the Forward in which they did, layer by layer. A kvpress scorer: once, at
  // the end of the prompt, for each KV head: scores [prompt] and the positions kept. Quest: for each token and query head of a layer
  // that selects: scores [pages] and the pages chosen.
  virtual void OnScores(ChainId /*chain*/, int32_t /*layer*/, int32_t /*head*/, std::span<const float> /*scores*/,
                        std::span<const int32_t> /*chosen*/) {}
};

struct MemoryUse {
  int64_t weight_bytes = 0;       // packed weights
  int64_t kv_allocated_bytes = 0; // rings and pages now held, whatever their fill
};

// f(begin, end, thread): does the items [begin, end) of some independent ones. Which thread does an item never matters to its result.
using WorkShare = std::function<void(int64_t begin, int64_t end, int32_t thread)>;

// Not thread-safe: one caller at a time (Run and the binding see to it); uses its own threads inside.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual const char* name() const = 0;
  virtual Isa isa() const = 0;

  virtual Expected<ChainId> NewChain() = 0;
  // A chain with the same tokens; sealed pages are shared, the ring and the open page are copied.
  virtual Expected<ChainId> ForkChain(ChainId chain) = 0;
  virtual void FreeChain(ChainId chain) = 0;

  // Feeds rows (any number of chains and tokens) and writes logits [rows with want_logits, vocab], in row order.
  // ERR_NUMERICS if a logit is not finite, when all rows are fed and all logits written: only that chain is unusable. ERR_MEMORY if a
  // page cannot be had: after any other error than the first all chains of the call are unusable.
  virtual Status Forward(std::span<const Row> rows, float* logits) = 0;

  virtual int32_t Length(ChainId chain) const = 0;  // tokens fed
  // Sums over (layer, KV head): tokens held for the last token fed (KVzap at the end of the prompt: once it is pruned), tokens its
  // attention read (the same but for Quest), and tokens that the next token fed after the prompt will read (before it is known).
  virtual int64_t LiveSum(ChainId chain) const = 0;
  virtual int64_t ReadSum(ChainId chain) const { return LiveSum(chain); }
  virtual int64_t NextLiveSum(ChainId chain) const = 0;
  // Sum over (layer, KV head) of survivors in sealed pages that other chains share too.
  virtual int64_t SharedSum(ChainId chain) const = 0;
  virtual HeadSnapshot Snapshot(ChainId chain, int32_t layer, int32_t kv_head) const = 0;
  virtual MemoryUse Memory() const = 0;
  virtual void SetTrace(TraceSink* sink) = 0;  // nullptr: none

  // The cache of a chain as a checkpoint reads it, a fresh one as a restore fills it, and a chain that owns a filled one. nullptr: this
  // backend keeps no ring and log, and its jobs are journaled only.
  virtual ChainCache* Cache(ChainId /*chain*/) { return nullptr; }
  virtual std::unique_ptr<ChainCache> NewCache();
  virtual Expected<ChainId> AdoptChain(std::unique_ptr<ChainCache> cache);

  // Its threads for the work of others between two Forwards. cost: of all items together, in vector multiply-adds of one lane.
  virtual int32_t threads() const { return 1; }
  virtual void RunOnThreads(int64_t items, int64_t /*cost*/, const WorkShare& f) {
    if (items > 0) f(0, items, 0);
  }
};

// Allocates packed weights and threads; the Model must outlive nothing: the backend keeps it.
Expected<std::unique_ptr<Backend>> MakeReferenceBackend(std::shared_ptr<const Model> model, const BackendOptions& options);
Expected<std::unique_ptr<Backend>> MakeCpuBackend(std::shared_ptr<const Model> model, const BackendOptions& options);

// The level a cpu backend would use: `wanted`, or for kAuto RUMINATE_ISA, or the best one here. ERR_OPTION if this machine lacks it.
Expected<Isa> ResolveIsa(Isa wanted);
const char* IsaName(Isa isa);

inline constexpr const char* kNumericsId = "exact-1";

}  // namespace rum
