// What run.cc, run_save.cc and run_restore.cc share: the state of a run.
#pragma once
#include <algorithm>
#include <limits>
#include <map>
#include <span>
#include <string_view>
#include <utility>

#include "cache/chain_cache.h"
#include "checkpoint/journal.h"
#include "checkpoint/segment.h"
#include "checkpoint/tail.h"
#include "core/limits.h"
#include "run/run.h"
#include "run/stop_matcher.h"

namespace rum {

inline constexpr ChainId kNoChain = -1;

// Sums the live lengths of every prompt token, over layers and KV heads, while a chunk is fed.
class PrefillMeter final : public TraceSink {
 public:
  explicit PrefillMeter(int32_t num_kv_heads) : num_kv_heads_(num_kv_heads) {}

  // Rows may arrive layer by layer or token by token, so the sums of a whole chunk are kept.
  void Begin(int32_t first_position, size_t token_count) {
    first_position_ = first_position;
    live_sums_.assign(token_count, 0);
  }
  void OnToken(ChainId, int32_t, int32_t position, const float*, const int32_t* live) override {
    int64_t& sum = live_sums_[static_cast<size_t>(position - first_position_)];
    for (int32_t j = 0; j < num_kv_heads_; ++j) sum += live[j];
  }
  std::span<const int64_t> live_sums() const { return live_sums_; }

 private:
  int32_t num_kv_heads_, first_position_ = 0;
  std::vector<int64_t> live_sums_;  // [tokens of the chunk]
};

// Sums the live lengths of every token that is fed again, over layers and KV heads.
class CatchUpMeter final : public TraceSink {
 public:
  explicit CatchUpMeter(int32_t num_kv_heads) : num_kv_heads_(num_kv_heads) {}
  void Begin() { sums_.clear(); }
  void OnToken(ChainId chain, int32_t, int32_t position, const float*, const int32_t* live) override {
    int64_t& sum = sums_[{chain, position}];
    for (int32_t j = 0; j < num_kv_heads_; ++j) sum += live[j];
  }
  int64_t sum(ChainId chain, int32_t position) const { return sums_.at({chain, position}); }

 private:
  int32_t num_kv_heads_;
  std::map<std::pair<ChainId, int32_t>, int64_t> sums_;
};

// What a run feeds: its prompt; tokens that a restored one had fed before; the newest token of its chains.
enum class Feeding { kPrompt, kCatchUp, kFront };

struct Behind {
  size_t chain;
  int32_t count;  // of its tokens in a Forward
};

struct ChainState {
  ChainId id = kNoChain;  // a finished chain keeps its cache until it is saved, if the run is checkpointed
  size_t logits_row = 0;  // of the last Forward
  TokenHistory history;
  StopState stop;
  ChainReport report;
  std::vector<float> last_logits;  // [vocab] of a chain that was ended with its last token fed, until it is saved
  // What earlier saves hold.
  PageMarks pages_saved;
  struct {
    bool ever = false;
    int32_t tokens = 0, decisions = 0, fed = 0;
    Finish finish = Finish::kNone;
  } journaled;
  // Of a restored chain: up to where its tokens were fed before, and the bits of one without a cache that this job has yet to journal.
  int32_t fed_before = 0;
  DecisionBits kept_decisions;
};

// What a restored run compares with once it has caught up.
struct Restored {
  RestoreOptions options;  // without the objects
  Journal journal;
};

class CheckpointLoader;

struct Run::Impl {
  Impl(std::shared_ptr<Backend> backend, std::shared_ptr<const Model> model, RunOptions options, StopMatcher stop);
  ~Impl();

  // Each plan leaves what is to be fed in rows_ and feed_, or has nothing to feed (false). Take says what came of it.
  Expected<bool> PlanPrefill();
  Expected<bool> PlanPrompt();
  void TakePrompt();
  Status ForkChains();
  bool PlanStep(const std::vector<TokenMask>& masks);
  size_t FindFront();
  Status CheckMasks(int32_t max_steps, const std::vector<TokenMask>& masks) const;
  Status Take(Status fed, bool alone);
  void SampleAll(const std::vector<TokenMask>& masks);
  Finish Accept(ChainState& chain, int32_t index, int32_t token);
  void EndOverBudget();
  bool BudgetAllowsFeeding() const;
  bool MemoryAllowsFeeding() const;
  void EndRunning(Finish finish);
  bool PlanFront();
  void TakeFront();
  Status FrontFailed(Status status, bool alone);
  void CountToken(ChainReport& report, int64_t live, int64_t reads) const;
  void End(size_t i, Finish finish);
  void DropFinished();
  void FreeCache(ChainState& chain) {
    if (chain.id != kNoChain) backend_->FreeChain(std::exchange(chain.id, kNoChain));
  }

  // run_save.cc
  void RecordDecisions();
  Status MarkPrompt(ChainId prompt);
  Journal News() const;
  Expected<std::vector<SavedPart>> Save(const SaveOptions& save);
  void Settle(const SaveOptions& save);

  // run_restore.cc
  Status Rebuild(const RestoreOptions& restore, const CacheGeometry* geometry);
  Status CheckJournals();
  Status RebuildChain(size_t i, CheckpointLoader* loader, bool has_caches);
  bool Recall(size_t i, const RestoreChain& from, const JournalChain& said);
  void KeepAsSaid(ChainState& chain, const JournalChain* said, Finish finish);
  void EndRestored(size_t i, Finish finish);
  Status CheckCut(const TailState& state, std::span<const int32_t> tokens) const;
  Status Adopt(size_t i, std::unique_ptr<ChainCache> cache, TailState state);
  Status AdoptPrompt(std::unique_ptr<ChainCache> cache, TailState state);
  static void TakeCounters(ChainState& chain, const ChainReport& counters);
  bool Recollect(ChainCache& cache, const RestoreChain& from);

  // run_prefix.cc
  Status RebuildPrefix(const RestoreOptions& restore, const CacheGeometry& geometry);
  Expected<DecisionBits> CheckPrefix(const Journal& journal, const RestoreChain& from, const TailState& state) const;

  // run_catch_up.cc
  Expected<bool> PlanCatchUp();
  bool PlanBehind();
  bool IsChunked() const;
  void TakeCatchUp();
  Status CheckRestored();
  int64_t SharedOfPrompt() const;

  size_t JobWidth() const { return std::max(chains_.size(), static_cast<size_t>(options_.job_width)); }
  int32_t FedWhole(const ChainState& chain) const { return static_cast<int32_t>(options_.prompt.size() + chain.report.tokens.size()); }
  std::span<float> LogitsRow(size_t r) { return std::span(logits_).subspan(r * vocab_, vocab_); }

  std::shared_ptr<Backend> backend_;
  std::shared_ptr<const Model> model_;
  RunOptions options_;
  StopMatcher stop_;
  Status error_;
  size_t vocab_;
  int64_t head_count_;
  int64_t read_sum_max_;              // kv_read_budget times head_count
  int64_t read_sum_ = 0;              // of all chains
  int64_t prefill_read_sum_ = 0, prefill_peak_sum_ = 0, shared_sum_ = 0, steps_ = 0;
  ChainId prompt_chain_ = kNoChain;   // holds the prompt until the chains are forked
  size_t prompt_row_ = 0;             // where its logits go: the row of a chain that begins with it
  bool prefilled_ = false;
  PrefillMeter prefill_meter_;
  CatchUpMeter catch_up_meter_;
  std::vector<ChainState> chains_;    // [width]
  std::vector<size_t> running_;       // indices of chains not finished, ascending
  std::vector<size_t> front_;         // those of them with the fewest tokens: the ones a step advances. Restored chains may be ahead
  std::vector<size_t> from_prompt_;   // chains that begin with the prompt's cache: all, unless some were restored
  std::vector<float> logits_;         // [width, vocab]; chains that finish leave gaps until the next Forward
  std::vector<float> side_logits_;    // [rows, vocab] of a Forward that must leave the rows of other chains alone
  PageMarks prompt_pages_;            // sealed pages of the prompt, by head; empty: the backend has none
  DecisionBits prompt_decisions_;
  bool records_decisions_ = true;
  int64_t caught_up_ = 0;
  bool prompt_saved_ = false, prompt_tail_saved_ = false, prompt_journaled_ = false;
  std::unique_ptr<Restored> restored_;  // what a restore has left to check once it has caught up
  std::vector<Row> rows_;
  Feeding feeding_ = Feeding::kPrompt;
  Feed feed_;                           // of rows_
  std::vector<Behind> behind_;          // whose tokens they are, if they are fed again
  std::vector<SampleScratch> scratch_;  // one for each thread that samples
  std::vector<int32_t> sampled_;        // [running_.size()]
};

}  // namespace rum
