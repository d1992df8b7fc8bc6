#include "run/run.h"

#include <algorithm>
#include <limits>
#include <span>
#include <string_view>
#include <utility>

#include "core/limits.h"
#include "run/stop_matcher.h"

namespace rum {
namespace {

constexpr ChainId kNoChain = -1;

bool IsMemory(const Status& status) { return !status.ok() && std::string_view(status.code) == kErrMemory; }

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

struct ChainState {
  ChainId id = kNoChain;
  size_t logits_row = 0;  // of the last Forward
  TokenHistory history;
  StopState stop;
  ChainReport report;
};

}  // namespace

struct Run::Impl {
  Impl(std::shared_ptr<Backend> backend, std::shared_ptr<const Model> model, RunOptions options, StopMatcher stop);
  ~Impl();

  Status FeedChunk();
  Status ForkChains();
  Status StepOnce(bool* finished);
  void SampleAll();
  Finish Accept(ChainState& chain, int32_t index, int32_t token);
  bool BudgetAllowsFeeding() const;
  bool MemoryAllowsFeeding() const;
  void EndRunning(Finish finish);
  Status FeedAll();
  void End(ChainState& chain, Finish finish);
  void DropFinished();
  Status Fail(Status status) { return error_ = std::move(status); }
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
  bool prefilled_ = false;
  PrefillMeter meter_;
  std::vector<ChainState> chains_;    // [width]
  std::vector<size_t> running_;       // indices of chains not finished, ascending
  std::vector<float> logits_;         // [width, vocab]; chains that finish leave gaps until the next Forward
  std::vector<Row> rows_;
  std::vector<SampleScratch> scratch_;  // one for each thread that samples
  std::vector<int32_t> sampled_;        // [running_.size()]
};

Run::Impl::Impl(std::shared_ptr<Backend> backend, std::shared_ptr<const Model> model, RunOptions options, StopMatcher stop)
    : backend_(std::move(backend)), model_(std::move(model)), options_(std::move(options)), stop_(std::move(stop)),
      vocab_(static_cast<size_t>(model_->config.vocab_size)),
      head_count_(int64_t{model_->config.num_layers} * model_->config.num_kv_heads),
      read_sum_max_(std::numeric_limits<int64_t>::max()), meter_(model_->config.num_kv_heads),
      chains_(static_cast<size_t>(options_.width)), logits_(chains_.size() * vocab_),
      scratch_(std::min(chains_.size(), static_cast<size_t>(backend_->threads())), SampleScratch(model_->config.vocab_size, backend_->isa())),
      sampled_(chains_.size()) {
  // A budget too large to multiply cannot be reached either.
  if (options_.kv_read_budget >= 0 && !CheckedMul(options_.kv_read_budget, head_count_, &read_sum_max_)) {
    read_sum_max_ = std::numeric_limits<int64_t>::max();
  }
  rows_.reserve(std::max(chains_.size(), std::min(options_.prompt.size(), static_cast<size_t>(options_.prefill_chunk))));
  for (size_t i = 0; i < chains_.size(); ++i) {
    running_.push_back(i);
    chains_[i].stop = stop_.NewState();
    chains_[i].report.tokens.reserve(static_cast<size_t>(options_.lengths[i]));
    if (HasPenalties(options_.sampling)) chains_[i].history = TokenHistory(options_.prompt, options_.lengths[i]);
  }
}

Run::Impl::~Impl() {
  if (prompt_chain_ != kNoChain) backend_->FreeChain(prompt_chain_);
  for (const ChainState& chain : chains_) {
    if (chain.id != kNoChain) backend_->FreeChain(chain.id);
  }
}

// Feeds the next prompt tokens; with the last of them comes the first row of logits.
Status Run::Impl::FeedChunk() {
  const auto fed = static_cast<size_t>(backend_->Length(prompt_chain_));
  const size_t end = std::min(options_.prompt.size(), fed + static_cast<size_t>(options_.prefill_chunk));
  rows_.clear();
  for (size_t i = fed; i < end; ++i) {
    const bool last = i + 1 == options_.prompt.size();
    rows_.push_back({prompt_chain_, options_.prompt[i], last, true, last});
  }
  meter_.Begin(static_cast<int32_t>(fed), end - fed);
  backend_->SetTrace(&meter_);
  Status status = backend_->Forward(rows_, logits_.data());
  backend_->SetTrace(nullptr);
  if (!status.ok()) return status;
  for (const int64_t live_sum : meter_.live_sums()) {
    prefill_read_sum_ += live_sum;
    prefill_peak_sum_ = std::max(prefill_peak_sum_, live_sum);
  }
  for (const size_t i : running_) {
    ChainReport& report = chains_[i].report;
    report.live_sum = report.decode_peak_sum = backend_->LiveSum(prompt_chain_);
    report.peak_sum = prefill_peak_sum_;
    report.fed = static_cast<int32_t>(end);
  }
  return Status::Ok();
}

// The first running chain takes the prompt's over, the others fork it. All sample their first token from the same logits.
Status Run::Impl::ForkChains() {
  const ChainId source = std::exchange(prompt_chain_, kNoChain);
  chains_[running_[0]].id = source;
  for (size_t r = 1; r < running_.size(); ++r) {
    Expected<ChainId> fork = backend_->ForkChain(source);
    if (!fork.ok()) return fork.status();
    chains_[running_[r]].id = *fork;
    chains_[running_[r]].logits_row = r;
    std::ranges::copy(LogitsRow(0), LogitsRow(r).begin());
  }
  shared_sum_ = backend_->SharedSum(source);
  prefilled_ = true;
  return Status::Ok();
}

// Chains are independent until their tokens are accepted: those of scratch s are s, s + scratches, ...
void Run::Impl::SampleAll() {
  const auto scratches = static_cast<int64_t>(scratch_.size());
  const auto cost = static_cast<int64_t>(running_.size() * vocab_) * (options_.sampling.temperature == 0.0f ? 1 : 16);
  backend_->RunOnThreads(scratches, cost, [this](int64_t begin, int64_t end, int32_t) {
    for (auto s = static_cast<size_t>(begin); s < static_cast<size_t>(end); ++s) {
      for (size_t r = s; r < running_.size(); r += scratch_.size()) {
        ChainState& chain = chains_[running_[r]];
        sampled_[r] = SampleToken(options_.sampling, LogitsRow(chain.logits_row), chain.history, options_.seed,
                                  options_.first_chain + static_cast<int32_t>(running_[r]),
                                  static_cast<int32_t>(chain.report.tokens.size()), scratch_[s]);
      }
    }
  });
  for (size_t r = 0; r < running_.size(); ++r) {
    ChainState& chain = chains_[running_[r]];
    const Finish finish = Accept(chain, options_.lengths[running_[r]], sampled_[r]);
    if (finish != Finish::kNone) End(chain, finish);
  }
}

// Appends a sampled token to the chain's output and says whether it ends there.
Finish Run::Impl::Accept(ChainState& chain, int32_t length, int32_t token) {
  chain.report.tokens.push_back(token);
  if (HasPenalties(options_.sampling)) chain.history.Add(token);
  if (std::ranges::find(options_.eos_ids, token) != options_.eos_ids.end()) return Finish::kStop;
  if (!stop_.empty()) {
    const int64_t text_bytes = stop_.Append((*options_.pieces)[static_cast<size_t>(token)], chain.stop);
    if (text_bytes >= 0) {
      chain.report.stop_bytes = static_cast<int32_t>(text_bytes);
      return Finish::kStop;
    }
  }
  return chain.report.tokens.size() == static_cast<size_t>(length) ? Finish::kLength : Finish::kNone;
}

bool Run::Impl::BudgetAllowsFeeding() const {
  if (options_.kv_read_budget < 0) return true;
  int64_t needed = 0;
  for (const size_t i : running_) needed += backend_->NextLiveSum(chains_[i].id);
  return needed <= read_sum_max_ - read_sum_;
}

Status Run::Impl::FeedAll() {
  rows_.clear();
  for (const size_t i : running_) {
    chains_[i].logits_row = rows_.size();
    rows_.push_back({chains_[i].id, chains_[i].report.tokens.back(), true});
  }
  Status status = backend_->Forward(rows_, logits_.data());
  if (!status.ok()) return status;
  for (const size_t i : running_) {
    ChainReport& report = chains_[i].report;
    report.fed += 1;
    report.live_sum = backend_->LiveSum(chains_[i].id);
    report.peak_sum = std::max(report.peak_sum, report.live_sum);
    report.decode_peak_sum = std::max(report.decode_peak_sum, report.live_sum);
    const int64_t reads = backend_->ReadSum(chains_[i].id);
    report.read_sum += reads;
    report.dense_read_sum += report.fed * head_count_;
    read_sum_ += reads;
  }
  return Status::Ok();
}

Status Run::Impl::StepOnce(bool* finished) {
  const size_t before = running_.size();
  SampleAll();
  DropFinished();
  ++steps_;
  if (!BudgetAllowsFeeding()) EndRunning(Finish::kBudget);
  if (!MemoryAllowsFeeding()) EndRunning(Finish::kMemory);
  if (!running_.empty()) {
    Status status = FeedAll();
    if (!status.ok() && !IsMemory(status)) return status;
    if (!status.ok()) EndRunning(Finish::kMemory);
  }
  *finished = running_.size() < before;
  return Status::Ok();
}

// A page of each head of each running chain at most is taken past the limit: the check is before a step, and a step adds one token.
bool Run::Impl::MemoryAllowsFeeding() const {
  return options_.memory_limit_bytes < 0 || running_.empty() || backend_->Memory().kv_allocated_bytes <= options_.memory_limit_bytes;
}

void Run::Impl::EndRunning(Finish finish) {
  for (const size_t i : running_) End(chains_[i], finish);
  DropFinished();
}

void Run::Impl::End(ChainState& chain, Finish finish) {
  chain.report.finish = finish;
  if (chain.id != kNoChain) backend_->FreeChain(std::exchange(chain.id, kNoChain));
}

void Run::Impl::DropFinished() {
  std::erase_if(running_, [this](size_t i) { return chains_[i].report.finish != Finish::kNone; });
  if (running_.empty() && prompt_chain_ != kNoChain) backend_->FreeChain(std::exchange(prompt_chain_, kNoChain));
}

Run::Run(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Run::~Run() = default;

Expected<std::unique_ptr<Run>> Run::Create(std::shared_ptr<Backend> backend, std::shared_ptr<const Model> model,
                                           RunOptions options) {
  Status status = CheckRunOptions(options, model->config);
  if (!status.ok()) return status;
  Expected<StopMatcher> stop = StopMatcher::Make(options.stop);
  if (!stop.ok()) return stop.status();
  auto impl = std::make_unique<Impl>(std::move(backend), std::move(model), std::move(options), std::move(*stop));
  return std::unique_ptr<Run>(new Run(std::move(impl)));
}

Status Run::Prefill() {
  Impl& run = *impl_;
  if (!run.error_.ok()) return run.error_;
  if (run.prefilled_ || run.running_.empty()) return Status::Ok();
  if (run.prompt_chain_ == kNoChain) {
    Expected<ChainId> chain = run.backend_->NewChain();
    if (!chain.ok()) return run.Fail(chain.status());
    run.prompt_chain_ = *chain;
  }
  while (static_cast<size_t>(run.backend_->Length(run.prompt_chain_)) < run.options_.prompt.size()) {
    if (cancel_.load(std::memory_order_relaxed)) return Error(kErrCancelled, "cancelled during prefill");
    Status status = run.FeedChunk();
    if (!status.ok()) return run.Fail(std::move(status));
  }
  Status status = run.ForkChains();
  return status.ok() ? status : run.Fail(std::move(status));
}

Status Run::Step(int32_t max_steps) {
  Impl& run = *impl_;
  if (!run.error_.ok()) return run.error_;
  if (!run.prefilled_ && !run.running_.empty()) return Error(kErrOption, "call Prefill before Step");
  bool finished = false;
  for (int32_t n = 0; n < max_steps && !finished && !run.running_.empty(); ++n) {
    if (cancel_.load(std::memory_order_relaxed)) return Error(kErrCancelled, "cancelled between steps");
    Status status = run.StepOnce(&finished);
    if (!status.ok()) return run.Fail(std::move(status));
  }
  return Status::Ok();
}

void Run::EndChains(const std::vector<int32_t>& chains) {
  for (const int32_t i : chains) {
    if (i < 0 || i >= impl_->options_.width) continue;
    ChainState& chain = impl_->chains_[static_cast<size_t>(i)];
    if (chain.report.finish == Finish::kNone) impl_->End(chain, Finish::kEnded);
  }
  impl_->DropFinished();
}

RunReport Run::Report() const {
  const Impl& run = *impl_;
  RunReport report;
  report.step = run.steps_;
  report.prefilled = run.prefilled_;
  report.prefill_read_sum = run.prefill_read_sum_;
  report.shared_sum = run.shared_sum_;
  report.head_count = static_cast<int32_t>(run.head_count_);
  report.running = static_cast<int32_t>(run.running_.size());
  for (const ChainState& chain : run.chains_) report.chains.push_back(chain.report);
  return report;
}

}  // namespace rum
