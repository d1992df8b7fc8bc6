#include "run/batch.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "core/limits.h"

namespace rum {
namespace {

Status Forward(Backend& backend, std::span<const Row> rows, float* logits, TraceSink* trace) {
  if (trace != nullptr) backend.SetTrace(trace);
  Status status = backend.Forward(rows, logits);
  if (trace != nullptr) backend.SetTrace(nullptr);
  return status;
}

}  // namespace

void FeedAlone(Backend& backend, RunCall& call, const Feed& feed) {
  call.Take(Forward(backend, feed.rows, feed.logits, feed.trace), true);
}

void TraceRouter::Add(const Feed& feed) {
  if (feed.trace == nullptr) return;
  for (const Row& row : feed.rows) {
    if (sinks_.empty() || sinks_.back().first != row.chain) sinks_.emplace_back(row.chain, feed.trace);
  }
}

TraceSink* TraceRouter::Find(ChainId chain) const {
  const auto it = std::ranges::find(sinks_, chain, &std::pair<ChainId, TraceSink*>::first);
  return it == sinks_.end() ? nullptr : it->second;
}

void TraceRouter::OnToken(ChainId chain, int32_t layer, int32_t position, const float* decision_logits, const int32_t* live) {
  if (TraceSink* sink = Find(chain)) sink->OnToken(chain, layer, position, decision_logits, live);
}

void TraceRouter::OnScores(ChainId chain, int32_t layer, int32_t head, std::span<const float> scores, std::span<const int32_t> chosen) {
  if (TraceSink* sink = Find(chain)) sink->OnScores(chain, layer, head, scores, chosen);
}

void Batch::Advance(std::span<RunCall* const> calls) {
  parts_.clear();
  for (RunCall* call : calls) {
    if (call->done()) continue;
    if (const Feed* feed = call->Plan()) parts_.push_back({call, feed});
  }
  if (parts_.size() == 1) {
    FeedAlone(*backend_, *parts_[0].call, *parts_[0].feed);
  } else if (!parts_.empty()) {
    FeedAll();
  }
}

void Batch::FeedAll() {
  rows_.clear();
  router_.Clear();
  size_t wanted = 0;
  for (const Part& part : parts_) {
    rows_.insert(rows_.end(), part.feed->rows.begin(), part.feed->rows.end());
    router_.Add(*part.feed);
    wanted += part.feed->logit_rows;
  }
  if (logits_.size() < wanted * vocab_) logits_.resize(wanted * vocab_);
  const Status fed = Forward(*backend_, rows_, logits_.data(), router_.empty() ? nullptr : &router_);
  // A backend writes all logits before it says that one is not finite.
  const bool not_finite = !fed.ok() && std::string_view(fed.code) == kErrNumerics;
  const float* from = logits_.data();
  for (const Part& part : parts_) {
    const size_t count = part.feed->logit_rows * vocab_;
    const bool fine = fed.ok() || (not_finite && std::all_of(from, from + count, [](float x) { return std::isfinite(x); }));
    if (fine) std::copy_n(from, count, part.feed->logits);
    part.call->Take(fine ? Status::Ok() : fed, false);
    from += count;
  }
}

}  // namespace rum
