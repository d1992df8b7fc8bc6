// A run whose prompt begins as a chain of another job did: that chain's cache, and the rest of the prompt is fed (DESIGN.md 2). Everything
// is as if all of it had been fed here, counters and eviction bits too: both are functions of the tokens.
#include "run/checkpoint_loader.h"
#include "run/run_impl.h"

namespace rum {
namespace {

Status Damaged(const std::string& what) { return CheckpointError(reason::kDamaged, what); }

}  // namespace

Status Run::Impl::RebuildPrefix(const RestoreOptions& restore, const CacheGeometry& geometry) {
  const RestoreChain& from = *restore.prefix;
  if (!from.tail.has_value() || restore.replay || restore.own_journal) return Error(kErrOption, "restore: a prefix is a tail of another job");
  // Its prompt is whole until it ends, and what a chain has generated was pruned.
  if (model_->config.policy.kind == PolicyKind::kKvzap) return Error(kErrOption, "restore: under kvzap a prompt goes on from nothing");
  CheckpointLoader loader(backend_.get(), *model_, restore, geometry);
  auto journal = loader.Journals();
  if (!journal.ok()) return journal.status();
  TailState state;
  auto cache = loader.Cache(from.segments, *from.tail, &state);
  if (!cache.ok()) return cache.status();
  auto known = CheckPrefix(*journal, from, state);
  if (!known.ok()) return known.status();
  (*cache)->decisions() = DecisionLog((*cache)->heads());
  (*cache)->decisions().Know(*known, false);
  Expected<ChainId> id = backend_->AdoptChain(std::move(*cache));
  if (!id.ok()) return id.status();
  prompt_chain_ = *id;
  if (backend_->LiveSum(prompt_chain_) != state.report.live_sum) return Damaged("a tail counts other tokens than it holds");
  prefill_read_sum_ = journal->job.prefill_read_sum + state.report.read_sum;
  prefill_peak_sum_ = state.report.peak_sum;
  for (const size_t i : from_prompt_) chains_[i].report.fed = state.report.fed;
  return Status::Ok();
}

// That the tail is of a chain that began as the prompt does, and is shorter than it. What was decided about its tokens.
Expected<DecisionBits> Run::Impl::CheckPrefix(const Journal& journal, const RestoreChain& from, const TailState& state) const {
  const JournalJob& job = journal.job;
  const std::span<const int32_t> prompt(options_.prompt);
  const int32_t fed = state.report.fed, own = job.prompt_tokens;
  if (own < 1 || fed < own) return Damaged("a tail ends before its prompt does");
  if (static_cast<size_t>(fed) >= prompt.size()) return Error(kErrOption, "restore: the prompt must go on after its prefix");
  const auto said = journal.chains.find(from.source);
  if (from.source >= 0 && said == journal.chains.end()) return CheckpointError(reason::kMissing, "the journals do not know the chain of a prefix");
  const std::span<const int32_t> tokens = from.source < 0 ? std::span<const int32_t>() : std::span<const int32_t>(said->second.report.tokens);
  if (state.generated < fed - own || static_cast<size_t>(state.generated) > tokens.size()) return Damaged("a tail holds more tokens than the journals");
  if (job.prompt != DigestOfTokens(prompt.first(static_cast<size_t>(own)), {}) ||
      !std::ranges::equal(tokens.first(static_cast<size_t>(fed - own)), prompt.subspan(static_cast<size_t>(own), static_cast<size_t>(fed - own)))) {
    return Error(kErrOption, "restore: the prompt does not begin as its prefix does");
  }
  if (state.tokens != DigestOfTokens(prompt.first(static_cast<size_t>(own)), tokens.first(static_cast<size_t>(state.generated)))) {
    return Damaged("a tail is of other tokens");
  }
  DecisionBits known = job.prompt_decisions;
  if (fed > own && known.end == own && said->second.decisions.first == own && said->second.decisions.end >= fed) {
    Extend(&known, Slice(said->second.decisions, own, fed, static_cast<int32_t>(head_count_)));
  }
  if (job.decision_heads != head_count_ || known.first != 0 || known.end != fed) {
    return CheckpointError(reason::kMissing, "the journals do not say what was decided about the tokens of a prefix");
  }
  return known;
}

}  // namespace rum
