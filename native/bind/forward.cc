#include "bind/forward.h"

#include <algorithm>
#include <string>
#include <utility>

namespace rum::bind {
namespace {

constexpr int64_t kLogitsBytesMax = int64_t{4} << 30;  // the most that Node 20 takes as one buffer

}  // namespace

Status ForwardPass::Check(const ForwardRequest& request, const ModelConfig& config) {
  const auto count = static_cast<int64_t>(request.ids.size());
  if (count < 1) return Error(kErrOption, "ids must have at least one token.");
  if (count > config.max_positions) {
    return Error(kErrPromptTooLong, std::to_string(count) + " ids do not fit the model's " + std::to_string(config.max_positions) + " positions.");
  }
  for (const int32_t id : request.ids) {
    if (id < 0 || id >= config.vocab_size) {
      return Error(kErrOption, "id " + std::to_string(id) + " is not in the vocabulary of " + std::to_string(config.vocab_size) + ".");
    }
  }
  if (request.prompt_len < 0 || request.prompt_len > count) return Error(kErrOption, "the prompt length must be 0 to the number of ids.");
  if (request.chunk < 1) return Error(kErrOption, "chunk must be at least 1.");
  if (count * config.vocab_size * int64_t{sizeof(float)} > kLogitsBytesMax) {
    return Error(kErrMemory, "the logits of so many ids do not fit in memory; pass fewer ids.");
  }
  return Status::Ok();
}

ForwardPass::ForwardPass(std::shared_ptr<Backend> backend, std::shared_ptr<const Model> model, ForwardRequest request)
    : backend_(std::move(backend)), model_(std::move(model)), request_(std::move(request)) {}

ForwardPass::~ForwardPass() {
  if (chain_ >= 0) backend_->FreeChain(chain_);
}

Status ForwardPass::Advance(std::chrono::steady_clock::time_point deadline, bool* done) {
  const ModelConfig& config = model_->config;
  const size_t count = request_.ids.size();
  if (chain_ < 0) {
    const size_t heads = static_cast<size_t>(config.num_layers) * static_cast<size_t>(config.num_kv_heads);
    outcome_.logits.resize(count * static_cast<size_t>(config.vocab_size));
    outcome_.live_count.resize(heads * count);
    if (config.policy.is_dms()) outcome_.evict_decision.resize(heads * count);
    Expected<ChainId> chain = backend_->NewChain();
    if (!chain.ok()) return chain.status();
    chain_ = *chain;
  }
  while (fed_ < count) {
    Status status = FeedNext();
    if (!status.ok()) return status;
    const bool pause = stop_.load(std::memory_order_relaxed) || std::chrono::steady_clock::now() > deadline;
    if (pause && fed_ < count) return Status::Ok();
  }
  Finish();
  *done = true;
  return Status::Ok();
}

Status ForwardPass::FeedNext() {
  const auto prompt = static_cast<size_t>(request_.prompt_len);
  const size_t end = fed_ < prompt ? std::min(prompt, fed_ + static_cast<size_t>(request_.chunk)) : fed_ + 1;
  std::vector<Row> rows;
  for (size_t t = fed_; t < end; ++t) rows.push_back({chain_, request_.ids[t], true, t < prompt, t + 1 == prompt});
  backend_->SetTrace(this);
  Status status = backend_->Forward(rows, outcome_.logits.data() + fed_ * static_cast<size_t>(model_->config.vocab_size));
  backend_->SetTrace(nullptr);
  fed_ = end;
  // Quest holds more than it reads.
  if (status.ok()) held_sum_ = std::max(held_sum_, backend_->LiveSum(chain_));
  return status;
}

void ForwardPass::OnToken(ChainId chain, int32_t layer, int32_t position, const float* decision_logits, const int32_t* live) {
  if (chain != chain_) return;
  const ModelConfig& config = model_->config;
  const size_t count = request_.ids.size();
  for (int32_t j = 0; j < config.num_kv_heads; ++j) {
    const size_t at = static_cast<size_t>(layer * config.num_kv_heads + j) * count + static_cast<size_t>(position);
    outcome_.live_count[at] = live[j];
    if (decision_logits != nullptr && !outcome_.evict_decision.empty()) {
      outcome_.evict_decision[at] = decision_logits[j] > 0 && !config.policy.disable_eviction;
    }
  }
}

void ForwardPass::OnScores(ChainId chain, int32_t layer, int32_t head, std::span<const float> scores, std::span<const int32_t>) {
  const ModelConfig& config = model_->config;
  if (chain != chain_ || config.policy.kind != PolicyKind::kKvpress) return;
  const auto heads = static_cast<size_t>(config.num_kv_heads);
  outcome_.scores.resize(static_cast<size_t>(config.num_layers) * heads * scores.size());
  std::ranges::copy(scores, outcome_.scores.begin() + static_cast<std::ptrdiff_t>((static_cast<size_t>(layer) * heads + static_cast<size_t>(head)) * scores.size()));
}

void ForwardPass::Finish() {
  const ModelConfig& config = model_->config;
  const size_t count = request_.ids.size();
  const size_t heads = static_cast<size_t>(config.num_layers) * static_cast<size_t>(config.num_kv_heads);
  int64_t decode_sum = 0, all_sum = 0, peak_sum = held_sum_;
  for (size_t t = 0; t < count; ++t) {
    int64_t live_sum = 0;
    for (size_t head = 0; head < heads; ++head) live_sum += outcome_.live_count[head * count + t];
    all_sum += live_sum;
    if (t >= static_cast<size_t>(request_.prompt_len)) decode_sum += live_sum;
    peak_sum = std::max(peak_sum, live_sum);
  }
  // Divided once at the end: the sums are exact.
  outcome_.kv_reads_decode = static_cast<double>(decode_sum) / static_cast<double>(heads);
  outcome_.kv_reads_all = static_cast<double>(all_sum) / static_cast<double>(heads);
  outcome_.peak_tokens = static_cast<double>(peak_sum) / static_cast<double>(heads);
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (int32_t head = 0; head < config.num_kv_heads; ++head) outcome_.heads.push_back(backend_->Snapshot(chain_, layer, head));
  }
  backend_->FreeChain(std::exchange(chain_, -1));
}

}  // namespace rum::bind
