// A journal: what happened since the last one, tokens and eviction bits and counters, enough to do it all again. Frame 0 is about the job,
// then one frame for each chain that has news. Journals fold onto each other in order.
#pragma once
#include <cstdint>
#include <map>
#include <vector>

#include "cache/decision_log.h"
#include "checkpoint/object_reader.h"
#include "checkpoint/object_writer.h"
#include "checkpoint/tail.h"
#include "run/run.h"

namespace rum {

struct JournalJob {
  int64_t step = 0;
  int64_t prefill_read_sum = 0, prefill_peak_sum = 0, shared_sum = 0;
  int32_t prompt_tokens = 0;
  TokensDigest prompt{};
  int32_t decision_heads = 0;  // layers * KV heads, or 0: the backend keeps no eviction bits
  DecisionBits prompt_decisions;  // of the whole prompt in the first journal, of nothing in the others
};

// One chain: `report` holds the counters as of now and the tokens from `first_token` on.
struct JournalChain {
  int32_t chain = 0;
  int32_t first_token = 0;
  ChainReport report;
  DecisionBits decisions;  // of generated tokens that were fed; a backend that keeps none may have fed more
};

struct Journal {
  JournalJob job;
  std::map<int32_t, JournalChain> chains;
};

Expected<SavedObject> SaveJournal(const Journal& journal, ObjectHeader header, const Seal& seal, Codec codec);
// ERR_CHECKPOINT; tokens are below `vocab`.
Expected<Journal> LoadJournal(const ObjectReader& reader, int32_t vocab);
// ERR_CHECKPOINT(damaged) unless `next` goes on where `journal` ends.
Status Fold(const Journal& next, Journal* journal);
// What another shard of the same job says, folded. ERR_CHECKPOINT(damaged) if its prompt came out otherwise, or a chain is in both.
Status Join(Journal shard, Journal* journal);

}  // namespace rum
