#include "run/run_impl.h"

namespace rum {
namespace {

bool SameCounters(const ChainReport& a, const ChainReport& b) {
  return a.live_sum == b.live_sum && a.peak_sum == b.peak_sum && a.decode_peak_sum == b.decode_peak_sum && a.read_sum == b.read_sum &&
         a.dense_read_sum == b.dense_read_sum && a.fed == b.fed;
}

}  // namespace

// Of a restored run, the tokens that its journals hold and its caches do not, all chains together; then it is checked. false: it has caught up.
Expected<bool> Run::Impl::PlanCatchUp() {
  if (restored_ == nullptr) return false;
  for (const size_t i : from_prompt_) {
    if (chains_[i].id == kNoChain) continue;
    ChainCache* cache = backend_->Cache(chains_[i].id);
    if (cache != nullptr && cache->length() == static_cast<int32_t>(options_.prompt.size())) Recollect(*cache, restored_->options.chains[i]);
  }
  if (PlanBehind()) return true;
  if (Status status = CheckRestored(); !status.ok()) return status;
  // Chains that had finished and go on: their last token is read for the first time.
  front_.clear();
  for (const size_t i : running_) {
    if (chains_[i].report.fed < FedWhole(chains_[i])) front_.push_back(i);
  }
  return !front_.empty() && PlanFront();
}

bool Run::Impl::PlanBehind() {
  const auto prompt = static_cast<int32_t>(options_.prompt.size());
  behind_.clear();
  for (const size_t i : running_) {
    if (chains_[i].report.fed < chains_[i].fed_before) behind_.push_back({i, 0});
  }
  if (behind_.empty()) return false;
  const int32_t share = IsChunked() ? std::max(1, options_.prefill_chunk / static_cast<int32_t>(behind_.size())) : 1;
  rows_.clear();
  size_t wanted = 0;
  for (Behind& b : behind_) {
    const ChainState& chain = chains_[b.chain];
    const int32_t first = chain.report.fed, end = std::min(first + share, chain.fed_before), whole = FedWhole(chain);
    for (int32_t t = first; t < end; ++t) {
      rows_.push_back({chain.id, chain.report.tokens[static_cast<size_t>(t - prompt)], t + 1 == whole});
    }
    wanted += end == whole ? 1 : 0;
    b.count = end - first;
  }
  side_logits_.resize(wanted * vocab_);
  catch_up_meter_.Begin();
  feeding_ = Feeding::kCatchUp;
  feed_ = {rows_, side_logits_.data(), wanted, &catch_up_meter_};
  return true;
}

// Without a cache of ours what attention reads is known only token by token.
bool Run::Impl::IsChunked() const { return backend_->Cache(chains_[behind_[0].chain].id) != nullptr; }

void Run::Impl::TakeCatchUp() {
  const bool chunked = IsChunked();
  size_t row = 0;
  for (const Behind& b : behind_) {
    ChainState& chain = chains_[b.chain];
    for (int32_t n = 0; n < b.count; ++n) {
      const int64_t live = chunked ? catch_up_meter_.sum(chain.id, chain.report.fed) : backend_->LiveSum(chain.id);
      CountToken(chain.report, live, chunked ? live : backend_->ReadSum(chain.id));
    }
    caught_up_ += b.count;
    if (chain.report.fed == FedWhole(chain)) {
      std::ranges::copy(std::span(side_logits_).subspan(row++ * vocab_, vocab_), LogitsRow(b.chain).begin());
      chain.logits_row = b.chain;
    }
  }
}

// Everything fed again must have come out as it did before.
Status Run::Impl::CheckRestored() {
  const Journal& journal = restored_->journal;
  const auto drift = [](const std::string& what) { return CheckpointError(reason::kNumericsDrift, what); };
  if (!restored_->options.journals.empty() && prefill_read_sum_ != journal.job.prefill_read_sum) return drift("the prompt reads otherwise than its journal says");
  for (const size_t i : running_) {
    const ChainReport& report = chains_[i].report;
    const ChainCache* cache = backend_->Cache(chains_[i].id);
    const std::string name = "chain " + std::to_string(options_.first_chain + static_cast<int32_t>(i));
    if (cache != nullptr && cache->decisions().drifted()) return drift(name + " decides otherwise than its journal says");
    const auto said = journal.chains.find(restored_->options.chains[i].source);
    if (said == journal.chains.end() || said->second.report.tokens.size() != report.tokens.size()) continue;
    const bool counted = said->second.report.fed >= static_cast<int32_t>(options_.prompt.size());  // else it was ended before it began
    if (counted && !SameCounters(report, said->second.report)) return drift(name + " has other counters than its journal says");
  }
  read_sum_ = 0;
  for (const ChainState& chain : chains_) read_sum_ += chain.report.read_sum;
  if (JobWidth() > 1) shared_sum_ = std::max({shared_sum_, journal.job.shared_sum, SharedOfPrompt()});
  restored_.reset();
  return Status::Ok();
}

// Survivors in pages that were sealed when the prompt ended: those whose tokens had all left the ring by then.
int64_t Run::Impl::SharedOfPrompt() const {
  const ChainCache* cache = running_.empty() ? nullptr : backend_->Cache(chains_[running_[0]].id);
  if (cache == nullptr) return 0;
  const int32_t in_ring = static_cast<int32_t>(options_.prompt.size()) - cache->layout().ring_slots;
  int64_t sum = 0;
  for (int32_t h = 0; h < cache->heads(); ++h) {
    const int32_t pages = cache->LogCount(h) / cache->layout().page_slots;
    for (int32_t p = 0; p < pages && PositionsOf(cache->layout(), cache->Page(h, p)).back() < in_ring; ++p) sum += cache->layout().page_slots;
  }
  return sum;
}

}  // namespace rum
