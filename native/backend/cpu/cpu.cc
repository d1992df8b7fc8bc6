// The cpu backend: panels, ring and survivor log, one set of bits for every batch, thread count and instruction set.
// Forward reads as docs/NUMERICS.md: norm, q k v, decision, RoPE, cache, attention, output, MLP, logits.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <unordered_map>

#include "backend/backend.h"
#include "backend/cpu/activations.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/packed_model.h"
#include "backend/cpu/thread_pool.h"
#include "baseline/eval_backend.h"
#include "cache/chain_cache.h"
#include "model/quant.h"
#include "policy/policy.h"

namespace rum {
namespace {

// Consecutive rows of one chain within a Forward.
struct Span {
  ChainCache* cache = nullptr;
  ChainId chain = 0;
  int32_t position = 0;          // of its first row
  std::vector<int32_t> rows;     // indices into the batch
};

struct Chain {
  std::unique_ptr<ChainCache> cache;
  int32_t length = 0;
};

class CpuBackend final : public Backend {
 public:
  // attention: in place of ring and log, or nullptr.
  CpuBackend(std::shared_ptr<const Model> model, const BackendOptions& options, Isa isa, baseline::Attention* attention)
      : model_(std::move(model)), config_(model_->config), attention_(attention), isa_(isa), kernels_(*KernelsFor(isa)), threads_(options.threads),
        layout_(CacheLayout::Make(config_.head_dim, options.kv == KvType::kF32 ? 4 : 2, options.page_slots, config_.policy.window)),
        pool_(layout_.page_bytes), scratch_(static_cast<size_t>(options.threads)) {}

  // False when memory cannot be had.
  bool PackWeights() {
    policy_ = MakePolicy(*model_, kernels_, &threads_);
    return policy_ != nullptr && weights_.Pack(*model_);
  }

  const char* name() const override { return "cpu"; }
  Isa isa() const override { return isa_; }
  Expected<ChainId> NewChain() override;
  Expected<ChainId> ForkChain(ChainId chain) override;
  void FreeChain(ChainId chain) override { chains_.erase(chain); }
  Status Forward(std::span<const Row> rows, float* logits) override;
  int32_t Length(ChainId chain) const override { return chains_.at(chain).length; }
  int64_t LiveSum(ChainId chain) const override { return SumHeads(chain, &ChainCache::Live); }
  int64_t NextLiveSum(ChainId chain) const override { return SumHeads(chain, &ChainCache::NextLive); }
  int64_t SharedSum(ChainId chain) const override { return SumHeads(chain, &ChainCache::SharedSurvivors); }
  HeadSnapshot Snapshot(ChainId chain, int32_t layer, int32_t kv_head) const override {
    return chains_.at(chain).cache->Snapshot(layer * config_.num_kv_heads + kv_head);
  }
  MemoryUse Memory() const override;
  void SetTrace(TraceSink* sink) override { trace_ = sink; }
  ChainCache* Cache(ChainId chain) override { return attention_ ? nullptr : chains_.at(chain).cache.get(); }
  std::unique_ptr<ChainCache> NewCache() override {
    return attention_ ? nullptr : ChainCache::Make(layout_, &pool_, config_.num_layers * config_.num_kv_heads);
  }
  Expected<ChainId> AdoptChain(std::unique_ptr<ChainCache> cache) override {
    const int32_t length = cache->length();
    return Adopt(std::move(cache), length);
  }
  int32_t threads() const override { return threads_.threads(); }
  void RunOnThreads(int64_t items, int64_t cost, const WorkShare& f) override { threads_.Run(items, cost, f); }

 private:
  int64_t SumHeads(ChainId chain, int32_t (ChainCache::*count)(int32_t) const) const;
  Expected<ChainId> Adopt(std::unique_ptr<ChainCache> cache, int32_t length);
  Expected<std::vector<Span>> GroupRows(std::span<const Row> rows);
  void Matrix(const PackedMatrix& w, const std::vector<float>& x, int64_t x_stride, int64_t rows, std::vector<float>* y, int64_t y_stride);
  void Norm(const std::vector<float>& weight, int64_t rows);
  void AddBias(const std::vector<float>& bias, int64_t rows, std::vector<float>* y, int64_t y_stride);
  void AddProjected(int64_t rows);
  void AttentionBlock(int32_t layer, const std::vector<Span>& spans, int64_t rows);
  float PrepareHead(const PackedLayer& layer, int32_t row, int32_t kv_head);
  void AttendSpan(int32_t layer, const Span& span, int32_t kv_head, std::vector<float>* scratch);
  void AttendSpanForBaseline(int32_t layer, const Span& span);
  void MlpBlock(const PackedLayer& layer, int64_t rows);
  void Angles(const std::vector<Span>& spans, int64_t rows);
  void TraceLayer(int32_t layer, const std::vector<Span>& spans);
  Status Logits(std::span<const Row> rows, float* logits);

  const std::shared_ptr<const Model> model_;
  const ModelConfig& config_;
  baseline::Attention* const attention_;
  const Isa isa_;
  const Kernels& kernels_;
  ThreadPool threads_;
  const CacheLayout layout_;
  PagePool pool_;
  std::unique_ptr<Policy> policy_;
  PackedModel weights_;
  std::unordered_map<ChainId, Chain> chains_;
  ChainId next_chain_ = 0;
  Activations a_;
  std::span<const Row> batch_;  // of the Forward in progress
  std::vector<std::vector<float>> scratch_;  // [threads]
  std::vector<float> head_in_, head_out_;    // [wanted rows][stride]
  std::atomic<bool> out_of_memory_{false};
  TraceSink* trace_ = nullptr;
};

// ---------------------------------------------------------------- chains

Expected<ChainId> CpuBackend::Adopt(std::unique_ptr<ChainCache> cache, int32_t length) {
  if (cache == nullptr) return Error(kErrMemory, "The system has no memory for another chain's KV cache; use fewer chains.");
  const ChainId id = next_chain_++;
  chains_.emplace(id, Chain{std::move(cache), length});
  return id;
}

Expected<ChainId> CpuBackend::NewChain() {
  return Adopt(ChainCache::Make(layout_, &pool_, config_.num_layers * config_.num_kv_heads), 0);
}

Expected<ChainId> CpuBackend::ForkChain(ChainId chain) {
  const Chain& from = chains_.at(chain);
  return Adopt(from.cache->Fork(), from.length);
}

int64_t CpuBackend::SumHeads(ChainId chain, int32_t (ChainCache::*count)(int32_t) const) const {
  const ChainCache& cache = *chains_.at(chain).cache;
  int64_t sum = 0;
  for (int32_t h = 0; h < cache.heads(); ++h) sum += (cache.*count)(h);
  return sum;
}

MemoryUse CpuBackend::Memory() const {
  MemoryUse use;
  use.weight_bytes = weights_.bytes() + policy_->weight_bytes();
  use.kv_allocated_bytes = pool_.allocated_bytes();
  for (const auto& [id, chain] : chains_) use.kv_allocated_bytes += chain.cache->ring_bytes();
  return use;
}

// ---------------------------------------------------------------- forward

Expected<std::vector<Span>> CpuBackend::GroupRows(std::span<const Row> rows) {
  std::vector<Span> spans;
  std::unordered_map<ChainId, size_t> span_of;
  for (size_t r = 0; r < rows.size(); ++r) {
    const Row& row = rows[r];
    const auto chain = chains_.find(row.chain);
    if (chain == chains_.end()) return Error(kErrInternal, "Forward: no such chain.");
    if (row.token < 0 || row.token >= config_.vocab_size) {
      return Error(kErrOption, "Token id " + std::to_string(row.token) + " is outside the vocabulary of " +
                                   std::to_string(config_.vocab_size) + ".");
    }
    const auto [it, fresh] = span_of.try_emplace(row.chain, spans.size());
    if (fresh) spans.push_back({chain->second.cache.get(), row.chain, chain->second.length, {}});
    spans[it->second].rows.push_back(static_cast<int32_t>(r));
  }
  for (const Span& s : spans) {
    if (s.position + static_cast<int64_t>(s.rows.size()) > config_.max_positions) {
      return Error(kErrPromptTooLong, "The chain would pass the model's " + std::to_string(config_.max_positions) + " positions.");
    }
  }
  return spans;
}

void CpuBackend::Matrix(const PackedMatrix& w, const std::vector<float>& x, int64_t x_stride, int64_t rows, std::vector<float>* y,
                        int64_t y_stride) {
  threads_.Run(w.panels, w.rows() * w.cols * rows, [&](int64_t begin, int64_t end, int32_t) {
    kernels_.linear(w, x.data(), x_stride, static_cast<int32_t>(rows), y->data(), y_stride, begin, end);
  });
}

void CpuBackend::Norm(const std::vector<float>& weight, int64_t rows) {
  threads_.Run(rows, rows * config_.hidden_size, [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t r = begin; r < end; ++r) {
      kernels_.rms_norm(a_.residual.data() + r * a_.hidden_stride, weight.data(), config_.rms_eps, config_.hidden_size,
                        a_.normed.data() + r * a_.hidden_stride);
    }
  });
}

void CpuBackend::AddBias(const std::vector<float>& bias, int64_t rows, std::vector<float>* y, int64_t y_stride) {
  if (bias.empty()) return;
  for (int64_t r = 0; r < rows; ++r) kernels_.add(y->data() + r * y_stride, bias.data(), static_cast<int64_t>(bias.size()));
}

void CpuBackend::AddProjected(int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    kernels_.add(a_.residual.data() + r * a_.hidden_stride, a_.projected.data() + r * a_.hidden_stride, config_.hidden_size);
  }
}

// Norm and RoPE of one row's query group and key, in place. Returns the policy's logit.
float CpuBackend::PrepareHead(const PackedLayer& l, int32_t row, int32_t kv_head) {
  const int32_t hd = config_.head_dim, group = config_.group();
  const int64_t half = hd / 2;
  float* qkv = a_.qkv.data() + row * a_.qkv_stride;
  float* q = qkv + int64_t{kv_head} * group * hd;
  float* k = qkv + l.qkv.row_begin(1) + int64_t{kv_head} * hd;
  const float* cos = a_.cos.data() + row * half;
  const float* sin = a_.sin.data() + row * half;
  if (config_.qk_norm) {
    for (int32_t h = 0; h < group; ++h) kernels_.rms_norm(q + h * hd, l.q_norm.data(), config_.rms_eps, hd, q + h * hd);
    kernels_.rms_norm(k, l.k_norm.data(), config_.rms_eps, hd, k);
  }
  const float logit = policy_->Logit(row, kv_head, q);
  policy_->MaskQuery(q);
  for (int32_t h = 0; h < group; ++h) kernels_.rope(q + h * hd, cos, sin, half);
  kernels_.rope(k, cos, sin, half);
  policy_->MaskQuery(q);
  return logit;
}

// One chain, one KV head: everything between the projections, token by token, as the next token's keys depend on what this one evicts.
void CpuBackend::AttendSpan(int32_t layer, const Span& span, int32_t kv_head, std::vector<float>* scratch) {
  const PackedLayer& l = weights_.layers[static_cast<size_t>(layer)];
  const int32_t hd = config_.head_dim, group = config_.group(), head = layer * config_.num_kv_heads + kv_head;
  const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(hd)));
  for (size_t i = 0; i < span.rows.size(); ++i) {
    const int32_t row = span.rows[i];
    const float logit = PrepareHead(l, row, kv_head);
    const float* qkv = a_.qkv.data() + row * a_.qkv_stride;
    const float* q = qkv + int64_t{kv_head} * group * hd;
    const float* k = qkv + l.qkv.row_begin(1) + int64_t{kv_head} * hd;
    const float* v = qkv + l.qkv.row_begin(2) + int64_t{kv_head} * hd;
    const Row& token = batch_[static_cast<size_t>(row)];
    if (!span.cache->Append(head, span.position + static_cast<int32_t>(i), k, v, policy_->Judge(logit, token.prefill))) {
      out_of_memory_.store(true, std::memory_order_relaxed);
      return;
    }
    const HeadView view = span.cache->View(head);
    const auto need = static_cast<size_t>(AttendScratchFloats(layout_, group, view.log_count + view.ring_live));
    if (scratch->size() < need) scratch->resize(need + need / 2);
    kernels_.attend(layout_, view, q, group, scale, scratch->data(),
                    a_.attention.data() + row * a_.attention_stride + int64_t{kv_head} * group * hd);
    const int64_t at = int64_t{row} * config_.num_kv_heads + kv_head;
    a_.decision_logits[static_cast<size_t>(at)] = logit;
    a_.live[static_cast<size_t>(at)] = view.log_count + view.ring_live;
    if (token.prompt_end && policy_->dense_prompt() && !span.cache->EndPrompt(head, !policy_->prunes_generated())) {
      out_of_memory_.store(true, std::memory_order_relaxed);
    }
  }
}

// One chain, all heads of the layer: what a baseline keeps may depend on all of them.
void CpuBackend::AttendSpanForBaseline(int32_t layer, const Span& span) {
  const PackedLayer& l = weights_.layers[static_cast<size_t>(layer)];
  for (size_t i = 0; i < span.rows.size(); ++i) {
    const int32_t row = span.rows[i];
    for (int32_t j = 0; j < config_.num_kv_heads; ++j) PrepareHead(l, row, j);
    const float* qkv = a_.qkv.data() + row * a_.qkv_stride;
    attention_->Attend(batch_[static_cast<size_t>(row)], layer, span.position + static_cast<int32_t>(i), qkv, qkv + l.qkv.row_begin(1),
                       qkv + l.qkv.row_begin(2), a_.attention.data() + row * a_.attention_stride,
                       a_.live.data() + int64_t{row} * config_.num_kv_heads);
  }
}

void CpuBackend::AttentionBlock(int32_t layer, const std::vector<Span>& spans, int64_t rows) {
  const PackedLayer& l = weights_.layers[static_cast<size_t>(layer)];
  Norm(l.input_norm, rows);
  policy_->Prepare(layer, {a_.residual.data(), a_.normed.data(), a_.hidden_stride, static_cast<int32_t>(rows)});
  Matrix(l.qkv, a_.normed, a_.hidden_stride, rows, &a_.qkv, a_.qkv_stride);
  AddBias(l.qkv_bias, rows, &a_.qkv, a_.qkv_stride);
  int64_t live = 0;
  for (const Span& s : spans) live += s.cache->Live(layer * config_.num_kv_heads) * static_cast<int64_t>(s.rows.size());
  const int64_t cost = (live + 16 * rows) * config_.num_heads * config_.head_dim * 2;
  const int64_t per_span = attention_ ? 1 : config_.num_kv_heads;
  threads_.Run(static_cast<int64_t>(spans.size()) * per_span, cost, [&](int64_t begin, int64_t end, int32_t thread) {
    for (int64_t i = begin; i < end; ++i) {
      if (attention_) {
        AttendSpanForBaseline(layer, spans[static_cast<size_t>(i)]);
        continue;
      }
      AttendSpan(layer, spans[static_cast<size_t>(i / config_.num_kv_heads)], static_cast<int32_t>(i % config_.num_kv_heads),
                 &scratch_[static_cast<size_t>(thread)]);
    }
  });
  Matrix(l.o, a_.attention, a_.attention_stride, rows, &a_.projected, a_.hidden_stride);
  AddBias(l.o_bias, rows, &a_.projected, a_.hidden_stride);
  AddProjected(rows);
}

void CpuBackend::MlpBlock(const PackedLayer& l, int64_t rows) {
  Norm(l.post_norm, rows);
  Matrix(l.gate_up, a_.normed, a_.hidden_stride, rows, &a_.gate_up, a_.gate_up_stride);
  const int64_t up = l.gate_up.row_begin(1);
  threads_.Run(rows, rows * config_.intermediate_size * 16, [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t r = begin; r < end; ++r) {
      float* gate = a_.gate_up.data() + r * a_.gate_up_stride;
      kernels_.silu_mul(gate, gate + up, gate, config_.intermediate_size);
    }
  });
  Matrix(l.down, a_.gate_up, a_.gate_up_stride, rows, &a_.projected, a_.hidden_stride);
  AddProjected(rows);
}

void CpuBackend::TraceLayer(int32_t layer, const std::vector<Span>& spans) {
  for (const Span& s : spans) {
    for (size_t i = 0; i < s.rows.size(); ++i) {
      const int64_t at = int64_t{s.rows[i]} * config_.num_kv_heads;
      trace_->OnToken(s.chain, layer, s.position + static_cast<int32_t>(i), policy_->evicts() ? a_.decision_logits.data() + at : nullptr,
                      a_.live.data() + at);
    }
  }
}

Status CpuBackend::Logits(std::span<const Row> rows, float* logits) {
  const int64_t in_stride = a_.hidden_stride, out_stride = weights_.head.rows(), vocab = config_.vocab_size;
  const auto wanted = static_cast<int64_t>(std::count_if(rows.begin(), rows.end(), [](const Row& r) { return r.want_logits; }));
  if (wanted == 0) return Status::Ok();
  head_in_.resize(static_cast<size_t>(wanted * in_stride));
  head_out_.resize(static_cast<size_t>(wanted * out_stride));
  int64_t w = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    if (!rows[r].want_logits) continue;
    kernels_.rms_norm(a_.residual.data() + static_cast<int64_t>(r) * in_stride, weights_.final_norm.data(), config_.rms_eps,
                      config_.hidden_size, head_in_.data() + w++ * in_stride);
  }
  Matrix(weights_.head, head_in_, in_stride, wanted, &head_out_, out_stride);
  bool finite = true;
  for (int64_t i = 0; i < wanted; ++i) finite &= kernels_.copy_finite(head_out_.data() + i * out_stride, logits + i * vocab, vocab);
  if (!finite) return Error(kErrNumerics, "The model produced a logit that is not finite; the weights are damaged or overflow float.");
  return Status::Ok();
}

// cos and sin of every row's position.
void CpuBackend::Angles(const std::vector<Span>& spans, int64_t rows) {
  const int64_t half = config_.head_dim / 2;
  for (const Span& s : spans) {
    for (size_t i = 0; i < s.rows.size(); ++i) a_.positions[static_cast<size_t>(s.rows[i])] = s.position + static_cast<int32_t>(i);
  }
  threads_.Run(rows, rows * half * 32, [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t r = begin; r < end; ++r) {
      kernels_.rope_angles(a_.positions[static_cast<size_t>(r)], weights_.frequencies.data(), config_.rope.attention_factor, half,
                           a_.cos.data() + r * half, a_.sin.data() + r * half);
    }
  });
}

Status CpuBackend::Forward(std::span<const Row> rows, float* logits) {
  auto grouped = GroupRows(rows);
  if (!grouped.ok()) return grouped.status();
  const std::vector<Span>& spans = *grouped;
  const auto n = static_cast<int64_t>(rows.size());
  if (n == 0) return Status::Ok();
  batch_ = rows;
  a_.Fit(config_, weights_.layers[0].qkv.rows(), weights_.layers[0].gate_up.rows(), n);
  for (int64_t r = 0; r < n; ++r) DequantiseRow(model_->embed, rows[static_cast<size_t>(r)].token, a_.residual.data() + r * a_.hidden_stride);
  Angles(spans, n);
  for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
    AttentionBlock(layer, spans, n);
    if (out_of_memory_.exchange(false)) return Error(kErrMemory, "The system has no memory for another page of the KV cache.");
    MlpBlock(weights_.layers[static_cast<size_t>(layer)], n);
    if (trace_ != nullptr) TraceLayer(layer, spans);
  }
  for (const Span& s : spans) chains_.at(s.chain).length += static_cast<int32_t>(s.rows.size());
  return Logits(rows, logits);
}

}  // namespace

Expected<std::unique_ptr<Backend>> MakeCpuBackend(std::shared_ptr<const Model> model, const BackendOptions& options) {
  if (options.threads < 1 || options.threads > 1024) return Error(kErrOption, "threads must be from 1 to 1024.");
  if (options.page_slots < 1 || options.page_slots > 4096) return Error(kErrOption, "page_slots must be from 1 to 4096.");
  const auto isa = ResolveIsa(options.isa);
  if (!isa.ok()) return isa.status();
  auto cache = baseline::MakeEvalCache(model->config, options);
  auto backend = std::make_unique<CpuBackend>(std::move(model), options, *isa, cache.get());
  if (!backend->PackWeights()) return Error(kErrMemory, "The system has no memory for the packed weights.");
  return baseline::Decorate(std::move(backend), std::move(cache));
}

}  // namespace rum
