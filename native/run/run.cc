#include "run/batch.h"
#include "run/run_impl.h"

namespace rum {
namespace {

bool IsMemory(const Status& status) { return !status.ok() && std::string_view(status.code) == kErrMemory; }

}  // namespace

Run::Impl::Impl(std::shared_ptr<Backend> backend, std::shared_ptr<const Model> model, RunOptions options, StopMatcher stop)
    : backend_(std::move(backend)), model_(std::move(model)), options_(std::move(options)), stop_(std::move(stop)),
      vocab_(static_cast<size_t>(model_->config.vocab_size)),
      head_count_(int64_t{model_->config.num_layers} * model_->config.num_kv_heads),
      read_sum_max_(std::numeric_limits<int64_t>::max()), prefill_meter_(model_->config.num_kv_heads), catch_up_meter_(model_->config.num_kv_heads),
      chains_(static_cast<size_t>(options_.width)), logits_(chains_.size() * vocab_),
      scratch_(std::min(chains_.size(), static_cast<size_t>(backend_->threads())), SampleScratch(model_->config.vocab_size, backend_->isa())),
      sampled_(chains_.size()) {
  options_.logprobs = std::min(options_.logprobs, model_->config.vocab_size);
  for (SampleScratch& scratch : scratch_) scratch.row.resize(options_.logprobs < 0 ? 0 : vocab_);
  // A budget too large to multiply cannot be reached either.
  if (options_.kv_read_budget >= 0 && !CheckedMul(options_.kv_read_budget, head_count_, &read_sum_max_)) {
    read_sum_max_ = std::numeric_limits<int64_t>::max();
  }
  rows_.reserve(std::max(chains_.size(), std::min(options_.prompt.size(), static_cast<size_t>(options_.prefill_chunk))));
  for (size_t i = 0; i < chains_.size(); ++i) {
    running_.push_back(i);
    from_prompt_.push_back(i);
    chains_[i].stop = stop_.NewState();
    chains_[i].journaled.decisions = static_cast<int32_t>(options_.prompt.size());
    chains_[i].report.tokens.reserve(static_cast<size_t>(options_.lengths[i]));
    chains_[i].report.logprobs.top = options_.logprobs;
    chains_[i].report.logprobs.Reserve(static_cast<size_t>(options_.lengths[i]));
    if (HasPenalties(options_.sampling)) chains_[i].history = TokenHistory(options_.prompt, options_.lengths[i]);
  }
}

Run::Impl::~Impl() {
  if (prompt_chain_ != kNoChain) backend_->FreeChain(prompt_chain_);
  for (ChainState& chain : chains_) FreeCache(chain);
}

// The next tokens of the prompt for the chains that begin with it; with the last of them comes the first row of logits. false: all is fed.
Expected<bool> Run::Impl::PlanPrompt() {
  std::erase_if(from_prompt_, [this](size_t i) { return chains_[i].report.finish != Finish::kNone; });
  if (from_prompt_.empty() || chains_[from_prompt_[0]].id != kNoChain) return false;
  if (prompt_chain_ == kNoChain) {
    Expected<ChainId> chain = backend_->NewChain();
    if (!chain.ok()) return chain.status();
    prompt_chain_ = *chain;
    prompt_row_ = from_prompt_[0];
    prefill_read_sum_ = prefill_peak_sum_ = 0;  // a restored run knew them
    RecordDecisions();
  }
  const auto fed = static_cast<size_t>(backend_->Length(prompt_chain_));
  const size_t end = std::min(options_.prompt.size(), fed + static_cast<size_t>(options_.prefill_chunk));
  if (fed == end) {
    Status status = ForkChains();
    if (!status.ok()) return status;
    return false;
  }
  rows_.clear();
  for (size_t i = fed; i < end; ++i) {
    const bool last = i + 1 == options_.prompt.size();
    rows_.push_back({prompt_chain_, options_.prompt[i], last, true, last});
  }
  prefill_meter_.Begin(static_cast<int32_t>(fed), end - fed);
  feeding_ = Feeding::kPrompt;
  feed_ = {rows_, LogitsRow(prompt_row_).data(), end == options_.prompt.size() ? size_t{1} : 0, &prefill_meter_};
  return true;
}

void Run::Impl::TakePrompt() {
  for (const int64_t live_sum : prefill_meter_.live_sums()) {
    prefill_read_sum_ += live_sum;
    prefill_peak_sum_ = std::max(prefill_peak_sum_, live_sum);
  }
  for (const size_t i : from_prompt_) {
    ChainReport& report = chains_[i].report;
    report.live_sum = report.decode_peak_sum = backend_->LiveSum(prompt_chain_);
    report.peak_sum = prefill_peak_sum_;
    report.fed = backend_->Length(prompt_chain_);
  }
}

// The first chain takes the prompt's over, the others fork it. All sample their first token from the same logits.
Status Run::Impl::ForkChains() {
  if (Status status = MarkPrompt(prompt_chain_); !status.ok()) return status;
  const ChainId source = std::exchange(prompt_chain_, kNoChain);
  chains_[from_prompt_[0]].id = source;
  for (size_t r = 1; r < from_prompt_.size(); ++r) {
    Expected<ChainId> fork = backend_->ForkChain(source);
    if (!fork.ok()) return fork.status();
    chains_[from_prompt_[r]].id = *fork;
  }
  for (const size_t i : from_prompt_) {
    chains_[i].logits_row = i;
    if (i != prompt_row_) std::ranges::copy(LogitsRow(prompt_row_), LogitsRow(i).begin());
  }
  // A shard of one chain has nobody here to share the prompt's pages with; the job has.
  ChainId lone = kNoChain;
  if (from_prompt_.size() == 1 && JobWidth() > chains_.size()) {
    Expected<ChainId> fork = backend_->ForkChain(source);
    if (!fork.ok()) return fork.status();
    lone = *fork;
  }
  shared_sum_ = std::max(shared_sum_, backend_->SharedSum(source));
  if (lone != kNoChain) backend_->FreeChain(lone);
  return Status::Ok();
}

// Chains are independent until their tokens are accepted: those of scratch s are s, s + scratches, ...
void Run::Impl::SampleAll(const std::vector<TokenMask>& masks) {
  const auto scratches = static_cast<int64_t>(scratch_.size());
  const auto cost = static_cast<int64_t>(front_.size() * vocab_) * (options_.sampling.temperature == 0.0f ? 1 : 16);
  backend_->RunOnThreads(scratches, cost, [this, &masks](int64_t begin, int64_t end, int32_t) {
    for (auto s = static_cast<size_t>(begin); s < static_cast<size_t>(end); ++s) {
      for (size_t r = s; r < front_.size(); r += scratch_.size()) {
        ChainState& chain = chains_[front_[r]];
        const std::span<float> row = LogitsRow(chain.logits_row);
        std::ranges::copy(row.first(scratch_[s].row.size()), scratch_[s].row.begin());
        sampled_[r] = SampleToken(options_.sampling, row, chain.history, options_.seed, options_.first_chain + static_cast<int32_t>(front_[r]),
                                  static_cast<int32_t>(chain.report.tokens.size()), scratch_[s],
                                  masks.empty() ? std::span<const uint32_t>() : std::span<const uint32_t>(masks[front_[r]]));
        if (chain.report.logprobs.kept()) AddLogprobs(scratch_[s].row, sampled_[r], scratch_[s], &chain.report.logprobs);
      }
    }
  });
  for (size_t r = 0; r < front_.size(); ++r) {
    ChainState& chain = chains_[front_[r]];
    const Finish finish = Accept(chain, options_.lengths[front_[r]], sampled_[r]);
    if (finish != Finish::kNone) End(front_[r], finish);
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

// The newest tokens of the front, if budget and memory allow; else everything ends here. false: there is nothing to feed.
bool Run::Impl::PlanFront() {
  EndOverBudget();
  if (!BudgetAllowsFeeding()) EndRunning(Finish::kBudget);
  if (!MemoryAllowsFeeding()) EndRunning(Finish::kMemory);
  if (front_.empty()) return false;
  // Chains ahead keep their logits in the rows of their own index, where those of a whole batch may lie in order.
  const bool all = front_.size() == running_.size();
  rows_.clear();
  for (const size_t i : front_) {
    chains_[i].logits_row = all ? rows_.size() : i;
    rows_.push_back({chains_[i].id, chains_[i].report.tokens.back(), true});
  }
  if (!all) side_logits_.resize(rows_.size() * vocab_);
  feeding_ = Feeding::kFront;
  feed_ = {rows_, all ? logits_.data() : side_logits_.data(), rows_.size(), nullptr};
  return true;
}

void Run::Impl::TakeFront() {
  for (size_t r = 0; r < rows_.size() && feed_.logits != logits_.data(); ++r) {
    std::ranges::copy(std::span(side_logits_).subspan(r * vocab_, vocab_), LogitsRow(front_[r]).begin());
  }
  for (const size_t i : front_) {
    const int64_t reads = backend_->ReadSum(chains_[i].id);
    CountToken(chains_[i].report, backend_->LiveSum(chains_[i].id), reads);
    read_sum_ += reads;
  }
}

// Memory that ran out while this run alone was fed is the end of its chains; with others it is nobody's in particular.
Status Run::Impl::FrontFailed(Status status, bool alone) {
  if (!alone || !IsMemory(status)) return status;
  for (const size_t i : front_) FreeCache(chains_[i]);  // half a token deep: nothing to go on from
  EndRunning(Finish::kMemory);
  return Status::Ok();
}

void Run::Impl::CountToken(ChainReport& report, int64_t live, int64_t reads) const {
  report.fed += 1;
  report.live_sum = live;
  report.peak_sum = std::max(report.peak_sum, live);
  report.decode_peak_sum = std::max(report.decode_peak_sum, live);
  report.read_sum += reads;
  report.dense_read_sum += report.fed * head_count_;
}

// A step is the same token of every chain that has it: those behind catch up first. Returns how many tokens they have.
size_t Run::Impl::FindFront() {
  size_t fewest = std::numeric_limits<size_t>::max();
  for (const size_t i : running_) fewest = std::min(fewest, chains_[i].report.tokens.size());
  front_.clear();
  for (const size_t i : running_) {
    if (chains_[i].report.tokens.size() == fewest) front_.push_back(i);
  }
  return fewest;
}

Status Run::Impl::CheckMasks(int32_t max_steps, const std::vector<TokenMask>& masks) const {
  if (masks.empty()) return Status::Ok();
  if (max_steps != 1) return Error(kErrOption, "masks are for one step");
  if (masks.size() != chains_.size()) return Error(kErrOption, "masks must have one entry for each chain");
  for (size_t i = 0; i < masks.size(); ++i) {
    if (masks[i].empty()) continue;
    if (masks[i].size() != (vocab_ + 31) / 32) return Error(kErrOption, "a mask must have a bit for each token of the vocabulary");
    if (!AllowsAny(masks[i], model_->config.vocab_size)) return Error(kErrOption, "the mask of chain " + std::to_string(i) + " allows no token");
  }
  return Status::Ok();
}

// The next token of every chain of the front. false: none of them goes on.
bool Run::Impl::PlanStep(const std::vector<TokenMask>& masks) {
  const size_t tokens = FindFront();
  SampleAll(masks);
  DropFinished();
  steps_ = std::max(steps_, static_cast<int64_t>(tokens) + 1);
  return PlanFront();
}

// What a Forward brought.
Status Run::Impl::Take(Status fed, bool alone) {
  switch (feeding_) {
    case Feeding::kPrompt:
      if (fed.ok()) TakePrompt();
      return fed;
    case Feeding::kCatchUp:
      if (fed.ok()) TakeCatchUp();
      return fed;
    case Feeding::kFront:
      if (fed.ok()) TakeFront();
      else fed = FrontFailed(std::move(fed), alone);
      prefilled_ = true;
      return fed;
  }
  return fed;
}

// A page of each head of each running chain at most is taken past the limit: the check is before a step, and a step adds one token.
bool Run::Impl::MemoryAllowsFeeding() const {
  return options_.memory_limit_bytes < 0 || running_.empty() || backend_->Memory().kv_allocated_bytes <= options_.memory_limit_bytes;
}

void Run::Impl::EndRunning(Finish finish) {
  for (const size_t i : running_) End(i, finish);
  DropFinished();
}

void Run::Impl::End(size_t i, Finish finish) {
  if (restored_ != nullptr) return EndRestored(i, finish);
  ChainState& chain = chains_[i];
  chain.report.finish = finish;
  // A checkpointed run keeps the cache for those who want to go on from it; the row of its logits may be another chain's soon.
  if (options_.checkpointed && chain.id != kNoChain && backend_->Cache(chain.id) != nullptr) {
    if (chain.report.fed == FedWhole(chain)) chain.last_logits.assign(LogitsRow(chain.logits_row).begin(), LogitsRow(chain.logits_row).end());
    return;
  }
  FreeCache(chain);
}

void Run::Impl::DropFinished() {
  const auto finished = [this](size_t i) { return chains_[i].report.finish != Finish::kNone; };
  std::erase_if(running_, finished);
  std::erase_if(front_, finished);
  if (running_.empty() && prompt_chain_ != kNoChain) backend_->FreeChain(std::exchange(prompt_chain_, kNoChain));
}

Run::Run(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Run::~Run() = default;

// The prompt, then what a restored run had generated, each once.
Expected<bool> Run::Impl::PlanPrefill() {
  Expected<bool> planned = PlanPrompt();
  if (!planned.ok() || *planned) return planned;
  planned = PlanCatchUp();
  if (planned.ok() && !*planned) prefilled_ = true;
  return planned;
}

Expected<std::unique_ptr<Run>> Run::Create(std::shared_ptr<Backend> backend, std::shared_ptr<const Model> model,
                                           RunOptions options) {
  Status status = CheckRunOptions(options, model->config);
  if (!status.ok()) return status;
  Expected<StopMatcher> stop = StopMatcher::Make(options.stop);
  if (!stop.ok()) return stop.status();
  auto impl = std::make_unique<Impl>(std::move(backend), std::move(model), std::move(options), std::move(*stop));
  return std::unique_ptr<Run>(new Run(std::move(impl)));
}

Status Run::Advance(RunCall call) {
  while (const Feed* feed = call.Plan()) FeedAlone(*impl_->backend_, call, *feed);
  return call.status();
}

Status Run::Prefill() { return Advance(RunCall::Prefill(*this)); }

Status Run::Step(int32_t max_steps, std::vector<TokenMask> masks) { return Advance(RunCall::Step(*this, max_steps, std::move(masks))); }

RunCall RunCall::Step(Run& run, int32_t max_steps, std::vector<TokenMask> masks) {
  RunCall call(run, false, max_steps);
  if (!call.done_ && !run.impl_->prefilled_ && !run.impl_->running_.empty()) call.End(Error(kErrOption, "call Prefill before Step"));
  if (Status status = run.impl_->CheckMasks(max_steps, masks); !call.done_ && !status.ok()) call.End(std::move(status));
  call.masks_ = std::move(masks);
  return call;
}

RunCall::RunCall(Run& run, bool prefill, int32_t steps) : run_(&run), prefill_(prefill), steps_(steps) {
  if (!run.impl_->error_.ok()) End(run.impl_->error_);
}

void RunCall::End(Status status) {
  status_ = std::move(status);
  done_ = true;
}

void RunCall::Fail(Status status) { End(run_->impl_->error_ = std::move(status)); }

const Feed* RunCall::Plan() {
  const Run::Impl& run = *run_->impl_;
  while (!done_) {
    if (run.running_.empty() || (prefill_ ? run.prefilled_ : steps_ <= 0)) {
      End(Status::Ok());
    } else if (run_->cancel_.load(std::memory_order_relaxed)) {
      End(Error(kErrCancelled, "cancelled; every whole step is kept"));
    } else if (prefill_ ? PlanPrefill() : PlanStep()) {
      return &run.feed_;
    }
  }
  return nullptr;
}

bool RunCall::PlanPrefill() {
  Expected<bool> planned = run_->impl_->PlanPrefill();
  if (!planned.ok()) Fail(planned.status());
  return planned.ok() && *planned;
}

bool RunCall::PlanStep() {
  Run::Impl& run = *run_->impl_;
  running_ = run.running_.size();
  --steps_;
  const bool planned = run.PlanStep(masks_);
  StopAtFinish();
  return planned;
}

// The step in which a chain finishes is the call's last one.
void RunCall::StopAtFinish() {
  if (run_->impl_->running_.size() < running_) steps_ = 0;
}

void RunCall::Take(Status fed, bool alone) {
  Status status = run_->impl_->Take(std::move(fed), alone);
  if (!status.ok()) return Fail(std::move(status));
  if (!prefill_) StopAtFinish();
}

void Run::EndChains(const std::vector<int32_t>& chains) {
  for (const int32_t i : chains) {
    if (i < 0 || i >= impl_->options_.width) continue;
    const ChainState& chain = impl_->chains_[static_cast<size_t>(i)];
    if (chain.report.finish == Finish::kNone) impl_->End(static_cast<size_t>(i), Finish::kEnded);
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
  report.caught_up = run.caught_up_;
  for (const ChainState& chain : run.chains_) report.chains.push_back(chain.report);
  return report;
}

}  // namespace rum
