// Requests and reports of the boundary (engine/runtime/native.ts), field by field.
#include "bind/dto.h"

#include <algorithm>
#include <memory>

namespace rum::bind {
namespace {

// Bounds of what is read before anything is checked against a model; each is far above any use and keeps a hostile DTO from
// costing memory.
constexpr size_t kPathBytesMax = 4096;
constexpr size_t kOverridesMax = 64;
constexpr size_t kOverrideBytesMax = 256;
constexpr size_t kPromptMax = size_t{1} << 22;
constexpr int32_t kWidthMax = 4096;
constexpr size_t kStopsMax = 64;
constexpr size_t kStopBytesMax = 4096;
constexpr size_t kEosMax = 1024;
constexpr size_t kBiasMax = size_t{1} << 20;
constexpr size_t kVocabMax = size_t{1} << 22;
constexpr size_t kPieceBytesMax = size_t{1} << 27;
constexpr int64_t kExactIntegerMax = int64_t{1} << 53;

const char* PolicyName(PolicyKind kind) {
  switch (kind) {
    case PolicyKind::kDense: return "dense";
    case PolicyKind::kDmsBorrowed: return "dms_borrowed";
    case PolicyKind::kDmsSeparate: return "dms_separate";
  }
  return "dense";
}

const char* DTypeName(DType type) {
  switch (type) {
    case DType::kF32: return "f32";
    case DType::kF16: return "f16";
    case DType::kBF16: return "bf16";
  }
  return "f32";
}

const char* FinishName(Finish finish) {
  switch (finish) {
    case Finish::kNone: return nullptr;
    case Finish::kStop: return "stop";
    case Finish::kLength: return "length";
    case Finish::kBudget: return "kv_read_budget";
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
  const std::vector<char> bytes = reader.Uint8Array("bytes", kPieceBytesMax);
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
  for (size_t i = 1; i < offsets.size(); ++i) pieces->emplace_back(bytes.data() + offsets[i - 1], offsets[i] - offsets[i - 1]);
  return pieces;
}

template <class T>
napi_value Take(napi_env env, napi_typedarray_type type, std::vector<T>&& values) {
  const size_t count = values.size();
  napi_value buffer = nullptr;
  if (count == 0) {
    if (napi_create_arraybuffer(env, 0, nullptr, &buffer) != napi_ok) return nullptr;
  } else {
    auto* owner = new std::vector<T>(std::move(values));
    const auto finalize = [](napi_env, void*, void* hint) { delete static_cast<std::vector<T>*>(hint); };
    if (napi_create_external_arraybuffer(env, owner->data(), count * sizeof(T), finalize, owner, &buffer) != napi_ok) {
      delete owner;
      return nullptr;
    }
  }
  napi_value array = nullptr;
  return napi_create_typedarray(env, type, count, buffer, 0, &array) == napi_ok ? array : nullptr;
}

napi_value ChainToJs(napi_env env, const ChainReport& chain) {
  Writer out(env);
  // Small and short-lived: copied, so that the collector need not track an external buffer for each.
  napi_value buffer = nullptr;
  napi_value tokens = nullptr;
  void* data = nullptr;
  const size_t bytes = chain.tokens.size() * sizeof(int32_t);
  if (napi_create_arraybuffer(env, bytes, &data, &buffer) == napi_ok) {
    if (bytes > 0) std::copy(chain.tokens.begin(), chain.tokens.end(), static_cast<int32_t*>(data));
    napi_create_typedarray(env, napi_int32_array, chain.tokens.size(), buffer, 0, &tokens);
  }
  out.Set("tokens", tokens);
  const char* finish = FinishName(chain.finish);
  finish == nullptr ? out.Null("finish") : out.String("finish", finish);
  chain.stop_bytes < 0 ? out.Null("stopBytes") : out.Int("stopBytes", chain.stop_bytes);
  out.Int("liveSum", chain.live_sum);
  out.Int("peakSum", chain.peak_sum);
  out.Int("readSum", chain.read_sum);
  out.Int("denseReadSum", chain.dense_read_sum);
  out.Int("fed", chain.fed);
  return out.object();
}

}  // namespace

ModelRequest ReadModelRequest(Reader& reader) {
  ModelRequest request;
  request.directory = reader.String("directory", kPathBytesMax);
  if (request.directory.empty() || request.directory.find('\0') != std::string::npos) {
    reader.Fail(kErrOption, "directory", "must be a path.");
  }
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

RunOptions ReadRunOptions(napi_env env, Reader& reader) {
  RunOptions options;
  options.prompt = reader.Int32Array("prompt", kPromptMax);
  options.width = reader.Int32("width", 1, kWidthMax);
  options.lengths = reader.Int32Array("lengths", kWidthMax);
  options.seed = reader.U64("seed");
  options.first_chain = reader.Int32("firstChain", 0, INT32_MAX - kWidthMax);
  Reader sampling(env, reader.PathOf("sampling"), reader.Object("sampling"));
  if (reader.status().ok()) options.sampling = ReadSampling(sampling);
  reader.Merge(sampling.status());
  options.eos_ids = reader.Int32Array("eosIds", kEosMax);
  options.stop = reader.Strings("stop", kStopsMax, kStopBytesMax);
  if (!reader.IsNull("pieces")) {
    Reader pieces(env, reader.PathOf("pieces"), reader.Object("pieces"));
    if (reader.status().ok()) options.pieces = ReadPieces(pieces);
    reader.Merge(pieces.status());
  }
  if (!reader.IsNull("kvReadBudget")) options.kv_read_budget = reader.Int("kvReadBudget", 0, kExactIntegerMax);
  options.prefill_chunk = reader.Int32("prefillChunk", 1, 65536);
  if (reader.status().ok() && options.lengths.size() != static_cast<size_t>(options.width)) {
    reader.Fail(kErrInternal, "lengths", "must have one element per chain.");
  }
  return options;
}

void Writer::Int(const char* name, int64_t value) {
  napi_value number = nullptr;
  napi_create_int64(env_, value, &number);
  Set(name, number);
}

void Writer::Double(const char* name, double value) {
  napi_value number = nullptr;
  napi_create_double(env_, value, &number);
  Set(name, number);
}

void Writer::Bool(const char* name, bool value) {
  napi_value boolean = nullptr;
  napi_get_boolean(env_, value, &boolean);
  Set(name, boolean);
}

void Writer::String(const char* name, const std::string& value) {
  napi_value text = nullptr;
  napi_create_string_utf8(env_, value.data(), value.size(), &text);
  Set(name, text);
}

void Writer::Null(const char* name) {
  napi_value null = nullptr;
  napi_get_null(env_, &null);
  Set(name, null);
}

napi_value TakeInt32s(napi_env env, std::vector<int32_t>&& values) { return Take(env, napi_int32_array, std::move(values)); }
napi_value TakeFloats(napi_env env, std::vector<float>&& values) { return Take(env, napi_float32_array, std::move(values)); }
napi_value TakeBytes(napi_env env, std::vector<uint8_t>&& values) { return Take(env, napi_uint8_array, std::move(values)); }

const char* KvName(KvType kv) { return kv == KvType::kF32 ? "f32" : "bf16"; }

napi_value ToJs(napi_env env, const Model& model) {
  const ModelConfig& config = model.config;
  Writer policy(env);
  policy.String("name", PolicyName(config.policy.kind));
  policy.Int("window", config.policy.window);
  policy.Double("alphaScale", config.policy.alpha_scale);
  policy.Double("alphaOffset", config.policy.alpha_offset);
  policy.String("alphaPer", config.policy.alpha_per_layer ? "layer" : "head");
  policy.Bool("disableEviction", config.policy.disable_eviction);
  policy.Double("targetCr", config.policy.target_cr);
  policy.String("reason", config.policy.reason);

  napi_value eos = nullptr;
  napi_create_array_with_length(env, config.eos_ids.size(), &eos);
  for (size_t i = 0; i < config.eos_ids.size(); ++i) {
    napi_value id = nullptr;
    napi_create_int32(env, config.eos_ids[i], &id);
    napi_set_element(env, eos, static_cast<uint32_t>(i), id);
  }

  Writer out(env);
  out.String("modelType", config.model_type);
  out.Int("vocabSize", config.vocab_size);
  out.Int("hiddenSize", config.hidden_size);
  out.Int("intermediateSize", config.intermediate_size);
  out.Int("layers", config.num_layers);
  out.Int("heads", config.num_heads);
  out.Int("kvHeads", config.num_kv_heads);
  out.Int("headDim", config.head_dim);
  out.Int("maxPositions", config.max_positions);
  out.Bool("tiedEmbeddings", config.tied_embeddings);
  out.Double("ropeTheta", config.rope_theta);
  out.Int("parameters", model.parameter_count);
  out.Int("fileBytes", model.file_bytes);
  out.String("weightType", DTypeName(model.dtype));
  out.Set("eosIds", eos);
  config.bos_id < 0 ? out.Null("bosId") : out.Int("bosId", config.bos_id);
  out.Set("policy", policy.object());
  return out.object();
}

napi_value ToJs(napi_env env, const RunReport& report) {
  napi_value chains = nullptr;
  napi_create_array_with_length(env, report.chains.size(), &chains);
  for (size_t i = 0; i < report.chains.size(); ++i) {
    // Thousands of chains: a scope per element keeps the handle table small.
    napi_handle_scope scope = nullptr;
    napi_open_handle_scope(env, &scope);
    napi_set_element(env, chains, static_cast<uint32_t>(i), ChainToJs(env, report.chains[i]));
    napi_close_handle_scope(env, scope);
  }
  Writer out(env);
  out.Int("step", report.step);
  out.Bool("prefilled", report.prefilled);
  out.Int("prefillReadSum", report.prefill_read_sum);
  out.Int("sharedSum", report.shared_sum);
  out.Int("headCount", report.head_count);
  out.Int("running", report.running);
  out.Set("chains", chains);
  return out.object();
}

napi_value ToJs(napi_env env, const MemoryUse& memory) {
  Writer out(env);
  out.Int("weightBytes", memory.weight_bytes);
  out.Int("kvAllocatedBytes", memory.kv_allocated_bytes);
  return out.object();
}

}  // namespace rum::bind
