#include "run/checkpoint_loader.h"
#include "run/run_impl.h"

namespace rum {
namespace {

Status Missing(const std::string& what) { return CheckpointError(reason::kMissing, what); }

}  // namespace

// What the journals say of a chain, as far as it is wanted. false: it stays finished.
bool Run::Impl::Recall(size_t i, const RestoreChain& from, const JournalChain& said) {
  ChainState& chain = chains_[i];
  const auto prompt = static_cast<int32_t>(options_.prompt.size());
  const auto all = static_cast<int32_t>(said.report.tokens.size()), count = from.tokens < 0 ? all : from.tokens;
  const bool whole = count == all;
  chain.report.tokens.assign(said.report.tokens.begin(), said.report.tokens.begin() + count);
  chain.report.tokens.reserve(static_cast<size_t>(options_.lengths[i]));
  if (options_.logprobs >= 0) chain.report.logprobs = said.report.logprobs.Slice(0, static_cast<size_t>(count));
  chain.report.logprobs.Reserve(static_cast<size_t>(options_.lengths[i]));
  for (const int32_t token : chain.report.tokens) {
    if (HasPenalties(options_.sampling)) chain.history.Add(token);
    if (!stop_.empty()) stop_.Append((*options_.pieces)[static_cast<size_t>(token)], chain.stop);
  }
  // A last token that had finished its chain is still to be fed, if the budget allows.
  chain.fed_before = whole ? said.report.fed : prompt + count;
  if (restored_->options.own_journal) {
    chain.journaled = {true, count, said.decisions.end, said.report.fed, said.report.finish};
  }
  const bool done = whole && said.report.finish == Finish::kStop;
  const bool ends = whole && (done || (said.report.finish != Finish::kNone && !from.reopen));
  // Longer than it may be now: it has its length already.
  if (!ends && count < options_.lengths[i]) return true;
  KeepAsSaid(chain, whole ? &said : nullptr, ends ? said.report.finish : Finish::kLength);
  return false;
}

// A chain that ends without a cache. Of one that was cut short (nullptr) nothing was read here.
void Run::Impl::KeepAsSaid(ChainState& chain, const JournalChain* said, Finish finish) {
  std::vector<int32_t> tokens = std::move(chain.report.tokens);
  Logprobs logprobs = std::move(chain.report.logprobs);
  chain.report = said == nullptr ? ChainReport{} : said->report;
  chain.report.logprobs = std::move(logprobs);
  if (said == nullptr) chain.report.fed = chain.fed_before;
  if (finish != Finish::kStop) chain.report.stop_bytes = -1;
  chain.report.finish = finish;
  chain.report.tokens = std::move(tokens);
  if (said != nullptr && !restored_->options.own_journal) chain.kept_decisions = said->decisions;
}

// A restored chain is ended before it has caught up: it stays as the journals have it.
void Run::Impl::EndRestored(size_t i, Finish finish) {
  ChainState& chain = chains_[i];
  const auto said = restored_->journal.chains.find(restored_->options.chains[i].source);
  const bool whole = said != restored_->journal.chains.end() && said->second.report.tokens.size() == chain.report.tokens.size();
  FreeCache(chain);
  KeepAsSaid(chain, whole ? &said->second : nullptr, finish);
}

Status Run::Impl::CheckJournals() {
  const JournalJob& job = restored_->journal.job;
  const RestoreOptions& restore = restored_->options;
  if (restore.journals.empty()) {
    const bool tails = restore.prompt_tail.has_value() || std::ranges::any_of(restore.chains, [](const RestoreChain& c) { return c.tail.has_value(); });
    return tails ? Missing("tails without their journals") : Status::Ok();
  }
  if (job.prompt_tokens != static_cast<int32_t>(options_.prompt.size()) || job.prompt != DigestOfTokens(options_.prompt, {})) {
    return CheckpointError(reason::kDamaged, "the journals are of another prompt");
  }
  if (job.decision_heads != 0 && job.decision_heads != head_count_) return CheckpointError(reason::kLayout, "the journals are of another model's heads");
  for (const auto& [index, chain] : restored_->journal.chains) {
    const bool has_them = chain.report.tokens.empty() || chain.report.logprobs.top == options_.logprobs;
    if (options_.logprobs >= 0 && !has_them) return CheckpointError(reason::kDamaged, "the journals lack the log-probabilities that the job keeps");
  }
  for (size_t i = 0; i < chains_.size() && restore.own_journal; ++i) {
    const RestoreChain& from = restore.chains[i];
    const bool own = from.source == options_.first_chain + static_cast<int32_t>(i) && from.tokens < 0;
    if (from.source >= 0 && !own) return Error(kErrOption, "restore: a job's own chains go on where its own journals end");
  }
  return Status::Ok();
}

Status Run::Impl::Rebuild(const RestoreOptions& restore, const CacheGeometry* geometry) {
  if (restore.chains.size() != chains_.size()) return Error(kErrOption, "restore: one entry for each chain is needed");
  static const CacheGeometry kNone;
  CheckpointLoader loader(backend_.get(), *model_, restore, geometry == nullptr ? kNone : *geometry);
  auto journal = loader.Journals();
  if (!journal.ok()) return journal.status();
  restored_ = std::make_unique<Restored>(Restored{restore, std::move(*journal)});
  restored_->options.objects.clear();
  if (Status status = CheckJournals(); !status.ok()) return status;
  const JournalJob& job = restored_->journal.job;
  prompt_decisions_ = job.prompt_decisions;
  prompt_journaled_ = restore.own_journal && !restore.journals.empty();
  // Bits that a job's first journals lack cannot be made up for later.
  records_decisions_ = restore.journals.empty() || job.decision_heads > 0;
  prefill_read_sum_ = job.prefill_read_sum;
  prefill_peak_sum_ = job.prefill_peak_sum;
  shared_sum_ = JobWidth() > 1 ? job.shared_sum : 0;

  from_prompt_.clear();
  for (size_t i = 0; i < chains_.size(); ++i) {
    if (Status status = RebuildChain(i, &loader, geometry != nullptr); !status.ok()) return status;
    steps_ = std::max(steps_, static_cast<int64_t>(chains_[i].report.tokens.size()));
  }
  if (!from_prompt_.empty() && restore.prompt_tail.has_value() && geometry != nullptr) {
    TailState state;
    auto cache = loader.Cache(restore.prompt_segments, *restore.prompt_tail, &state);
    if (!cache.ok()) return cache.status();
    if (Status status = CheckCut(state, {}); !status.ok()) return status;
    if (Status status = AdoptPrompt(std::move(*cache), std::move(state)); !status.ok()) return status;
  }
  DropFinished();
  return Status::Ok();
}

Status Run::Impl::RebuildChain(size_t i, CheckpointLoader* loader, bool has_caches) {
  const RestoreChain& from = restored_->options.chains[i];
  ChainState& chain = chains_[i];
  chain.logits_row = i;
  if (from.source >= 0) {
    const auto said = restored_->journal.chains.find(from.source);
    if (said == restored_->journal.chains.end()) return Missing("the journals do not know chain " + std::to_string(from.source));
    const size_t known = said->second.report.tokens.size();
    if (from.tokens > static_cast<int64_t>(known)) {
      return Missing("the journals hold " + std::to_string(known) + " tokens of the chain; " + std::to_string(from.tokens) + " were asked for");
    }
    if (!Recall(i, from, said->second)) return Status::Ok();
  }
  if (!from.tail.has_value() || !has_caches) {
    from_prompt_.push_back(i);
    return Status::Ok();
  }
  TailState state;
  auto cache = loader->Cache(from.segments, *from.tail, &state);
  if (!cache.ok()) return cache.status();
  if (Status status = CheckCut(state, chain.report.tokens); !status.ok()) return status;
  return Adopt(i, std::move(*cache), std::move(state));
}

// That a tail is of a chain that began with these tokens, and holds what it must to go on.
Status Run::Impl::CheckCut(const TailState& state, std::span<const int32_t> tokens) const {
  const auto prompt = static_cast<int32_t>(options_.prompt.size()), count = static_cast<int32_t>(tokens.size());
  if (state.generated > count) return CheckpointError(reason::kDamaged, "a tail holds more tokens than the journals");
  const int32_t fed = state.report.fed - prompt;
  const bool last_fed = fed == state.generated;
  if (!last_fed && (fed != state.generated - 1 || fed < 0)) return CheckpointError(reason::kDamaged, "a tail is of another prompt");
  if (state.tokens != DigestOfTokens(options_.prompt, tokens.first(static_cast<size_t>(state.generated)))) {
    return CheckpointError(reason::kDamaged, "a tail is of other tokens");
  }
  if (last_fed == state.logits.empty()) return CheckpointError(reason::kDamaged, "a tail has logits of a token that it was not fed, or none");
  return Status::Ok();
}

// The chain's cache at the tail's cut: counters are those of the cut, and go on from there.
Status Run::Impl::Adopt(size_t i, std::unique_ptr<ChainCache> cache, TailState state) {
  ChainState& chain = chains_[i];
  if (!Recollect(*cache, restored_->options.chains[i])) {
    return CheckpointError(reason::kDamaged, "the journals do not say what was decided about the tokens of a tail");
  }
  chain.pages_saved = SealedPages(*cache);
  std::ranges::copy(state.logits, LogitsRow(i).begin());
  TakeCounters(chain, state.report);
  Expected<ChainId> id = backend_->AdoptChain(std::move(cache));
  if (!id.ok()) return id.status();
  chain.id = *id;
  if (backend_->LiveSum(chain.id) != chain.report.live_sum) return CheckpointError(reason::kDamaged, "a tail counts other tokens than it holds");
  return Status::Ok();
}

// Prefill finds the prompt already fed, and forks it.
Status Run::Impl::AdoptPrompt(std::unique_ptr<ChainCache> cache, TailState state) {
  prompt_row_ = from_prompt_[0];
  std::ranges::copy(state.logits, LogitsRow(prompt_row_).begin());
  cache->decisions() = records_decisions_ ? DecisionLog(cache->heads()) : DecisionLog();
  if (records_decisions_) cache->decisions().Know(prompt_decisions_, false);
  for (const size_t i : from_prompt_) TakeCounters(chains_[i], state.report);
  Expected<ChainId> id = backend_->AdoptChain(std::move(cache));
  if (!id.ok()) return id.status();
  prompt_chain_ = *id;
  prompt_saved_ = prompt_tail_saved_ = true;
  return Status::Ok();
}

void Run::Impl::TakeCounters(ChainState& chain, const ChainReport& counters) {
  std::vector<int32_t> tokens = std::move(chain.report.tokens);
  Logprobs logprobs = std::move(chain.report.logprobs);
  chain.report = counters;
  chain.report.logprobs = std::move(logprobs);
  chain.report.finish = Finish::kNone;
  chain.report.stop_bytes = -1;
  chain.report.tokens = std::move(tokens);
}

// What the journals say the policy decided about the chain's own tokens, to compare with or to force. false: less than the cache holds.
bool Run::Impl::Recollect(ChainCache& cache, const RestoreChain& from) {
  cache.decisions() = records_decisions_ ? DecisionLog(cache.heads()) : DecisionLog();
  if (!records_decisions_) return true;
  const auto prompt = static_cast<int32_t>(options_.prompt.size());
  DecisionBits known{prompt, prompt, {}};
  const auto said = restored_->journal.chains.find(from.source);
  if (said != restored_->journal.chains.end()) {
    const DecisionBits& all = said->second.decisions;
    known = Slice(all, prompt, from.tokens < 0 ? all.end : std::min(all.end, prompt + from.tokens), cache.heads());
  }
  cache.decisions().Know(known, restored_->options.replay);
  return known.end >= cache.length();
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
  if (restore.prefix.has_value()) {
    if (probe == nullptr) return Error(kErrOption, "restore: this cache is computed again, never restored");
    if (Status status = impl.RebuildPrefix(restore, geometry); !status.ok()) return status;
    return run;
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
