#include <map>
#include <unordered_map>

#include "checkpoint/tail.h"
#include "run/run_impl.h"

namespace rum {
namespace {

// Sums the live lengths of every token that is fed again, over layers and KV heads.
class CatchUpMeter final : public TraceSink {
 public:
  explicit CatchUpMeter(int32_t num_kv_heads) : num_kv_heads_(num_kv_heads) {}
  void OnToken(ChainId chain, int32_t, int32_t position, const float*, const int32_t* live) override {
    int64_t& sum = sums_[{chain, position}];
    for (int32_t j = 0; j < num_kv_heads_; ++j) sum += live[j];
  }
  int64_t sum(ChainId chain, int32_t position) const { return sums_.at({chain, position}); }
  void Clear() { sums_.clear(); }

 private:
  int32_t num_kv_heads_;
  std::map<std::pair<ChainId, int32_t>, int64_t> sums_;
};

Status Missing(const std::string& what) { return CheckpointError(reason::kMissing, what); }

bool SameCounters(const ChainReport& a, const ChainReport& b) {
  return a.live_sum == b.live_sum && a.peak_sum == b.peak_sum && a.decode_peak_sum == b.decode_peak_sum && a.read_sum == b.read_sum &&
         a.dense_read_sum == b.dense_read_sum && a.fed == b.fed;
}

// Opens objects and keeps the pages of segments while chains are put together.
class Loader {
 public:
  Loader(Backend* backend, const Model& model, const RestoreOptions& restore, const CacheGeometry& geometry)
      : backend_(backend), model_(model), restore_(restore), geometry_(geometry) {}

  Expected<Journal> Journals() {
    Journal journal;
    for (const size_t index : restore_.journals) {
      auto reader = Open(index, ObjectKind::kJournal);
      if (!reader.ok()) return reader.status();
      auto next = LoadJournal(*reader, model_.config.vocab_size);
      if (!next.ok()) return next.status();
      if (Status status = Fold(*next, &journal); !status.ok()) return status;
    }
    return journal;
  }

  // A chain's cache from its segments and tail.
  Expected<std::unique_ptr<ChainCache>> Cache(const std::vector<size_t>& segments, size_t tail, TailState* state) {
    auto reader = Open(tail, ObjectKind::kTail);
    if (!reader.ok()) return reader.status();
    auto loaded = LoadTailState(*reader, geometry_, model_.config.vocab_size);
    if (!loaded.ok()) return loaded.status();
    std::unique_ptr<ChainCache> cache = backend_->NewCache();
    if (cache == nullptr) return Error(kErrMemory, "The system has no memory for another chain's KV cache; use fewer chains.");
    for (const size_t segment : segments) {
      if (Status status = Load(segment, cache->pool()); !status.ok()) return status;
      if (Status status = AttachPages(sets_.at(segment), loaded->pages, cache.get()); !status.ok()) return status;
    }
    if (Status status = LoadTail(*reader, geometry_, loaded->report.fed, Parallel(), cache.get()); !status.ok()) return status;
    *state = std::move(*loaded);
    return cache;
  }

 private:
  Expected<ObjectReader> Open(size_t index, ObjectKind kind) {
    if (index >= restore_.objects.size()) return Error(kErrOption, "restore: there is no such object");
    const StoredObject& object = restore_.objects[index];
    if (object.seal >= restore_.seals.size()) return Error(kErrOption, "restore: there is no such seal");
    const Expect expect{kind, restore_.layout_id, object.bytes, &object.digest, restore_.check_digests};
    return ObjectReader::Open(object.chunks, expect, restore_.seals[object.seal]);
  }

  Status Load(size_t segment, PagePool* pool) {
    if (sets_.contains(segment)) return Status::Ok();
    auto reader = Open(segment, ObjectKind::kSegment);
    if (!reader.ok()) return reader.status();
    auto set = LoadSegment(*reader, geometry_, pool, Parallel());
    if (!set.ok()) return set.status();
    sets_.emplace(segment, std::move(*set));
    return Status::Ok();
  }

  ParallelFor Parallel() {
    return [this](int64_t items, const std::function<void(int64_t)>& f) {
      backend_->RunOnThreads(items, items << 24, [&f](int64_t begin, int64_t end, int32_t) {
        for (int64_t i = begin; i < end; ++i) f(i);
      });
    };
  }

  Backend* backend_;
  const Model& model_;
  const RestoreOptions& restore_;
  const CacheGeometry& geometry_;
  std::unordered_map<size_t, PageSet> sets_;
};

}  // namespace

// What the journals say of a chain, as far as it is wanted. false: it stays finished.
bool Run::Impl::Recall(size_t i, const RestoreChain& from, const JournalChain& said) {
  ChainState& chain = chains_[i];
  chain.report = said.report;
  chain.report.tokens.reserve(static_cast<size_t>(options_.lengths[i]));
  const size_t count = from.tokens < 0 ? said.report.tokens.size() : static_cast<size_t>(from.tokens);
  const bool whole = count == said.report.tokens.size();
  chain.report.tokens.resize(count);
  const bool by_itself = whole && said.report.finish == Finish::kStop;
  const bool ends = whole && (by_itself || (said.report.finish != Finish::kNone && !from.reopen));
  for (const int32_t token : chain.report.tokens) {
    if (HasPenalties(options_.sampling)) chain.history.Add(token);
    if (!stop_.empty()) stop_.Append((*options_.pieces)[static_cast<size_t>(token)], chain.stop);
  }
  if (restored_->options.own_journal) {
    chain.ever_journaled = true;
    chain.tokens_journaled = static_cast<int32_t>(count);
    chain.decisions_journaled = said.decisions.end;
    chain.finish_journaled = ends;
  } else {
    chain.decisions_journaled = static_cast<int32_t>(options_.prompt.size());
    if (ends) chain.kept_decisions = said.decisions;
  }
  if (ends) return false;
  chain.report.finish = Finish::kNone;
  chain.report.stop_bytes = -1;
  // Longer than it may be now: it has its length already.
  if (count >= static_cast<size_t>(options_.lengths[i])) {
    chain.report.finish = Finish::kLength;
    return false;
  }
  return true;
}

Status Run::Impl::Rebuild(const RestoreOptions& restore, const CacheGeometry* geometry) {
  if (restore.chains.size() != chains_.size()) return Error(kErrOption, "restore: one entry for each chain is needed");
  static const CacheGeometry kNone;
  Loader loader(backend_.get(), *model_, restore, geometry == nullptr ? kNone : *geometry);
  auto journal = loader.Journals();
  if (!journal.ok()) return journal.status();
  restored_ = std::make_unique<Restored>(Restored{restore, std::move(*journal)});
  restored_->options.objects.clear();
  const JournalJob& job = restored_->journal.job;
  const auto prompt = static_cast<int32_t>(options_.prompt.size());
  if (job.prompt_tokens != 0 && job.prompt_tokens != prompt) return CheckpointError(reason::kDamaged, "the journals are of another prompt");
  prompt_decisions_ = job.prompt_decisions;
  prompt_journaled_ = restore.own_journal && !restore.journals.empty();

  from_prompt_.clear();
  bool restored_any = false;
  for (size_t i = 0; i < chains_.size(); ++i) {
    const RestoreChain& from = restore.chains[i];
    ChainState& chain = chains_[i];
    chain.logits_row = i;
    if (from.source >= 0) {
      const auto said = restored_->journal.chains.find(from.source);
      if (said == restored_->journal.chains.end()) return Missing("the journals do not know chain " + std::to_string(from.source));
      if (from.tokens > static_cast<int32_t>(said->second.report.tokens.size())) {
        return Missing("the journals hold " + std::to_string(said->second.report.tokens.size()) + " tokens of the chain; " + std::to_string(from.tokens) + " were asked for");
      }
      if (!Recall(i, from, said->second)) continue;
    }
    if (!from.tail.has_value() || geometry == nullptr) {
      // Its tokens are fed again, and counted again.
      ChainReport fresh;
      fresh.tokens = std::move(chain.report.tokens);
      chain.report = std::move(fresh);
      from_prompt_.push_back(i);
      continue;
    }
    TailState state;
    auto cache = loader.Cache(from.segments, *from.tail, &state);
    if (!cache.ok()) return cache.status();
    const auto tokens = static_cast<int32_t>(chain.report.tokens.size());
    if (state.generated > tokens) return CheckpointError(reason::kDamaged, "a tail holds more tokens than the journals");
    const bool fits = state.report.fed == prompt + state.generated - (state.logits.empty() && state.generated > 0 ? 1 : 0);
    if (!fits) return CheckpointError(reason::kDamaged, "a tail is of another prompt");
    if (state.logits.empty() && state.generated == tokens && state.report.fed == prompt + tokens) return CheckpointError(reason::kDamaged, "a tail has no logits");
    Adopt(i, std::move(*cache), std::move(state));
    if (chain.id == kNoChain) return error_;
    restored_any = true;
  }
  if (!from_prompt_.empty() && restore.prompt_tail.has_value() && geometry != nullptr) {
    TailState state;
    auto cache = loader.Cache(restore.prompt_segments, *restore.prompt_tail, &state);
    if (!cache.ok()) return cache.status();
    if (state.generated != 0 || state.report.fed != prompt || state.logits.empty()) return CheckpointError(reason::kDamaged, "the tail of the prompt is not at its end");
    if (Status status = AdoptPrompt(std::move(*cache), std::move(state)); !status.ok()) return status;
    restored_any = true;
  }
  if (restored_any || from_prompt_.empty()) {
    prefill_read_sum_ = job.prefill_read_sum;
    prefill_peak_sum_ = job.prefill_peak_sum;
  }
  DropFinished();
  steps_ = job.step;
  return Status::Ok();
}

// The chain's cache at the tail's cut: counters are those of the cut, and go on from there.
void Run::Impl::Adopt(size_t i, std::unique_ptr<ChainCache> cache, TailState state) {
  ChainState& chain = chains_[i];
  Expect(*cache, restored_->options.chains[i]);
  chain.pages_saved = SealedPages(*cache);
  std::ranges::copy(state.logits, LogitsRow(i).begin());
  std::vector<int32_t> tokens = std::move(chain.report.tokens);
  chain.report = state.report;
  chain.report.finish = Finish::kNone;
  chain.report.stop_bytes = -1;
  chain.report.tokens = std::move(tokens);
  Expected<ChainId> id = backend_->AdoptChain(std::move(cache));
  if (id.ok()) {
    chain.id = *id;
  } else {
    error_ = id.status();
  }
}

// Prefill finds the prompt already fed, and forks it.
Status Run::Impl::AdoptPrompt(std::unique_ptr<ChainCache> cache, TailState state) {
  prompt_row_ = from_prompt_[0];
  std::ranges::copy(state.logits, LogitsRow(prompt_row_).begin());
  cache->decisions() = DecisionLog(cache->heads());
  if (!prompt_decisions_.bits.empty()) cache->decisions().Know(prompt_decisions_, false);
  for (const size_t i : from_prompt_) {
    ChainReport& report = chains_[i].report;
    std::vector<int32_t> tokens = std::move(report.tokens);
    report = state.report;
    report.tokens = std::move(tokens);
  }
  Expected<ChainId> id = backend_->AdoptChain(std::move(cache));
  if (!id.ok()) return id.status();
  prompt_chain_ = *id;
  prompt_saved_ = prompt_tail_saved_ = true;
  return Status::Ok();
}

// What the journals say the policy decided about the chain's own tokens, to compare with or to force.
void Run::Impl::Expect(ChainCache& cache, const RestoreChain& from) {
  if (!options_.checkpointed) return;
  const auto prompt = static_cast<int32_t>(options_.prompt.size());
  const int32_t heads = restored_->journal.job.decision_heads;
  cache.decisions() = DecisionLog(cache.heads());
  DecisionBits known{prompt, prompt, {}};
  const auto said = restored_->journal.chains.find(from.source);
  if (said != restored_->journal.chains.end() && heads == cache.heads()) {
    const DecisionBits& all = said->second.decisions;
    const int32_t end = from.tokens < 0 ? all.end : std::min(all.end, prompt + from.tokens);
    known = Slice(all, prompt, std::max(prompt, end), heads);
  }
  cache.decisions().Know(known, restored_->options.replay);
}

// Feeds the tokens that the journals hold and the caches do not, all chains together.
Status Run::Impl::CatchUp(const std::atomic<bool>& cancel) {
  if (restored_ == nullptr) return Status::Ok();
  for (const size_t i : from_prompt_) {
    ChainCache* cache = chains_[i].id == kNoChain ? nullptr : backend_->Cache(chains_[i].id);
    if (cache != nullptr && cache->length() == static_cast<int32_t>(options_.prompt.size())) Expect(*cache, restored_->options.chains[i]);
  }
  for (;;) {
    if (cancel.load(std::memory_order_relaxed)) return Error(kErrCancelled, "cancelled while tokens were fed again");
    const int64_t before = caught_up_;
    if (Status status = CatchUpOnce(); !status.ok()) return status;
    if (caught_up_ == before) return CheckRestored();
  }
}

Status Run::Impl::CatchUpOnce() {
  const auto prompt = static_cast<int32_t>(options_.prompt.size());
  std::vector<size_t> behind;
  for (const size_t i : running_) {
    if (chains_[i].report.fed < prompt + static_cast<int32_t>(chains_[i].report.tokens.size())) behind.push_back(i);
  }
  if (behind.empty()) return Status::Ok();
  // Without a cache of ours what attention reads is known only token by token.
  const bool chunked = backend_->Cache(chains_[behind[0]].id) != nullptr;
  const int32_t share = chunked ? std::max(1, options_.prefill_chunk / static_cast<int32_t>(behind.size())) : 1;
  rows_.clear();
  std::vector<std::pair<size_t, int32_t>> counts;
  size_t wanted = 0;
  for (const size_t i : behind) {
    const ChainReport& report = chains_[i].report;
    const auto tokens = static_cast<int32_t>(report.tokens.size());
    const int32_t first = report.fed - prompt, count = std::min(share, tokens - first);
    for (int32_t t = first; t < first + count; ++t) rows_.push_back({chains_[i].id, report.tokens[static_cast<size_t>(t)], t + 1 == tokens});
    wanted += first + count == tokens ? 1 : 0;
    counts.emplace_back(i, count);
  }
  side_logits_.resize(wanted * vocab_);
  CatchUpMeter meter(model_->config.num_kv_heads);
  backend_->SetTrace(&meter);
  Status status = backend_->Forward(rows_, side_logits_.data());
  backend_->SetTrace(nullptr);
  if (!status.ok()) return status;
  size_t row = 0;
  for (const auto& [i, count] : counts) {
    ChainState& chain = chains_[i];
    ChainReport& report = chain.report;
    for (int32_t n = 0; n < count; ++n) {
      const int64_t live = chunked ? meter.sum(chain.id, report.fed) : backend_->LiveSum(chain.id);
      report.fed += 1;
      report.live_sum = live;
      report.peak_sum = std::max(report.peak_sum, live);
      report.decode_peak_sum = std::max(report.decode_peak_sum, live);
      report.read_sum += chunked ? live : backend_->ReadSum(chain.id);
      report.dense_read_sum += report.fed * head_count_;
    }
    caught_up_ += count;
    if (report.fed == prompt + static_cast<int32_t>(report.tokens.size())) {
      std::ranges::copy(std::span(side_logits_).subspan(row++ * vocab_, vocab_), LogitsRow(i).begin());
      chain.logits_row = i;
    }
  }
  return Status::Ok();
}

// Everything fed again must have come out as it did before.
Status Run::Impl::CheckRestored() {
  const Restored& restored = *restored_;
  for (const size_t i : running_) {
    const RestoreChain& from = restored.options.chains[i];
    const ChainCache* cache = backend_->Cache(chains_[i].id);
    const std::string name = "chain " + std::to_string(options_.first_chain + static_cast<int32_t>(i));
    if (cache != nullptr && cache->decisions().drifted()) return CheckpointError(reason::kNumericsDrift, name + " decides otherwise than its journal says");
    const auto said = restored.journal.chains.find(from.source);
    if (said == restored.journal.chains.end() || from.tokens >= 0 || from.reopen) continue;
    if (!SameCounters(chains_[i].report, said->second.report)) return CheckpointError(reason::kNumericsDrift, name + " has other counters than its journal says");
  }
  read_sum_ = 0;
  for (const ChainState& chain : chains_) read_sum_ += chain.report.read_sum;
  // What the prompt shares is a matter of the prompt: an extension's is its ancestor's.
  if (!restored.options.journals.empty()) shared_sum_ = restored.journal.job.shared_sum;
  FindFront();
  restored_.reset();
  return Status::Ok();
}

Expected<std::unique_ptr<Run>> Run::Restore(std::shared_ptr<Backend> backend, std::shared_ptr<const Model> model, RunOptions options,
                                            const RestoreOptions& restore) {
  options.checkpointed = true;
  auto run = Create(std::move(backend), std::move(model), std::move(options));
  if (!run.ok()) return run.status();
  Impl& impl = *(*run)->impl_;
  const std::unique_ptr<ChainCache> probe = impl.backend_->NewCache();
  const ModelConfig& config = impl.model_->config;
  CacheGeometry geometry{config.num_layers, config.num_kv_heads, {}};
  if (probe != nullptr) {
    geometry.layout = probe->layout();
    if (LayoutIdOf(geometry) != restore.layout_id) return CheckpointError(reason::kLayout, "the checkpoint is of another cache layout than this engine's");
  }
  if (Status status = impl.Rebuild(restore, probe == nullptr ? nullptr : &geometry); !status.ok()) return status;
  if (impl.running_.empty()) {
    // Nothing to feed again, so nobody will ask later.
    impl.prefilled_ = true;
    if (Status status = impl.CheckRestored(); !status.ok()) return status;
  }
  return run;
}

}  // namespace rum
