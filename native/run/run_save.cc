#include <functional>

#include "checkpoint/tail.h"
#include "run/run_impl.h"

namespace rum {

void Run::Impl::RecordDecisions() {
  ChainCache* cache = backend_->Cache(prompt_chain_);
  if (!options_.checkpointed || !records_decisions_ || cache == nullptr) return;
  cache->decisions() = DecisionLog(cache->heads());
  if (restored_ != nullptr && !restored_->journal.job.prompt_decisions.bits.empty()) {
    cache->decisions().Know(restored_->journal.job.prompt_decisions, restored_->options.replay);
  }
}

// The prompt is whole: its pages are in one segment for all chains, its eviction bits in the first journal.
Status Run::Impl::MarkPrompt(ChainId prompt) {
  ChainCache* cache = backend_->Cache(prompt);
  if (!options_.checkpointed || cache == nullptr) return Status::Ok();
  const auto tokens = static_cast<int32_t>(options_.prompt.size());
  prompt_pages_ = SealedPages(*cache);
  for (const size_t i : from_prompt_) chains_[i].pages_saved = prompt_pages_;
  if (cache->decisions().drifted()) return CheckpointError(reason::kNumericsDrift, "the prompt's tokens are decided about otherwise than its journal says");
  if (cache->decisions().first() == 0) prompt_decisions_ = cache->decisions().Take(0, tokens);
  cache->decisions().Drop(tokens);
  return Status::Ok();
}

// What the journals so far do not say.
Journal Run::Impl::News() const {
  Journal news;
  const auto prompt = static_cast<int32_t>(options_.prompt.size());
  news.job = {steps_, prefill_read_sum_, prefill_peak_sum_, shared_sum_, prompt, DigestOfTokens(options_.prompt, {}), 0, {}};
  if (!prompt_decisions_.bits.empty()) news.job.decision_heads = static_cast<int32_t>(head_count_);
  if (!prompt_journaled_) news.job.prompt_decisions = prompt_decisions_;
  for (size_t i = 0; i < chains_.size(); ++i) {
    const ChainState& chain = chains_[i];
    const auto tokens = static_cast<int32_t>(chain.report.tokens.size());
    const auto& said = chain.journaled;
    if (said.ever && tokens == said.tokens && chain.report.fed == said.fed && chain.report.finish == said.finish) continue;
    JournalChain entry;
    entry.chain = options_.first_chain + static_cast<int32_t>(i);
    entry.first_token = said.tokens;
    entry.report = chain.report;
    if (entry.report.logprobs.kept()) entry.report.logprobs = chain.report.logprobs.Slice(static_cast<size_t>(said.tokens), chain.report.tokens.size());
    entry.report.tokens.assign(chain.report.tokens.begin() + said.tokens, chain.report.tokens.end());
    entry.decisions = {said.decisions, said.decisions, {}};
    ChainCache* cache = chain.id == kNoChain ? nullptr : backend_->Cache(chain.id);
    if (cache != nullptr) {
      entry.decisions = cache->decisions().Take(said.decisions, chain.report.fed);
    } else if (!chain.kept_decisions.bits.empty()) {
      entry.decisions = chain.kept_decisions;
    }
    news.chains.emplace(entry.chain, std::move(entry));
  }
  return news;
}

Expected<std::vector<SavedPart>> Run::Impl::Save(const SaveOptions& save) {
  std::vector<SavedPart> parts;
  std::vector<std::function<Expected<SavedObject>(const ObjectHeader&)>> writers;
  const int32_t kv_heads = model_->config.num_kv_heads;
  Status status;
  const auto plan = [&](ObjectKind kind, int32_t chain, int32_t generated, std::function<Expected<SavedObject>(const ObjectHeader&)> write) {
    SavedPart part;
    part.header = {kind, 0, save.epoch, chain, save.n, {}, save.layout_id};
    const auto nonce = FreshNonce();
    if (!nonce.ok()) {
      status = nonce.status();
      return;
    }
    part.header.nonce = *nonce;
    part.generated = generated;
    parts.push_back(std::move(part));
    writers.push_back(std::move(write));
  };
  bool prompt_tail_planned = prompt_tail_saved_;
  for (size_t i = 0; i < chains_.size() && save.delta; ++i) {
    ChainState& chain = chains_[i];
    ChainCache* cache = chain.id == kNoChain ? nullptr : backend_->Cache(chain.id);
    if (cache == nullptr) continue;
    const auto generated = static_cast<int32_t>(chain.report.tokens.size());
    const int32_t name = options_.first_chain + static_cast<int32_t>(i);
    const bool any_prompt_page = std::ranges::any_of(prompt_pages_, [](int32_t pages) { return pages > 0; });
    if (!prompt_saved_ && any_prompt_page && std::ranges::none_of(parts, [](const SavedPart& p) { return p.header.chain == kPromptChain; })) {
      plan(ObjectKind::kSegment, kPromptChain, 0, [this, cache, kv_heads, &save](const ObjectHeader& header) {
        return SaveSegment(*cache, PageMarks(prompt_pages_.size(), 0), prompt_pages_, kv_heads, header, save.seal, save.codec);
      });
    }
    const bool prompt_tail = generated == 0 && chain.report.finish == Finish::kNone;
    if (prompt_tail && std::exchange(prompt_tail_planned, true)) continue;  // chains that have not begun are still one
    if (const PageMarks pages = SealedPages(*cache); pages != chain.pages_saved) {
      plan(ObjectKind::kSegment, name, 0, [&chain, cache, pages, kv_heads, &save](const ObjectHeader& header) {
        return SaveSegment(*cache, chain.pages_saved, pages, kv_heads, header, save.seal, save.codec);
      });
    }
    plan(ObjectKind::kTail, prompt_tail ? kPromptChain : name, generated, [this, &chain, cache, generated, kv_heads, &save](const ObjectHeader& header) {
      TailState state{generated, chain.report, chain.last_logits, DigestOfTokens(options_.prompt, chain.report.tokens), {}};
      state.report.tokens.clear();
      state.report.logprobs = {};
      if (chain.report.finish == Finish::kNone) {
        const std::span<float> row = LogitsRow(chain.logits_row);
        state.logits.assign(row.begin(), row.end());
      }
      return SaveTail(*cache, state, kv_heads, header, save.seal, save.codec);
    });
  }
  plan(ObjectKind::kJournal, kWholeJobChain, 0, [news = News(), &save](const ObjectHeader& header) { return SaveJournal(news, header, save.seal, save.codec); });
  if (!status.ok()) return status;

  std::vector<Status> outcomes(parts.size());
  const auto count = static_cast<int64_t>(parts.size());
  backend_->RunOnThreads(count, count << 24, [&](int64_t begin, int64_t end, int32_t) {
    for (auto p = static_cast<size_t>(begin); p < static_cast<size_t>(end); ++p) {
      Expected<SavedObject> object = writers[p](parts[p].header);
      outcomes[p] = object.status();
      if (object.ok()) parts[p].object = std::move(*object);
    }
  });
  for (const Status& outcome : outcomes) {
    if (!outcome.ok()) return outcome;
  }
  Settle(save);
  return parts;
}

// Everything is in objects: the next save begins here, and finished chains need their caches no more.
void Run::Impl::Settle(const SaveOptions& save) {
  prompt_journaled_ = true;
  bool at_prompt = false;
  for (ChainState& chain : chains_) {
    auto& said = chain.journaled;
    if (!chain.kept_decisions.bits.empty()) said.decisions = std::exchange(chain.kept_decisions, {}).end;
    said = {true, static_cast<int32_t>(chain.report.tokens.size()), said.decisions, chain.report.fed, chain.report.finish};
    ChainCache* cache = chain.id == kNoChain ? nullptr : backend_->Cache(chain.id);
    if (cache == nullptr) continue;
    if (cache->decisions().records()) said.decisions = chain.report.fed;
    cache->decisions().Drop(chain.report.fed);
    if (!save.delta) continue;
    at_prompt = at_prompt || (chain.report.tokens.empty() && chain.report.finish == Finish::kNone);
    chain.pages_saved = SealedPages(*cache);
    if (chain.report.finish == Finish::kNone) continue;
    FreeCache(chain);
    chain.last_logits = {};
  }
  if (save.delta && !prompt_pages_.empty()) {
    prompt_saved_ = true;
    prompt_tail_saved_ = prompt_tail_saved_ || at_prompt;
  }
}

Expected<std::vector<SavedPart>> Run::Save(const SaveOptions& options) {
  Impl& run = *impl_;
  if (!run.error_.ok()) return run.error_;
  if (!run.options_.checkpointed) return Error(kErrOption, "only a checkpointed run can be saved");
  if (!run.prefilled_ && !run.running_.empty()) return Error(kErrOption, "call Prefill before Save");
  return run.Save(options);
}

}  // namespace rum
