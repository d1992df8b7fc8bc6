// The oracle: METHOD.md 1.2-1.5 and 5 in the arithmetic of docs/NUMERICS.md, one token at a time, one scalar at a time. Slow and
// obvious on purpose: every other backend must give the same bytes.
#include <cmath>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "backend/reference/history.h"
#include "backend/reference/math.h"
#include "backend/reference/matrix.h"
#include "baseline/eval_backend.h"

namespace rum {
namespace {

using reference::Chain;
using reference::ChainSum;
using reference::HeadHistory;
using reference::Layer;
using reference::Mask;
using reference::RmsNorm;
using reference::RopeTable;

class ReferenceBackend final : public Backend {
 public:
  // attention: in place of the histories here, or nullptr.
  ReferenceBackend(std::shared_ptr<const Model> model, const BackendOptions& options, baseline::Attention* attention)
      : model_(std::move(model)), config_(model_->config), options_(options), attention_(attention), weights_(reference::WidenAll(*model_)),
        frequencies_(RopeFrequencies(config_.rope, config_.head_dim)),
        window_(config_.policy.decides() ? config_.policy.window : 0), hidden_(Size(config_.hidden_size)),
        head_dim_(Size(config_.head_dim)), kv_heads_(Size(config_.num_kv_heads)), group_(Size(config_.group())) {}

  const char* name() const override { return "reference"; }
  Isa isa() const override { return Isa::kPortable; }

  Expected<ChainId> NewChain() override {
    Chain chain;
    chain.heads.resize(Size(config_.num_layers) * kv_heads_);
    return Add(std::move(chain));
  }

  Expected<ChainId> ForkChain(ChainId id) override {
    const auto source = chains_.find(id);
    if (source == chains_.end()) return UnknownChain(id);
    const Mask mask = MaskOf(source->second);
    for (HeadHistory& head : source->second.heads) head.SealPages(mask, options_.page_slots);
    return Add(Chain(source->second));
  }

  void FreeChain(ChainId id) override { chains_.erase(id); }

  Status Forward(std::span<const Row> rows, float* logits) override {
    for (const Row& row : rows) {
      if (!chains_.contains(row.chain)) return UnknownChain(row.chain);
      if (row.token < 0 || row.token >= config_.vocab_size) {
        return Error(kErrOption, "token id " + std::to_string(row.token) + " is not in the vocabulary of " +
                                     std::to_string(config_.vocab_size));
      }
    }
    Status first = Status::Ok();
    for (const Row& row : rows) {
      const std::vector<float> h = FeedToken(row);
      if (!row.want_logits) continue;
      Status status = WriteLogits(h, logits);
      if (first.ok()) first = std::move(status);
      logits += config_.vocab_size;
    }
    return first;
  }

  int32_t Length(ChainId id) const override {
    const Chain* chain = Find(id);
    return chain ? chain->length : 0;
  }
  int64_t LiveSum(ChainId id) const override {
    return SumHeads(id, [](const HeadHistory& head, const Mask& mask) { return head.LiveCount(mask); });
  }
  int64_t NextLiveSum(ChainId id) const override {
    return SumHeads(id, [](const HeadHistory& head, const Mask& mask) { return head.NextLiveCount(mask); });
  }
  int64_t SharedSum(ChainId id) const override {
    return SumHeads(id, [this](const HeadHistory& head, const Mask&) { return head.SharedPageCount() * options_.page_slots; });
  }

  HeadSnapshot Snapshot(ChainId id, int32_t layer, int32_t kv_head) const override {
    HeadSnapshot snapshot;
    const Chain* chain = Find(id);
    if (!chain) return snapshot;
    const HeadHistory& head = chain->heads[Size(layer) * kv_heads_ + Size(kv_head)];
    snapshot.positions = head.VisiblePositions(chain->length - 1, MaskOf(*chain));
    for (const int32_t position : snapshot.positions) {
      const auto begin = static_cast<std::ptrdiff_t>(Size(position) * head_dim_), d = static_cast<std::ptrdiff_t>(head_dim_);
      snapshot.k.insert(snapshot.k.end(), head.k.begin() + begin, head.k.begin() + begin + d);
      snapshot.v.insert(snapshot.v.end(), head.v.begin() + begin, head.v.begin() + begin + d);
    }
    return snapshot;
  }

  MemoryUse Memory() const override {
    MemoryUse use{weights_.bytes, 0};
    for (const auto& [id, chain] : chains_) {
      for (const HeadHistory& head : chain.heads) {
        use.kv_allocated_bytes += static_cast<int64_t>((head.k.size() + head.v.size()) * sizeof(float) + head.evict.size());
      }
    }
    return use;
  }

  void SetTrace(TraceSink* sink) override { trace_ = sink; }

 private:
  static size_t Size(int32_t n) { return static_cast<size_t>(n); }
  static Status UnknownChain(ChainId id) { return Error(kErrInternal, "there is no chain " + std::to_string(id)); }

  ChainId Add(Chain chain) {
    chains_.emplace(next_id_, std::move(chain));
    return next_id_++;
  }

  const Chain* Find(ChainId id) const {
    const auto it = chains_.find(id);
    return it == chains_.end() ? nullptr : &it->second;
  }

  template <class Count>
  int64_t SumHeads(ChainId id, Count count) const {
    int64_t sum = 0;
    if (const Chain* chain = Find(id)) {
      for (const HeadHistory& head : chain->heads) sum += count(head, MaskOf(*chain));
    }
    return sum;
  }

  // What is held after the last token fed: within a KVzap prompt everything.
  Mask MaskOf(const Chain& chain) const {
    Mask mask{window_};
    if (config_.policy.is_kvzap()) {
      mask.dense = chain.in_prompt;
      if (!config_.policy.prunes_generated) mask.evictable_end = chain.prompt_length - window_;
    }
    return mask;
  }

  bool Borrowed() const { return config_.policy.kind == PolicyKind::kDmsBorrowed; }

  // The residual stream after the last layer. [hidden]
  std::vector<float> FeedToken(const Row& row) {
    Chain& chain = chains_.find(row.chain)->second;
    const int32_t position = chain.length++;
    chain.in_prompt = row.prefill;
    const RopeTable rope = reference::MakeRopeTable(frequencies_, config_.rope.attention_factor, position);
    const float* embedding = weights_.embed.row(Size(row.token));
    std::vector<float> h(embedding, embedding + hidden_);
    for (int32_t layer = 0; layer < config_.num_layers; ++layer) {
      const Layer& w = weights_.layers[Size(layer)];
      Attention(row, layer, position, rope, w, std::span(chain.heads).subspan(Size(layer) * kv_heads_, kv_heads_),
                MaskOf(chain), h);
      Mlp(w, h);
    }
    if (row.prompt_end) EndPrompt(chain);
    return h;
  }

  void EndPrompt(Chain& chain) const {
    chain.in_prompt = false;
    chain.prompt_length = chain.length;
    if (!config_.policy.is_kvzap()) return;
    for (HeadHistory& head : chain.heads) head.PrunePages(MaskOf(chain), options_.page_slots);
  }

  // h += W_o attention(RMSNorm(h)); writes k, v and a flag.
  void Attention(const Row& row, int32_t layer, int32_t position, const RopeTable& rope, const Layer& w, std::span<HeadHistory> heads,
                 const Mask& mask, std::vector<float>& h) {
    std::vector<float> x(hidden_), q(w.q_proj.rows), k(w.k_proj.rows), v(w.v_proj.rows);
    RmsNorm(h.data(), w.input_norm.row(0), hidden_, config_.rms_eps, x.data());
    w.q_proj.Times(x.data(), q.data());
    w.k_proj.Times(x.data(), k.data());
    w.v_proj.Times(x.data(), v.data());
    w.q_bias.AddTo(q.data());
    w.k_bias.AddTo(k.data());
    w.v_bias.AddTo(v.data());
    if (config_.qk_norm) {
      NormHeads(w.q_norm.row(0), q);
      NormHeads(w.k_norm.row(0), k);
    }
    const std::vector<float> decision_logits = config_.policy.is_kvzap() ? Scores(w, x) : DecisionLogits(w, h, q);
    if (Borrowed()) ZeroBorrowedChannels(q);
    for (size_t i = 0; i < q.size(); i += head_dim_) Rope(rope, &q[i]);
    for (size_t i = 0; i < k.size(); i += head_dim_) Rope(rope, &k[i]);
    if (Borrowed()) ZeroBorrowedChannels(q);

    std::vector<float> o(q.size());
    std::vector<int32_t> live(kv_heads_);
    if (attention_) attention_->Attend(row, layer, position, q.data(), k.data(), v.data(), o.data(), live.data());
    for (size_t j = 0; j < kv_heads_ && !attention_; ++j) {
      Append(&k[j * head_dim_], &v[j * head_dim_], decision_logits.empty() ? nullptr : &decision_logits[j], heads[j]);
      const std::vector<int32_t> visible = heads[j].VisiblePositions(position, mask);
      live[j] = static_cast<int32_t>(visible.size());
      for (size_t i = j * group_; i < (j + 1) * group_; ++i) Attend(heads[j], visible, &q[i * head_dim_], &o[i * head_dim_]);
    }
    if (trace_) {
      trace_->OnToken(row.chain, layer, position, decision_logits.empty() ? nullptr : decision_logits.data(), live.data());
    }
    std::vector<float> y(hidden_);
    w.o_proj.Times(o.data(), y.data());
    w.o_bias.AddTo(y.data());
    for (size_t i = 0; i < hidden_; ++i) h[i] = h[i] + y[i];
  }

  void NormHeads(const float* w, std::vector<float>& x) const {
    for (size_t i = 0; i < x.size(); i += head_dim_) RmsNorm(&x[i], w, head_dim_, config_.rms_eps, &x[i]);
  }

  // [num_kv_heads], or empty for a dense cache. q: after q_norm, before RoPE. h: the residual stream that enters the layer.
  std::vector<float> DecisionLogits(const Layer& w, const std::vector<float>& h, const std::vector<float>& q) const {
    const PolicySpec& policy = config_.policy;
    if (!policy.is_dms()) return {};
    std::vector<float> logits(kv_heads_);
    if (Borrowed()) {
      for (size_t j = 0; j < kv_heads_; ++j) logits[j] = q[BorrowedChannel(j)];
    } else {
      std::vector<float> a(hidden_);
      RmsNorm(h.data(), w.alpha_norm.row(0), hidden_, config_.rms_eps, a.data());
      w.alpha_proj.Times(a.data(), logits.data());
      w.alpha_bias.AddTo(logits.data());
      if (policy.alpha_per_layer) logits.assign(kv_heads_, logits[0]);
    }
    for (float& logit : logits) {
      logit = logit * policy.alpha_scale;
      logit = logit - policy.alpha_offset;
    }
    return logits;
  }

  // [num_kv_heads]. x: the input of self_attn.
  std::vector<float> Scores(const Layer& w, const std::vector<float>& x) const {
    std::vector<float> inner = x, scores(kv_heads_);
    if (!w.score_in.data.empty()) {
      inner.resize(w.score_in.rows);
      w.score_in.Times(x.data(), inner.data());
      w.score_in_bias.AddTo(inner.data());
      for (float& y : inner) y = GeluF(y);
    }
    w.score_out.Times(inner.data(), scores.data());
    w.score_out_bias.AddTo(scores.data());
    return scores;
  }

  // The last channel of the first query head of KV head j.
  size_t BorrowedChannel(size_t j) const { return j * group_ * head_dim_ + head_dim_ - 1; }
  void ZeroBorrowedChannels(std::vector<float>& q) const {
    for (size_t j = 0; j < kv_heads_; ++j) q[BorrowedChannel(j)] = 0.0f;
  }

  // The DMS decision of this token is about the one before it, KVzap's about itself. logit: nullptr when nothing is decided.
  void Append(const float* k, const float* v, const float* logit, HeadHistory& head) const {
    const PolicySpec& policy = config_.policy;
    if (policy.is_dms() && !head.evict.empty()) head.evict.back() = *logit > 0.0f && !policy.disable_eviction;
    head.evict.push_back(policy.is_kvzap() && *logit < policy.threshold);
    for (size_t c = 0; c < head_dim_; ++c) {
      head.k.push_back(RoundToKv(k[c]));
      head.v.push_back(RoundToKv(v[c]));
    }
  }

  float RoundToKv(float x) const { return options_.kv == KvType::kBF16 ? FromBf16(ToBf16(x)) : x; }

  void Attend(const HeadHistory& head, const std::vector<int32_t>& visible, const float* q, float* o) const {
    const auto scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim_)));
    std::vector<float> p;  // [visible]
    for (const int32_t position : visible) p.push_back(ChainSum(q, &head.k[Size(position) * head_dim_], head_dim_) * scale);
    const float inv = reference::SoftmaxNumerators(p);
    for (size_t c = 0; c < head_dim_; ++c) {
      float acc = 0.0f;
      for (size_t r = 0; r < visible.size(); ++r) acc = std::fma(p[r], head.v[Size(visible[r]) * head_dim_ + c], acc);
      o[c] = acc * inv;
    }
  }

  // h += W_down (silu(W_gate x) * (W_up x)), x = RMSNorm(h).
  void Mlp(const Layer& w, std::vector<float>& h) const {
    std::vector<float> x(hidden_), act(w.gate_proj.rows), up(w.up_proj.rows), y(hidden_);
    RmsNorm(h.data(), w.post_norm.row(0), hidden_, config_.rms_eps, x.data());
    w.gate_proj.Times(x.data(), act.data());
    w.up_proj.Times(x.data(), up.data());
    for (size_t i = 0; i < act.size(); ++i) act[i] = SiluF(act[i]) * up[i];
    w.down_proj.Times(act.data(), y.data());
    for (size_t i = 0; i < hidden_; ++i) h[i] = h[i] + y[i];
  }

  Status WriteLogits(const std::vector<float>& h, float* logits) const {
    std::vector<float> x(hidden_);
    RmsNorm(h.data(), weights_.final_norm.row(0), hidden_, config_.rms_eps, x.data());
    weights_.head().Times(x.data(), logits);
    for (int32_t i = 0; i < config_.vocab_size; ++i) {
      if (!std::isfinite(logits[i])) {
        return Error(kErrNumerics, "the logit of token " + std::to_string(i) + " is not finite: check the model's weights");
      }
    }
    return Status::Ok();
  }

  std::shared_ptr<const Model> model_;
  const ModelConfig& config_;
  BackendOptions options_;
  baseline::Attention* const attention_;
  reference::Weights weights_;
  std::vector<float> frequencies_;  // [head_dim / 2]
  int32_t window_;
  size_t hidden_, head_dim_, kv_heads_, group_;
  TraceSink* trace_ = nullptr;
  ChainId next_id_ = 0;
  std::map<ChainId, Chain> chains_;
};

}  // namespace

Expected<std::unique_ptr<Backend>> MakeReferenceBackend(std::shared_ptr<const Model> model, const BackendOptions& options) {
  if (options.page_slots < 1) return Error(kErrOption, "page_slots must be at least 1");
  auto cache = baseline::MakeEvalCache(model->config, options);
  auto backend = std::make_unique<ReferenceBackend>(std::move(model), options, cache.get());
  return baseline::Decorate(std::move(backend), std::move(cache));
}

}  // namespace rum
