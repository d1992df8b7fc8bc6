// What a store and a manifest would hold of one job, in memory, and jobs to fill it with: small models under every policy.
#pragma once
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cache/chain_cache.h"
#include "checkpoint/digest.h"
#include "checkpoint/geometry.h"
#include "checkpoint/object_layout.h"
#include "run/run.h"
#include "test/backends.h"
#include "test/check.h"
#include "test/fixture.h"

namespace rum::test {

struct Vault {
  struct Chain {
    std::vector<size_t> segments;
    std::vector<std::pair<int32_t, size_t>> tails;  // (generated, object)
  };
  std::vector<SavedObject> objects;
  std::vector<SavedPart> news;  // of the last save; their objects are in `objects`
  std::vector<size_t> prompt_segments, journals;
  std::optional<size_t> prompt_tail;
  std::map<int32_t, Chain> chains;
  LayoutId layout_id{};
  uint32_t cuts = 0;
  Codec codec = Codec::kRaw;
  int32_t first = 0;  // index within the job of a shard's first chain

  explicit Vault(const LayoutId& id) : layout_id(id) {}

  void Save(Run& run, bool delta, int32_t width) {
    news = Must(run.Save({delta, 1, cuts++, layout_id, codec, {}}));
    for (SavedPart& part : news) {
      const size_t index = objects.size();
      objects.push_back(std::move(part.object));
      const int32_t chain = part.header.chain;
      if (part.header.kind == ObjectKind::kJournal) {
        journals.push_back(index);
      } else if (part.header.kind == ObjectKind::kTail && chain == kPromptChain) {
        prompt_tail = index;
      } else if (part.header.kind == ObjectKind::kTail) {
        chains[chain].tails.emplace_back(part.generated, index);
      } else if (chain == kPromptChain) {
        prompt_segments.push_back(index);
        for (int32_t i = 0; i < width; ++i) {
          if (chains[first + i].segments.empty()) chains[first + i].segments.push_back(index);
        }
      } else {
        chains[chain].segments.push_back(index);
      }
    }
  }

  StoredObject Stored(const SavedObject& object) const {
    const std::span<const uint8_t> bytes(object.bytes.data(), static_cast<size_t>(object.size));
    const size_t half = bytes.size() / 2 + 1;  // in two chunks, cut anywhere
    return {{bytes.first(half), bytes.subspan(half)}, object.size, object.digest, 0};
  }

  // Chains as the last tails hold them; `older`: as the ones before. Without tails: all is computed again.
  RestoreOptions Plan(int32_t width, size_t older = 0, bool tails = true) {
    RestoreOptions restore;
    for (const SavedObject& object : objects) restore.objects.push_back(Stored(object));
    restore.seals = {Seal{}};
    restore.layout_id = layout_id;
    if (tails) restore.prompt_segments = prompt_segments;
    if (tails) restore.prompt_tail = prompt_tail;
    restore.journals = journals;
    for (int32_t i = 0; i < width; ++i) {
      RestoreChain chain;
      const bool known = chains.contains(i) || journals.size() > 0;
      chain.source = known ? i : -1;
      const auto& held = chains[i].tails;
      if (tails && held.size() > older) {
        chain.tail = held[held.size() - 1 - older].second;
        chain.segments = chains[i].segments;
      }
      restore.chains.push_back(std::move(chain));
    }
    return restore;
  }

  // A job that goes on by this plan lists what it goes on from; chains that begin with the prompt, the prompt's pages.
  void Inherit(const Vault& parent, const RestoreOptions& plan) {
    for (const SavedObject& object : parent.objects) {
      SavedObject copy;
      if (!copy.bytes.Allocate(object.size)) std::abort();
      std::memcpy(copy.bytes.data(), object.bytes.data(), static_cast<size_t>(object.size));
      copy.size = object.size, copy.digest = object.digest;
      objects.push_back(std::move(copy));
    }
    prompt_segments = plan.prompt_segments, prompt_tail = plan.prompt_tail, chains = parent.chains;
    if (plan.own_journal) journals = parent.journals;
    for (size_t i = 0; i < plan.chains.size(); ++i) {
      if (!plan.chains[i].tail.has_value()) chains[static_cast<int32_t>(i)] = {plan.prompt_segments, {}};
    }
  }
};

inline bool Same(const ChainReport& a, const ChainReport& b) {
  return a.tokens == b.tokens && a.finish == b.finish && a.stop_bytes == b.stop_bytes && a.live_sum == b.live_sum && a.peak_sum == b.peak_sum &&
         a.decode_peak_sum == b.decode_peak_sum && a.read_sum == b.read_sum && a.dense_read_sum == b.dense_read_sum && a.fed == b.fed &&
         a.logprobs.tokens == b.logprobs.tokens && a.logprobs.top_ids == b.logprobs.top_ids && a.logprobs.top_values == b.logprobs.top_values;
}
inline bool Same(const RunReport& a, const RunReport& b) {
  return a.step == b.step && a.prefill_read_sum == b.prefill_read_sum && a.shared_sum == b.shared_sum && a.running == b.running &&
         std::ranges::equal(a.chains, b.chains, [](const ChainReport& x, const ChainReport& y) { return Same(x, y); });
}

// Passes everything on and remembers the logits of the last Forward, so that what a run computes can be compared byte by byte.
class SpyBackend final : public Backend {
 public:
  // journals_only: shows nobody its caches.
  SpyBackend(std::unique_ptr<Backend> inner, bool journals_only) : inner_(std::move(inner)), journals_only_(journals_only) {}
  const char* name() const override { return inner_->name(); }
  Isa isa() const override { return inner_->isa(); }
  Expected<ChainId> NewChain() override { return inner_->NewChain(); }
  Expected<ChainId> ForkChain(ChainId chain) override { return inner_->ForkChain(chain); }
  void FreeChain(ChainId chain) override {
    last_.erase(chain);
    inner_->FreeChain(chain);
  }
  Status Forward(std::span<const Row> rows, float* logits) override {
    Status status = inner_->Forward(rows, logits);
    last_.clear();
    for (const Row& row : rows) {
      if (!row.want_logits) continue;
      last_[row.chain].assign(logits, logits + vocab);
      logits += vocab;
    }
    return status;
  }
  int32_t Length(ChainId chain) const override { return inner_->Length(chain); }
  int64_t LiveSum(ChainId chain) const override { return inner_->LiveSum(chain); }
  int64_t ReadSum(ChainId chain) const override { return inner_->ReadSum(chain); }
  int64_t NextLiveSum(ChainId chain) const override { return inner_->NextLiveSum(chain); }
  int64_t SharedSum(ChainId chain) const override { return inner_->SharedSum(chain); }
  HeadSnapshot Snapshot(ChainId chain, int32_t layer, int32_t kv_head) const override { return inner_->Snapshot(chain, layer, kv_head); }
  MemoryUse Memory() const override { return inner_->Memory(); }
  void SetTrace(TraceSink* sink) override { inner_->SetTrace(sink); }
  ChainCache* Cache(ChainId chain) override { return journals_only_ ? nullptr : inner_->Cache(chain); }
  std::unique_ptr<ChainCache> NewCache() override { return journals_only_ ? nullptr : inner_->NewCache(); }
  Expected<ChainId> AdoptChain(std::unique_ptr<ChainCache> cache) override { return inner_->AdoptChain(std::move(cache)); }
  int32_t threads() const override { return inner_->threads(); }
  void RunOnThreads(int64_t items, int64_t cost, const WorkShare& f) override { inner_->RunOnThreads(items, cost, f); }

  // A digest of positions, K, V and logits of each chain that was fed last.
  std::multiset<Digest> State(const ModelConfig& config) const {
    std::multiset<Digest> state;
    for (const auto& [chain, logits] : last_) {
      Hasher hasher(nullptr);
      const auto add = [&hasher](const auto& values) {
        hasher.Update({reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof values[0]});
      };
      add(logits);
      for (int32_t layer = 0; layer < config.num_layers; ++layer) {
        for (int32_t j = 0; j < config.num_kv_heads; ++j) {
          const HeadSnapshot head = Snapshot(chain, layer, j);
          add(head.positions), add(head.k), add(head.v);
        }
      }
      Digest digest;
      hasher.Finish(digest);
      state.insert(digest);
    }
    return state;
  }

  size_t vocab = 0;

 private:
  std::unique_ptr<Backend> inner_;
  bool journals_only_;
  std::map<ChainId, std::vector<float>> last_;
};

// A model under a policy and a job for it.
struct Setting {
  std::string directory;
  PolicyOverrides overrides;
  BackendOptions backend;
  int32_t prompt = 40, length = 36;
};

struct Bench {
  std::shared_ptr<const Model> model;
  std::shared_ptr<SpyBackend> backend;
  LayoutId layout_id;

  explicit Bench(const Setting& s) : Bench(s, s.backend) {}
  Bench(const Setting& s, const BackendOptions& options, bool journals_only = false, bool reference = false)
      : model(Open(s.directory, s.overrides)),
        backend(std::make_shared<SpyBackend>(Must(reference ? MakeReferenceBackend(model, options) : MakeCpuBackend(model, options)), journals_only)),
        layout_id(LayoutIdOf(GeometryOf(model->config, options))) {
    backend->vocab = static_cast<size_t>(model->config.vocab_size);
  }

  std::unique_ptr<Run> Start(const RunOptions& job) const {
    auto run = Must(Run::Create(backend, model, job));
    CHECK_OK(run->Prefill());
    return run;
  }
  std::unique_ptr<Run> Resume(const RunOptions& job, const RestoreOptions& restore) const {
    auto run = Must(Run::Restore(backend, model, job, restore));
    CHECK_OK(run->Prefill());
    return run;
  }
};

inline RunOptions Job(const Setting& s, int32_t width) {
  RunOptions o;
  for (int32_t i = 0; i < s.prompt; ++i) o.prompt.push_back((i * 7 + 3) % 60);
  o.width = width;
  for (int32_t i = 0; i < width; ++i) o.lengths.push_back(i == 1 ? s.length / 3 : s.length);  // one finishes early
  o.seed = 5;
  o.sampling.temperature = 1.0f;
  o.sampling.frequency_penalty = 0.1f;
  o.logprobs = s.prompt == 20 ? -1 : 2;
  o.checkpointed = true;
  o.prefill_chunk = 16;
  return o;
}

// A step is counted by the newest token of any chain: those behind catch up with it first.
inline void StepTo(Run& run, int64_t step) {
  while (run.Report().step < step && run.Report().running > 0) {
    if (!CHECK_OK(run.Step(static_cast<int32_t>(step - run.Report().step)))) return;
  }
}
inline RunReport ToTheEnd(Run& run) {
  while (run.Report().running > 0) {
    if (!CHECK_OK(run.Step(1000))) break;
  }
  return run.Report();
}
inline RunReport AtOnce(const Setting& s, const RunOptions& job) { return ToTheEnd(*Bench(s).Start(job)); }

}  // namespace rum::test
