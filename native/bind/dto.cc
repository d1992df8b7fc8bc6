// Requests and reports of the boundary (engine/runtime/native.ts), field by field.
#include "bind/dto.h"

#include <algorithm>
#include <memory>

#include "baseline/options.h"
#include "model/quant.h"

namespace rum::bind {
namespace {

// Bounds of what is read before anything is checked against a model; each is far above any use and keeps a hostile DTO from
// costing memory.
constexpr size_t kPathBytesMax = 4096;
constexpr size_t kOverridesMax = 64;
constexpr size_t kOverrideBytesMax = kPathBytesMax;  // a surrogate's directory
constexpr size_t kPromptMax = size_t{1} << 22;
constexpr int32_t kWidthMax = 4096;
constexpr size_t kStopsMax = 64;
constexpr size_t kStopBytesMax = 4096;
constexpr size_t kEosMax = 1024;
constexpr size_t kBiasMax = size_t{1} << 20;
constexpr size_t kVocabMax = size_t{1} << 22;
constexpr size_t kPieceBytesMax = size_t{1} << 27;

const char* PolicyName(const PolicySpec& policy) {
  if (policy.is_baseline()) return baseline::Name(policy);
  if (policy.is_kvzap()) return "kvzap";
  if (policy.is_dms()) return policy.kind == PolicyKind::kDmsBorrowed ? "dms_borrowed" : "dms_separate";
  return "dense";
}

const char* FinishName(Finish finish) {
  switch (finish) {
    case Finish::kNone: return nullptr;
    case Finish::kStop: return "stop";
    case Finish::kLength: return "length";
    case Finish::kBudget: return "kv_read_budget";
    case Finish::kMemory: return "memory";
    case Finish::kEnded: return "ended";
  }
  return nullptr;
}

Sampling ReadSampling(Reader& reader) {
  Sampling s;
  s.temperature = reader.Float("temperature");
  s.top_k = reader.Int32("topK", 0, INT32_MAX);
  s.top_p = reader.Float("topP");
  s.min_p = reader.Float("minP");
  s.repetition_penalty = reader.Float("repetitionPenalty");
  s.presence_penalty = reader.Float("presencePenalty");
  s.frequency_penalty = reader.Float("frequencyPenalty");
  s.logit_bias = reader.NumberPairs("logitBias", kBiasMax);
  return s;
}

std::shared_ptr<const std::vector<std::string>> ReadPieces(Reader& reader) {
  const std::vector<uint8_t> bytes = reader.Uint8Array("bytes", kPieceBytesMax);
  const std::vector<uint32_t> offsets = reader.Uint32Array("offsets", kVocabMax + 1);
  if (!reader.status().ok()) return nullptr;
  bool ordered = !offsets.empty() && offsets.front() == 0 && offsets.back() == bytes.size();
  for (size_t i = 1; ordered && i < offsets.size(); ++i) ordered = offsets[i - 1] <= offsets[i];
  if (!ordered) {
    reader.Fail(kErrInternal, "offsets", "must rise from 0 to the number of bytes.");
    return nullptr;
  }
  auto pieces = std::make_shared<std::vector<std::string>>();
  pieces->reserve(offsets.size() - 1);
  for (size_t i = 1; i < offsets.size(); ++i) pieces->emplace_back(bytes.data() + offsets[i - 1], bytes.data() + offsets[i]);
  return pieces;
}

template <class T>
Napi::Value Copy(Napi::Env env, const std::vector<T>& values) {
  auto array = Napi::TypedArrayOf<T>::New(env, values.size());
  if (!array.IsEmpty()) std::ranges::copy(values, array.Data());
  return array;
}

Napi::Value LogprobsToJs(Napi::Env env, const Logprobs& logprobs) {
  if (!logprobs.kept()) return env.Null();
  Napi::Object out = Napi::Object::New(env);
  out.Set("top", logprobs.top);
  out.Set("tokens", Copy(env, logprobs.tokens));
  out.Set("topIds", Copy(env, logprobs.top_ids));
  out.Set("topValues", Copy(env, logprobs.top_values));
  return out;
}

Napi::Object ChainToJs(Napi::Env env, const ChainReport& chain) {
  // Small and short-lived: copied, so that the collector need not track an external buffer for each.
  const char* finish = FinishName(chain.finish);
  Napi::Object out = Napi::Object::New(env);
  out.Set("tokens", Copy(env, chain.tokens));
  out.Set("logprobs", LogprobsToJs(env, chain.logprobs));
  out.Set("finish", finish == nullptr ? env.Null() : Napi::String::New(env, finish));
  out.Set("stopBytes", chain.stop_bytes < 0 ? env.Null() : Napi::Value::From(env, chain.stop_bytes));
  out.Set("liveSum", chain.live_sum);
  out.Set("peakSum", chain.peak_sum);
  out.Set("decodePeakSum", chain.decode_peak_sum);
  out.Set("readSum", chain.read_sum);
  out.Set("denseReadSum", chain.dense_read_sum);
  out.Set("fed", chain.fed);
  return out;
}

Napi::Value KvzapToJs(Napi::Env env, const Model& model) {
  const PolicySpec& policy = model.config.policy;
  Napi::Object out = Napi::Object::New(env);
  out.Set("surrogate", policy.surrogate);
  out.Set("kind", model.kvzap[0].in ? "mlp" : "linear");
  out.Set("threshold", policy.threshold);
  out.Set("decode", policy.prunes_generated);
  return out;
}

}  // namespace

std::string ReadModelPath(Reader& reader, const char* name) {
  std::string path = reader.String(name, kPathBytesMax);
  if (path.empty() || path.find('\0') != std::string::npos) reader.Fail(kErrOption, name, "must be a path.");
  return path;
}

ModelRequest ReadModelRequest(Reader& reader) {
  ModelRequest request;
  request.directory = ReadModelPath(reader, "directory");
  request.overrides = reader.StringPairs("overrides", kOverridesMax, kOverrideBytesMax);
  return request;
}

EngineRequest ReadEngineRequest(Reader& reader) {
  EngineRequest request;
  request.model = ReadModelRequest(reader);
  request.reference = reader.Choice("backend", {"reference", "cpu"}) == 0;
  request.kv_auto = reader.IsNull("kv");
  if (!request.kv_auto) request.options.kv = reader.Choice("kv", {"f32", "bf16"}) == 1 ? KvType::kBF16 : KvType::kF32;
  request.options.page_slots = reader.Int32("pageSlots", 1, 65536);
  request.options.threads = reader.Int32("threads", 1, 256);
  if (!reader.IsNull("isa")) {
    request.options.isa = static_cast<Isa>(1 + reader.Choice("isa", {"portable", "avx2", "avx512"}));
  }
  return request;
}

RunOptions ReadRunOptions(Reader& reader) {
  RunOptions options;
  options.prompt = reader.Int32Array("prompt", kPromptMax);
  options.width = reader.Int32("width", 1, kWidthMax);
  options.lengths = reader.Int32Array("lengths", kWidthMax);
  options.seed = reader.U64("seed");
  options.first_chain = reader.Int32("firstChain", 0, INT32_MAX - kWidthMax);
  options.job_width = reader.Int32("jobWidth", 0, INT32_MAX);
  Reader sampling(reader.PathOf("sampling"), reader.Object("sampling"));
  if (reader.status().ok()) options.sampling = ReadSampling(sampling);
  reader.Merge(sampling.status());
  options.eos_ids = reader.Int32Array("eosIds", kEosMax);
  options.stop = reader.Strings("stop", kStopsMax, kStopBytesMax);
  if (!reader.IsNull("pieces")) {
    Reader pieces(reader.PathOf("pieces"), reader.Object("pieces"));
    if (reader.status().ok()) options.pieces = ReadPieces(pieces);
    reader.Merge(pieces.status());
  }
  if (!reader.IsNull("memoryLimitBytes")) options.memory_limit_bytes = reader.Int("memoryLimitBytes", 0, kExactIntegerMax);
  if (!reader.IsNull("kvReadBudget")) options.kv_read_budget = reader.Int("kvReadBudget", 0, kExactIntegerMax);
  options.prefill_chunk = reader.Int32("prefillChunk", 1, 65536);
  if (!reader.IsNull("logprobs")) options.logprobs = reader.Int32("logprobs", 0, kTopLogprobsMax);
  options.checkpointed = reader.Bool("checkpointed");
  if (reader.status().ok() && options.lengths.size() != static_cast<size_t>(options.width)) {
    reader.Fail(kErrInternal, "lengths", "must have one element per chain.");
  }
  return options;
}

const char* KvName(KvType kv) { return kv == KvType::kF32 ? "f32" : "bf16"; }

Napi::Object ToJs(Napi::Env env, const Model& model) {
  const ModelConfig& config = model.config;
  Napi::Object policy = Napi::Object::New(env);
  policy.Set("name", PolicyName(config.policy));
  policy.Set("window", config.policy.window);
  policy.Set("alphaScale", config.policy.alpha_scale);
  policy.Set("alphaOffset", config.policy.alpha_offset);
  policy.Set("alphaPer", config.policy.alpha_per_layer ? "layer" : "head");
  policy.Set("disableEviction", config.policy.disable_eviction);
  policy.Set("targetCr", config.policy.target_cr);
  policy.Set("reason", config.policy.reason);
  policy.Set("kvzap", config.policy.is_kvzap() ? KvzapToJs(env, model) : env.Null());

  Napi::Array eos = Napi::Array::New(env);
  for (uint32_t i = 0; i < config.eos_ids.size(); ++i) eos.Set(i, config.eos_ids[i]);

  Napi::Object weight_bytes = Napi::Object::New(env);
  for (size_t i = 0; i < kDTypeCount; ++i) {
    if (model.format_bytes[i] > 0) weight_bytes.Set(DTypeName(static_cast<DType>(i)), model.format_bytes[i]);
  }

  Napi::Object out = Napi::Object::New(env);
  out.Set("modelType", config.model_type);
  out.Set("vocabSize", config.vocab_size);
  out.Set("hiddenSize", config.hidden_size);
  out.Set("intermediateSize", config.intermediate_size);
  out.Set("layers", config.num_layers);
  out.Set("heads", config.num_heads);
  out.Set("kvHeads", config.num_kv_heads);
  out.Set("headDim", config.head_dim);
  out.Set("maxPositions", config.max_positions);
  out.Set("tiedEmbeddings", config.tied_embeddings);
  out.Set("ropeTheta", config.rope.theta);
  out.Set("parameters", model.parameter_count);
  out.Set("fileBytes", model.file_bytes);
  out.Set("weightType", DTypeName(model.dtype));
  out.Set("weightBytes", weight_bytes);
  out.Set("eosIds", eos);
  out.Set("bosId", config.bos_id < 0 ? env.Null() : Napi::Value::From(env, config.bos_id));
  out.Set("policy", policy);
  return out;
}

Napi::Object ToJs(Napi::Env env, const RunReport& report) {
  Napi::Array chains = Napi::Array::New(env, report.chains.size());
  for (uint32_t i = 0; i < report.chains.size(); ++i) {
    // Thousands of chains: a scope per element keeps the handle table small.
    const Napi::HandleScope scope(env);
    chains.Set(i, ChainToJs(env, report.chains[i]));
  }
  Napi::Object out = Napi::Object::New(env);
  out.Set("step", report.step);
  out.Set("prefilled", report.prefilled);
  out.Set("prefillReadSum", report.prefill_read_sum);
  out.Set("sharedSum", report.shared_sum);
  out.Set("headCount", report.head_count);
  out.Set("running", report.running);
  out.Set("caughtUp", report.caught_up);
  out.Set("chains", chains);
  return out;
}

Napi::Object ToJs(Napi::Env env, const MemoryUse& memory) {
  Napi::Object out = Napi::Object::New(env);
  out.Set("weightBytes", memory.weight_bytes);
  out.Set("kvAllocatedBytes", memory.kv_allocated_bytes);
  return out;
}

}  // namespace rum::bind
