#include <map>

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

 private:
  int32_t num_kv_heads_;
  std::map<std::pair<ChainId, int32_t>, int64_t> sums_;
};

bool SameCounters(const ChainReport& a, const ChainReport& b) {
  return a.live_sum == b.live_sum && a.peak_sum == b.peak_sum && a.decode_peak_sum == b.decode_peak_sum && a.read_sum == b.read_sum &&
         a.dense_read_sum == b.dense_read_sum && a.fed == b.fed;
}

}  // namespace

// Feeds the tokens that the journals hold and the caches do not, all chains together.
Status Run::Impl::CatchUp(const std::atomic<bool>& cancel) {
  if (restored_ == nullptr) return Status::Ok();
  for (const size_t i : from_prompt_) {
    if (chains_[i].id == kNoChain) continue;
    ChainCache* cache = backend_->Cache(chains_[i].id);
    if (cache != nullptr && cache->length() == static_cast<int32_t>(options_.prompt.size())) Recollect(*cache, restored_->options.chains[i]);
  }
  for (;;) {
    if (cancel.load(std::memory_order_relaxed)) return Error(kErrCancelled, "cancelled while tokens were fed again");
    const int64_t before = caught_up_;
    if (Status status = CatchUpOnce(); !status.ok()) return status;
    if (caught_up_ == before) break;
  }
  if (Status status = CheckRestored(); !status.ok()) return status;
  // Chains that had finished and go on: their last token is read for the first time.
  front_.clear();
  for (const size_t i : running_) {
    if (chains_[i].report.fed < FedWhole(chains_[i])) front_.push_back(i);
  }
  return front_.empty() ? Status::Ok() : FeedFront();
}

Status Run::Impl::CatchUpOnce() {
  const auto prompt = static_cast<int32_t>(options_.prompt.size());
  std::vector<size_t> behind;
  for (const size_t i : running_) {
    if (chains_[i].report.fed < chains_[i].fed_before) behind.push_back(i);
  }
  if (behind.empty()) return Status::Ok();
  // Without a cache of ours what attention reads is known only token by token.
  const bool chunked = backend_->Cache(chains_[behind[0]].id) != nullptr;
  const int32_t share = chunked ? std::max(1, options_.prefill_chunk / static_cast<int32_t>(behind.size())) : 1;
  rows_.clear();
  std::vector<int32_t> counts;
  size_t wanted = 0;
  for (const size_t i : behind) {
    const ChainState& chain = chains_[i];
    const int32_t first = chain.report.fed, end = std::min(first + share, chain.fed_before), whole = FedWhole(chain);
    for (int32_t t = first; t < end; ++t) {
      rows_.push_back({chain.id, chain.report.tokens[static_cast<size_t>(t - prompt)], t + 1 == whole});
    }
    wanted += end == whole ? 1 : 0;
    counts.push_back(end - first);
  }
  side_logits_.resize(wanted * vocab_);
  CatchUpMeter meter(model_->config.num_kv_heads);
  backend_->SetTrace(&meter);
  Status status = backend_->Forward(rows_, side_logits_.data());
  backend_->SetTrace(nullptr);
  if (!status.ok()) return status;
  size_t row = 0;
  for (size_t b = 0; b < behind.size(); ++b) {
    ChainState& chain = chains_[behind[b]];
    for (int32_t n = 0; n < counts[b]; ++n) {
      const int64_t live = chunked ? meter.sum(chain.id, chain.report.fed) : backend_->LiveSum(chain.id);
      CountToken(chain.report, live, chunked ? live : backend_->ReadSum(chain.id));
    }
    caught_up_ += counts[b];
    if (chain.report.fed == FedWhole(chain)) {
      std::ranges::copy(std::span(side_logits_).subspan(row++ * vocab_, vocab_), LogitsRow(behind[b]).begin());
      chain.logits_row = behind[b];
    }
  }
  return Status::Ok();
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
  if (chains_.size() > 1) shared_sum_ = std::max({shared_sum_, journal.job.shared_sum, SharedOfPrompt()});
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
