#include "checkpoint/journal.h"

#include <algorithm>
#include <limits>

#include "checkpoint/bytes.h"
#include "core/limits.h"

namespace rum {
namespace {

Status Damaged(const std::string& what) { return CheckpointError(reason::kDamaged, "a journal " + what); }

void PutDecisions(const DecisionBits& decisions, ByteWriter* out) {
  out->Put(decisions.first);
  out->Put(decisions.end);
  out->Bytes(decisions.bits);
}

bool GetDecisions(ByteReader* in, int32_t heads, DecisionBits* decisions) {
  decisions->first = in->Get<int32_t>();
  decisions->end = in->Get<int32_t>();
  if (!in->ok() || decisions->first < 0 || decisions->end < decisions->first || decisions->end > kPositionsMax) return false;
  if (heads == 0 && decisions->end > decisions->first) return false;
  const auto row = static_cast<size_t>(DecisionRowBytes(heads));
  decisions->bits = in->Array<uint8_t>((decisions->end - decisions->first) * static_cast<int64_t>(row));
  // Bits of heads that are not there are zero: one journal, one encoding.
  const int32_t unused = static_cast<int32_t>(row) * 8 - heads;
  for (size_t last = row - 1; unused > 0 && last < decisions->bits.size(); last += row) {
    if (decisions->bits[last] >> (8 - unused) != 0) return false;
  }
  return in->ok();
}

std::vector<uint8_t> JobFrame(const JournalJob& job) {
  ByteWriter out;
  for (const int64_t number : {job.step, job.prefill_read_sum, job.prefill_peak_sum, job.shared_sum}) out.Put(number);
  out.Put(job.prompt_tokens);
  out.Put(job.decision_heads);
  out.Bytes(job.prompt);
  PutDecisions(job.prompt_decisions, &out);
  return out.bytes();
}

std::vector<uint8_t> ChainFrame(const JournalChain& chain) {
  ByteWriter out;
  out.Put(chain.chain);
  out.Put(chain.first_token);
  out.Put(static_cast<int32_t>(chain.report.tokens.size()));
  const Logprobs& logprobs = chain.report.logprobs;
  out.Put(logprobs.top + 1);
  PutCounters(chain.report, &out);
  out.Array(std::span<const int32_t>(chain.report.tokens));
  PutDecisions(chain.decisions, &out);
  if (logprobs.kept()) {
    out.Array(std::span<const float>(logprobs.tokens));
    out.Array(std::span<const int32_t>(logprobs.top_ids));
    out.Array(std::span<const float>(logprobs.top_values));
  }
  return out.bytes();
}

Status ParseJob(std::span<const uint8_t> frame, JournalJob* job) {
  ByteReader in(frame);
  bool possible = true;
  for (int64_t* number : {&job->step, &job->prefill_read_sum, &job->prefill_peak_sum, &job->shared_sum}) {
    *number = in.Get<int64_t>();
    possible = possible && *number >= 0 && *number <= kCounterMax;
  }
  job->prompt_tokens = in.Get<int32_t>();
  job->decision_heads = in.Get<int32_t>();
  possible = possible && job->prompt_tokens > 0 && job->prompt_tokens <= kPositionsMax && job->decision_heads >= 0 &&
             job->decision_heads <= kLayersMax * kHeadsMax;
  std::ranges::copy(in.Bytes(static_cast<int64_t>(job->prompt.size())), job->prompt.begin());
  possible = possible && GetDecisions(&in, job->decision_heads, &job->prompt_decisions) && in.done();
  return possible ? Status::Ok() : Damaged("is about an impossible job");
}

bool GetLogprobs(ByteReader* in, int32_t count, int32_t top, int32_t vocab, Logprobs* logprobs) {
  logprobs->top = top;
  if (top < 0) return true;
  logprobs->tokens = in->Array<float>(count);
  logprobs->top_ids = in->Array<int32_t>(int64_t{count} * top);
  logprobs->top_values = in->Array<float>(int64_t{count} * top);
  const auto possible = [](float value) { return value <= 0.0f && value >= std::numeric_limits<float>::lowest(); };
  return in->ok() && std::ranges::all_of(logprobs->tokens, possible) && std::ranges::all_of(logprobs->top_values, possible) &&
         std::ranges::all_of(logprobs->top_ids, [vocab](int32_t id) { return id >= 0 && id < vocab; });
}

Status ParseChain(std::span<const uint8_t> frame, int32_t heads, int32_t vocab, JournalChain* chain) {
  ByteReader in(frame);
  chain->chain = in.Get<int32_t>();
  chain->first_token = in.Get<int32_t>();
  const auto count = in.Get<int32_t>();
  const auto top_plus_1 = in.Get<int32_t>();
  const bool possible = GetCounters(&in, &chain->report) && chain->chain >= 0 && chain->first_token >= 0 && count >= 0 && top_plus_1 >= 0 &&
                        top_plus_1 <= kTopLogprobsMax + 1 && chain->first_token <= kPositionsMax - count;
  if (!possible) return Damaged("is about an impossible chain");
  chain->report.tokens = in.Array<int32_t>(count);
  const bool whole = in.ok() && GetDecisions(&in, heads, &chain->decisions) && GetLogprobs(&in, count, top_plus_1 - 1, vocab, &chain->report.logprobs);
  if (!whole || !in.done()) return Damaged("holds another number of tokens than it says");
  const bool known = std::ranges::all_of(chain->report.tokens, [vocab](int32_t token) { return token >= 0 && token < vocab; });
  return known ? Status::Ok() : Damaged("holds a token that the model does not know");
}

// All tokens but the newest were fed, and of a chain that goes on that one too.
bool Fed(int32_t prompt, const JournalChain& chain) {
  const int32_t fed = chain.report.fed, tokens = static_cast<int32_t>(chain.report.tokens.size());
  if (tokens > kPositionsMax || (chain.decisions.end > chain.decisions.first && chain.decisions.end > fed)) return false;
  if (chain.report.finish == Finish::kNone) return fed == prompt + tokens;
  return fed <= prompt + tokens && (tokens == 0 || fed >= prompt + tokens - 1);
}

}  // namespace

Expected<SavedObject> SaveJournal(const Journal& journal, ObjectHeader header, const Seal& seal, Codec codec) {
  std::vector<std::vector<uint8_t>> frames = {JobFrame(journal.job)};
  for (const auto& [index, chain] : journal.chains) frames.push_back(ChainFrame(chain));
  header.kind = ObjectKind::kJournal;
  header.frames = static_cast<uint32_t>(frames.size());
  int64_t total = 0;
  for (const std::vector<uint8_t>& frame : frames) total += static_cast<int64_t>(frame.size()) + 128;
  ObjectWriter writer(header, seal, codec, 4, total + 256);
  for (const std::vector<uint8_t>& frame : frames) {
    const Status status = writer.AddFrame(static_cast<int64_t>(frame.size()), [&frame](uint8_t* out) { std::ranges::copy(frame, out); });
    if (!status.ok()) return status;
  }
  return writer.Finish();
}

Expected<Journal> LoadJournal(const ObjectReader& reader, int32_t vocab) {
  Journal journal;
  if (reader.frames() == 0) return Damaged("is empty");
  Status status = reader.ReadFrame(0, [&](std::span<const uint8_t> frame) { return ParseJob(frame, &journal.job); });
  for (int32_t f = 1; f < reader.frames() && status.ok(); ++f) {
    status = reader.ReadFrame(f, [&](std::span<const uint8_t> frame) {
      JournalChain chain;
      Status parsed = ParseChain(frame, journal.job.decision_heads, vocab, &chain);
      if (!parsed.ok()) return parsed;
      const int32_t index = chain.chain;
      return journal.chains.emplace(index, std::move(chain)).second ? Status::Ok() : Damaged("is about one chain twice");
    });
  }
  if (!status.ok()) return status;
  return journal;
}

Status Fold(const Journal& next, Journal* journal) {
  const JournalJob& job = next.job;
  const Status astray = Damaged("does not follow on the one before it");
  const bool fresh = journal->job.prompt_tokens == 0;
  const int32_t decided = fresh && job.decision_heads > 0 ? job.prompt_tokens : 0;
  if (job.prompt_decisions.first != 0 || job.prompt_decisions.end != decided) return astray;
  if (!fresh && (job.prompt != journal->job.prompt || job.prompt_tokens != journal->job.prompt_tokens ||
                 job.decision_heads != journal->job.decision_heads || job.step < journal->job.step)) {
    return astray;
  }
  DecisionBits prompt = fresh ? job.prompt_decisions : std::move(journal->job.prompt_decisions);
  journal->job = job;
  journal->job.prompt_decisions = std::move(prompt);
  for (const auto& [index, news] : next.chains) {
    const auto [at, first] = journal->chains.try_emplace(index);
    JournalChain& chain = at->second;
    if (first) {
      chain.chain = index;
      chain.decisions = {job.prompt_tokens, job.prompt_tokens, {}};
    }
    // A chain that said it was done never goes on; any other may have been given more length or a larger budget.
    if (news.first_token != static_cast<int32_t>(chain.report.tokens.size()) || news.decisions.first != chain.decisions.end ||
        chain.report.finish == Finish::kStop) {
      return astray;
    }
    Logprobs logprobs = std::move(chain.report.logprobs);
    if (first || chain.report.tokens.empty()) logprobs.top = news.report.logprobs.top;
    if (logprobs.top != news.report.logprobs.top) return astray;
    logprobs.Append(news.report.logprobs);
    std::vector<int32_t> tokens = std::move(chain.report.tokens);
    tokens.insert(tokens.end(), news.report.tokens.begin(), news.report.tokens.end());
    chain.report = news.report;
    chain.report.tokens = std::move(tokens);
    chain.report.logprobs = std::move(logprobs);
    Extend(&chain.decisions, news.decisions);
    if (!Fed(job.prompt_tokens, chain)) return Damaged("is about tokens that cannot have been fed");
  }
  return Status::Ok();
}

Status Join(Journal shard, Journal* journal) {
  JournalJob& job = journal->job;
  const JournalJob& other = shard.job;
  const bool same = other.prompt == job.prompt && other.prompt_tokens == job.prompt_tokens && other.decision_heads == job.decision_heads &&
                    other.prompt_decisions.bits == job.prompt_decisions.bits && other.prefill_read_sum == job.prefill_read_sum &&
                    other.prefill_peak_sum == job.prefill_peak_sum;
  if (!same) return Damaged("of a shard has another prompt than that of another");
  job.step = std::max(job.step, other.step);
  job.shared_sum = std::max(job.shared_sum, other.shared_sum);
  journal->chains.merge(shard.chains);
  return shard.chains.empty() ? Status::Ok() : Damaged("of a shard is about a chain that another has");
}

}  // namespace rum
