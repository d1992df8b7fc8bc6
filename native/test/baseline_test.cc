// The baselines (docs/baselines.md): the fixtures of test/fixtures/README.md on each backend that is linked, the law of bits among
// the backends, and their accounting in runs. Usage: baseline_test FIXTURES_DIR MODELS_DIR
#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "run/run.h"
#include "test/backends.h"
#include "test/check.h"
#include "test/fed.h"
#include "test/fixture.h"

namespace rum::test {
namespace {

constexpr size_t kPrompt = 96;  // of the fixtures

std::shared_ptr<const Model> Tiny(const PolicyOverrides& overrides) { return Open(fixtures + "/models/tiny_qwen3", overrides); }

// --- Fixtures ------------------------------------------------------------------------------------------------------------------------

void OnlineEvictionEqualsTheOracle() {
  const Fixture fixture(fixtures + "/online_baselines.safetensors");
  const std::vector<int32_t> ids = fixture.Ints("all_ids");
  const std::map<std::string, std::string> names = {{"tova", "tova_layer"}, {"tova_kvhead", "tova_kvhead"}, {"h2o", "h2o"}};
  for (const auto& [policy, name] : names) {
    const std::vector<uint8_t> kept = fixture.Bytes(name + ".kept");  // [layers, kv, 33, T]
    const std::vector<float> expected = fixture.Floats(name + ".logits");
    for (const BackendFactory& factory : Factories()) {
      Fed fed(factory, Tiny({{"policy", policy}, {"budget", "32"}}));
      std::vector<float> logits = fed.Feed(ids, 0, kPrompt, kPrompt);
      logits.erase(logits.begin(), logits.end() - fed.model->config.vocab_size);
      const size_t steps = ids.size() - kPrompt;
      for (size_t step = 0; step <= steps; ++step) {
        const std::vector<HeadSnapshot> heads = fed.Snapshots();
        for (size_t h = 0; h < heads.size(); ++h) {
          const auto row = kept.begin() + static_cast<std::ptrdiff_t>((h * (steps + 1) + step) * ids.size());
          CHECK(std::ranges::equal(Mask(heads[h].positions, ids.size()), std::span(row, ids.size())));
        }
        if (step == steps) break;
        const std::vector<float> part = fed.Feed(ids, kPrompt + step, kPrompt + step + 1, kPrompt);
        logits.insert(logits.end(), part.begin(), part.end());
      }
      CHECK(MaxDifference(logits, expected) <= 1e-3f);
    }
  }
}

// Page scores and visible tokens of one layer, as the fixture has them: [heads, steps, .].
class PageRecorder final : public TraceSink {
 public:
  PageRecorder(int32_t layer, size_t heads, size_t steps, size_t tokens, size_t page)
      : layer_(layer), steps_(steps), tokens_(tokens), page_(page), scores(heads * steps * (tokens / page), -INFINITY),
        visible(heads * steps * tokens) {}
  void OnToken(ChainId, int32_t, int32_t position, const float*, const int32_t*) override { position_ = Size(position); }
  void OnScores(ChainId, int32_t layer, int32_t head, std::span<const float> s, std::span<const int32_t> chosen) override {
    CHECK(layer >= 2);
    if (layer != layer_) return;
    const size_t row = Size(head) * steps_ + position_ - kPrompt;
    std::ranges::copy(s, scores.begin() + static_cast<std::ptrdiff_t>(row * (tokens_ / page_)));
    for (const int32_t p : chosen) {
      for (size_t t = Size(p) * page_; t < std::min((Size(p) + 1) * page_, position_ + 1); ++t) visible[row * tokens_ + t] = 1;
    }
  }

 private:
  int32_t layer_;
  size_t steps_, tokens_, page_, position_ = 0;

 public:
  std::vector<float> scores;
  std::vector<uint8_t> visible;
};

void QuestEqualsTheOracle() {
  const Fixture fixture(fixtures + "/online_baselines.safetensors");
  const std::vector<int32_t> ids = fixture.Ints("all_ids");
  for (const BackendFactory& factory : Factories()) {
    Fed fed(factory, Tiny({{"policy", "quest"}, {"budget", "24"}, {"page", "4"}}));
    std::vector<float> logits = fed.Feed(ids, 0, kPrompt, kPrompt);
    logits.erase(logits.begin(), logits.end() - fed.model->config.vocab_size);
    PageRecorder pages(2, 4, ids.size() - kPrompt, ids.size(), 4);
    fed.backend->SetTrace(&pages);
    for (size_t t = kPrompt; t < ids.size(); ++t) {
      const int64_t predicted = fed.backend->NextLiveSum(fed.chain);
      const std::vector<float> part = fed.Feed(ids, t, t + 1, kPrompt);
      logits.insert(logits.end(), part.begin(), part.end());
      // Two dense layers; in the third 5 whole pages, the newest one and a token for each page's metadata. Nothing goes.
      const auto n = static_cast<int64_t>(t + 1);
      CHECK(fed.backend->ReadSum(fed.chain) == 2 * (2 * n + 20 + (n - 1) % 4 + 1 + (n + 3) / 4) && predicted == fed.backend->ReadSum(fed.chain));
      CHECK(fed.backend->LiveSum(fed.chain) == 6 * n);
    }
    CHECK(MaxDifference(logits, fixture.Floats("quest.logits")) <= 1e-3f);
    CHECK(MaxDifference(pages.scores, fixture.Floats("quest.page_scores")) <= 1e-4f);
    CHECK(pages.visible == fixture.Bytes("quest.visible_layer2"));
  }
}

class ScoreRecorder final : public TraceSink {
 public:
  void OnToken(ChainId, int32_t, int32_t, const float*, const int32_t*) override {}
  void OnScores(ChainId, int32_t, int32_t, std::span<const float> s, std::span<const int32_t> chosen) override {
    scores.insert(scores.end(), s.begin(), s.end());
    const std::vector<uint8_t> mask = Mask({chosen.begin(), chosen.end()}, s.size());
    kept.insert(kept.end(), mask.begin(), mask.end());
  }
  std::vector<float> scores;  // [layers, kv, prompt]
  std::vector<uint8_t> kept;
};

void KvpressScorersEqualTheOracle() {
  const Fixture fixture(fixtures + "/kvpress_prefill_scores.safetensors");
  const std::vector<int32_t> ids = fixture.Ints("prompt_ids");
  const std::map<std::string, PolicyOverrides> scorers = {{"tova", {}}, {"observed_attention", {}}, {"streaming_llm", {}},
                                                          {"snapkv", {{"window", "16"}}}, {"expected_attention", {{"future", "64"}}},
                                                          {"knorm", {}}};
  for (auto [name, overrides] : scorers) {
    overrides.emplace_back("policy", "kvpress_" + name);
    overrides.emplace_back("ratio", "0.5");
    for (const BackendFactory& factory : Factories()) {
      Fed fed(factory, Tiny(overrides));
      ScoreRecorder recorder;
      fed.backend->SetTrace(&recorder);
      (void)fed.FeedAll(ids, ids.size(), 17);
      CHECK(MaxDifference(recorder.scores, fixture.Floats(name + ".scores")) <= 1e-4f);
      CHECK(recorder.kept == fixture.Bytes(name + ".kept"));
      std::vector<uint8_t> held;
      for (const HeadSnapshot& head : fed.Snapshots()) {
        const std::vector<uint8_t> mask = Mask(head.positions, ids.size());
        held.insert(held.end(), mask.begin(), mask.end());
      }
      CHECK(held == recorder.kept);
      // Decode is not pruned.
      (void)fed.Feed(ids, 0, 8, 0);
      CHECK(fed.Snapshots()[0].positions.size() == 48 + 8 && fed.backend->NextLiveSum(fed.chain) == 6 * (48 + 9));
    }
  }
}

// --- Laws ----------------------------------------------------------------------------------------------------------------------------

std::vector<PolicyOverrides> Policies() {
  return {{{"policy", "tova"}, {"budget", "20"}},
          {{"policy", "tova_kvhead"}, {"budget", "20"}},
          {{"policy", "h2o"}, {"budget", "20"}, {"recent", "3"}},
          {{"policy", "quest"}, {"budget", "16"}, {"page", "5"}, {"dense_layers", "1"}},
          {{"policy", "streaming_llm"}, {"budget", "20"}},
          {{"policy", "kvpress_tova"}, {"ratio", "0.3"}},
          {{"policy", "kvpress_observed_attention"}},
          {{"policy", "kvpress_streaming_llm"}, {"sinks", "2"}},
          {{"policy", "kvpress_snapkv"}, {"window", "7"}},
          {{"policy", "kvpress_expected_attention"}, {"future", "9"}},
          {{"policy", "kvpress_knorm"}}};
}

// Qwen3 under every KV type; Llama and Qwen2 (no q/k norm, other RoPE, biases) under one.
void BackendsAndBatchesGiveTheSameBytes() {
  const std::vector<int32_t> ids = Fixture(fixtures + "/dense_qwen3.safetensors").Ints("all_ids");
  const std::pair<const char*, KvType> cases[] = {
      {"tiny_qwen3", KvType::kF32}, {"tiny_qwen3", KvType::kBF16}, {"tiny_llama31", KvType::kF32}, {"tiny_qwen2", KvType::kF32}};
  for (const PolicyOverrides& overrides : Policies()) {
    for (const auto& [name, kv] : cases) {
      const auto model = Open(fixtures + "/models/" + name, overrides);
      BackendOptions options;
      options.kv = kv;
      Fed oracle(Factories()[0], model, options);
      const std::vector<float> logits = oracle.FeedAll(ids, 50, 1);
      const std::vector<HeadSnapshot> snapshots = oracle.Snapshots();
      for (const BackendFactory& factory : Factories()) {
        for (const size_t chunk : {size_t{17}, size_t{50}}) {
          options.threads = 2;
          Fed fed(factory, model, options);
          CHECK(SameBytes(fed.FeedAll(ids, 50, chunk, chunk == 17 ? 1 : 30), logits));
          CHECK(Same(fed.Snapshots(), snapshots));
        }
      }
    }
  }
}

void ForksGoTheirOwnWay() {
  const std::vector<int32_t> ids = Fixture(fixtures + "/dense_qwen3.safetensors").Ints("all_ids");
  std::vector<int32_t> other(ids.begin(), ids.begin() + 60);
  other.insert(other.end(), ids.begin(), ids.begin() + 30);
  for (const PolicyOverrides& overrides : Policies()) {
    const auto model = Tiny(overrides);
    for (const BackendFactory& factory : Factories()) {
      Fed alone(factory, model), mine(factory, model);
      (void)alone.FeedAll(other, 60, 60);
      (void)mine.Feed(ids, 0, 60, 60);
      const ChainId fork = Must(mine.backend->ForkChain(mine.chain));
      for (size_t t = 60; t < 90; ++t) {
        const Row rows[] = {{mine.chain, ids[t], false}, {fork, other[t], false}};
        CHECK_OK(mine.backend->Forward(rows, nullptr));
      }
      mine.backend->FreeChain(std::exchange(mine.chain, fork));
      CHECK(Same(mine.Snapshots(), alone.Snapshots()));
      mine.backend->FreeChain(fork);
      CHECK(mine.backend->Memory().kv_allocated_bytes == 0);
    }
  }
}

void ABudgetForAllIsDense() {
  const std::vector<int32_t> ids = Fixture(fixtures + "/dense_qwen3.safetensors").Ints("all_ids");
  for (const BackendFactory& factory : Factories()) {
    Fed dense(factory, Tiny({}));
    const std::vector<float> logits = dense.FeedAll(ids, 40, 40);
    const std::vector<HeadSnapshot> snapshots = dense.Snapshots();
    for (const char* policy : {"tova", "tova_kvhead", "h2o", "quest", "streaming_llm"}) {
      Fed fed(factory, Tiny({{"policy", policy}, {"budget", "128"}}));
      CHECK(SameBytes(fed.FeedAll(ids, 40, 40), logits));
      CHECK(Same(fed.Snapshots(), snapshots));
      CHECK(fed.backend->ReadSum(fed.chain) == 6 * 128 && fed.backend->LiveSum(fed.chain) == 6 * 128);
    }
  }
}

void StreamingKeepsSinksAndNewest() {
  const std::vector<int32_t> ids = Fixture(fixtures + "/dense_qwen3.safetensors").Ints("all_ids");
  for (const BackendFactory& factory : Factories()) {
    Fed fed(factory, Tiny({{"policy", "streaming_llm"}, {"budget", "11"}, {"sinks", "3"}}));
    (void)fed.Feed(ids, 0, 30, 30);
    for (size_t t = 30; t < 70; ++t) {
      (void)fed.Feed(ids, t, t + 1, 30);
      std::vector<int32_t> expected;
      for (int32_t p = 0; p <= static_cast<int32_t>(t); ++p) {
        if (p < 3 || p > static_cast<int32_t>(t) - 8) expected.push_back(p);
      }
      for (const HeadSnapshot& head : fed.Snapshots()) CHECK(head.positions == expected);
    }
    // Without sinks and without a prompt it is a sliding window, which DMS is when every token is evicted.
    const std::string directory = fixtures + "/models/tiny_qwen3_dms_separate";
    Fed streaming(factory, Open(directory, {{"policy", "streaming_llm"}, {"budget", "9"}, {"sinks", "0"}}));
    Fed window(factory, Open(directory, {{"window", "9"}, {"alpha_offset", "-1000000"}}));
    CHECK(SameBytes(streaming.FeedAll(ids, 0, 1), window.FeedAll(ids, 0, 1)));
  }
}

// --- Runs ----------------------------------------------------------------------------------------------------------------------------

RunReport RunJob(const BackendFactory& factory, const std::shared_ptr<const Model>& model, int64_t kv_read_budget, size_t prompt) {
  RunOptions options;
  for (size_t i = 0; i < prompt; ++i) options.prompt.push_back(static_cast<int32_t>(1 + i * 7 % 50));
  options.width = 2;
  options.lengths = {40, 40};
  options.seed = 5;
  options.kv_read_budget = kv_read_budget;
  options.prefill_chunk = 6;
  const std::shared_ptr<Backend> backend = Must(factory.make(model, {}));
  const auto run = Must(Run::Create(backend, model, options));
  CHECK_OK(run->Prefill());
  CHECK_OK(run->Step(1000));
  while (run->Report().running > 0 && CHECK_OK(run->Step(1000))) {
  }
  return run->Report();
}

int64_t Reads(const RunReport& report) { return report.chains[0].read_sum + report.chains[1].read_sum; }

void RunsSpendWhatTheyPlan() {
  for (const PolicyOverrides& overrides : Policies()) {
    const auto model = Open(models + "/countdown/dense", overrides);
    const bool quest = overrides[0].second == "quest", kvpress = overrides[0].second.starts_with("kvpress");
    const RunReport report = RunJob(Factories()[0], model, -1, 30);
    for (const BackendFactory& factory : Factories()) {
      const RunReport again = RunJob(factory, model, -1, 30);
      CHECK(again.chains[0].tokens == report.chains[0].tokens && again.chains[1].tokens == report.chains[1].tokens);
      CHECK(Reads(again) == Reads(report));
      // A budget of half the reads is not exceeded, and one more step would.
      const int64_t budget = Reads(report) / report.head_count / 2;
      const RunReport half = RunJob(factory, model, budget, 30);
      CHECK(Reads(half) <= budget * report.head_count && Reads(half) > (budget - 2 * 70) * report.head_count);
      CHECK(half.chains[0].finish == Finish::kBudget);
    }
    CHECK(report.chains[0].tokens != report.chains[1].tokens);
    CHECK(report.prefill_read_sum == 30 * 31 / 2 * report.head_count);
    for (const ChainReport& chain : report.chains) {
      CHECK(chain.tokens.size() == 40 && chain.fed == 69);
      if (quest) CHECK(chain.peak_sum == 69 * report.head_count && chain.read_sum < chain.dense_read_sum);
      if (!quest && !kvpress) CHECK(chain.read_sum == 39 * 21 * report.head_count && chain.peak_sum == 30 * report.head_count);
    }
  }
}

void BadParametersAreRefused() {
  const auto refused = [](const PolicyOverrides& overrides, const char* word) {
    const auto model = OpenModel(fixtures + "/models/tiny_qwen3", overrides);
    CHECK(!model.ok() && std::string(model.status().code) == kErrOption && model.status().message.find(word) != std::string::npos);
  };
  refused({{"policy", "dmc"}}, "dmc");
  refused({{"policy", "tova"}}, "budget");
  refused({{"policy", "tova"}, {"budget", "0"}}, "budget");
  refused({{"policy", "tova"}, {"budget", "8"}, {"budget", "8"}}, "twice");
  refused({{"policy", "tova"}, {"budget", "8"}, {"policy", "h2o"}}, "twice");
  refused({{"policy", "tova"}, {"budget", "8"}, {"window", "8"}}, "window");
  refused({{"policy", "h2o"}, {"budget", "8"}, {"recent", "9"}}, "recent");
  refused({{"policy", "streaming_llm"}, {"budget", "4"}}, "sinks");
  refused({{"policy", "quest"}, {"budget", "8"}}, "page");
  refused({{"policy", "kvpress_tova"}, {"ratio", "1"}}, "ratio");
  refused({{"policy", "kvpress_tova"}, {"ratio", "nan"}}, "ratio");
  refused({{"policy", "kvpress_snapkv"}, {"kernel", "4"}}, "kernel");
  refused({{"budget", "8"}}, "budget");
  refused({{"policy", "tov"}}, "policy");
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"TOVA and H2O keep the oracle's tokens at every step and give its logits", OnlineEvictionEqualsTheOracle},
      {"Quest scores and selects the oracle's pages and reads what it says", QuestEqualsTheOracle},
      {"kvpress scorers give the oracle's scores and keep its tokens", KvpressScorersEqualTheOracle},
      {"backends, chunks and batches give the same bytes under every baseline", BackendsAndBatchesGiveTheSameBytes},
      {"a fork under a baseline equals a chain of its own", ForksGoTheirOwnWay},
      {"a budget for every token is dense, byte for byte", ABudgetForAllIsDense},
      {"StreamingLLM keeps the sinks and the newest, and without sinks is a window", StreamingKeepsSinksAndNewest},
      {"runs under a baseline spend what they plan, on every backend the same", RunsSpendWhatTheyPlan},
      {"a baseline's parameter that is missing, unknown or absurd is refused", BadParametersAreRefused},
  });
}
