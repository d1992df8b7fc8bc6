#include <cstdint>
#include <limits>
#include <string>

#include "run/run.h"

namespace rum {
namespace {

Status CheckTokens(const RunOptions& o, const ModelConfig& config) {
  if (o.prompt.empty()) return Error(kErrOption, "the prompt must have at least one token");
  for (const int32_t token : o.prompt) {
    if (token < 0 || token >= config.vocab_size) {
      return Error(kErrOption, "prompt token " + std::to_string(token) + " is not in the vocabulary");
    }
  }
  if (o.width < 1 || o.width > kRunWidthMax) return Error(kErrOption, "width must be 1 to " + std::to_string(kRunWidthMax));
  if (o.lengths.size() != static_cast<size_t>(o.width)) return Error(kErrOption, "lengths must have one entry for each chain");
  const int64_t room = config.max_positions - static_cast<int64_t>(o.prompt.size());
  for (const int32_t length : o.lengths) {
    if (length < 1) return Error(kErrOption, "length must be at least 1");
    if (length > room) {
      return Error(kErrPromptTooLong, "prompt (" + std::to_string(o.prompt.size()) + ") and length (" + std::to_string(length) +
                                          ") together exceed the model's " + std::to_string(config.max_positions) + " positions");
    }
  }
  return Status::Ok();
}

}  // namespace

Status CheckRunOptions(const RunOptions& o, const ModelConfig& config) {
  Status status = CheckTokens(o, config);
  if (!status.ok()) return status;
  if (o.first_chain < 0 || o.first_chain > std::numeric_limits<int32_t>::max() - o.width) {
    return Error(kErrOption, "first_chain is out of range");
  }
  if (o.job_width != 0 && o.job_width < o.first_chain + o.width) return Error(kErrOption, "job_width must be 0 or hold all chains of the shard");
  if (o.kv_read_budget < -1) return Error(kErrOption, "kv_read_budget must be -1 (none) or more");
  if (o.logprobs < -1 || o.logprobs > kTopLogprobsMax) return Error(kErrOption, "logprobs must be -1 (none) to " + std::to_string(kTopLogprobsMax));
  if (o.prefill_chunk < 1) return Error(kErrOption, "prefill_chunk must be at least 1");
  if (!o.stop.empty() && (!o.pieces || o.pieces->size() != static_cast<size_t>(config.vocab_size))) {
    return Error(kErrOption, "stop strings need the bytes of every token of the vocabulary");
  }
  return CheckSampling(o.sampling, config.vocab_size);
}

}  // namespace rum
