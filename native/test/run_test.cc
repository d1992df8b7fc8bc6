// Runs on the bundled countdown models: tokens and accounting of the published outputs, and that nothing but the job decides them.
// Every test runs on each backend that is linked. Usage: run_test FIXTURES_DIR MODELS_DIR
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "test/countdown.h"

namespace rum::test {
namespace {

// --- The published outputs -------------------------------------------------------------------------------------------------------

// Live keys of each (layer, KV head) at the last token fed.
class LastLive final : public TraceSink {
 public:
  explicit LastLive(const ModelConfig& config)
      : config_(config), live_(static_cast<size_t>(config.num_layers * config.num_kv_heads)) {}
  void OnToken(ChainId, int32_t layer, int32_t, const float*, const int32_t* live) override {
    std::copy_n(live, config_.num_kv_heads, live_.begin() + layer * config_.num_kv_heads);
  }
  const std::vector<int32_t>& live() const { return live_; }

 private:
  const ModelConfig& config_;
  std::vector<int32_t> live_;  // [num_layers * num_kv_heads]
};

void CheckPublished(simdjson::dom::element entry, const std::shared_ptr<const Model>& model,
                    const std::shared_ptr<Backend>& backend) {
  RunOptions options;
  options.prompt = GetInts(entry["prompt_ids"]);
  options.lengths = {model->config.max_positions - static_cast<int32_t>(options.prompt.size())};
  options.sampling.temperature = 0.0f;
  options.eos_ids = model->config.eos_ids;
  const auto run = Start(backend, model, options);
  LastLive trace(model->config);
  backend->SetTrace(&trace);
  const RunReport report = Finished(*run);
  backend->SetTrace(nullptr);

  const ChainReport& chain = report.chains[0];
  const double heads = report.head_count;
  CHECK(chain.tokens == GetInts(entry["generated_ids"]));
  CHECK(chain.finish == (Get<bool>(entry["finished"]) ? Finish::kStop : Finish::kLength));
  CHECK(static_cast<double>(chain.read_sum) / heads == Get<double>(entry["kv_reads"]));
  CHECK(static_cast<double>(chain.peak_sum) / heads == Get<double>(entry["peak_tokens"]));
  CHECK(static_cast<size_t>(chain.fed) == options.prompt.size() + chain.tokens.size() - 1);
  std::vector<int32_t> live;
  for (simdjson::dom::element layer : Get<simdjson::dom::array>(entry["live_counts_final"])) {
    const std::vector<int32_t> heads_live = GetInts(std::move(layer));
    live.insert(live.end(), heads_live.begin(), heads_live.end());
  }
  CHECK(trace.live() == live);
  CHECK(chain.live_sum == std::accumulate(live.begin(), live.end(), int64_t{0}));
  double prefill_reads = 0.0;
  size_t position = 0;
  for (simdjson::dom::element mean : Get<simdjson::dom::array>(entry["live_mean_by_position"])) {
    if (position++ < options.prompt.size()) prefill_reads += Get<double>(std::move(mean));
  }
  CHECK(static_cast<double>(report.prefill_read_sum) / heads == prefill_reads);
}

void PublishedOutputs() {
  const JsonFile json(models + "/countdown/reference_outputs.json");
  for (const auto& [variant, key] : {std::pair{"dense", "countdown-0.8m"}, std::pair{"cr2", "countdown-0.8m-dms-cr2"},
                                     std::pair{"cr4", "countdown-0.8m-dms-cr4"}, std::pair{"cr8", "countdown-0.8m-dms-cr8"}}) {
    const auto entries = Get<simdjson::dom::array>(json.root()["checkpoints"][key]);
    CHECK(entries.size() >= 8);
    OnEach(variant, [&](const auto& model, const auto& backend) {
      for (simdjson::dom::element entry : entries) {
        // The one of 1015 tokens takes the oracle longer than all others together: the fastest backend here does it.
        const bool is_long = Get<simdjson::dom::array>(entry["generated_ids"]).size() > 300;
        if (!is_long || backend->name() == std::string_view(Factories().back().name)) CheckPublished(entry, model, backend);
      }
    });
  }
}

// --- Nothing but the job decides -------------------------------------------------------------------------------------------------

void StepsAndChunksChangeNothing() {
  OnEach("cr4", [](const auto& model, const auto& backend) {
    RunOptions options = Job(4, 40);
    const RunReport whole = RunJob(backend, model, options);
    CHECK(whole.running == 0 && whole.step > 20);
    CHECK(Same(whole, Finished(*Start(backend, model, options), 1)));
    CHECK(Same(whole, Finished(*Start(backend, model, options), 7)));
    for (const int32_t chunk : {1, 7}) {
      options.prefill_chunk = chunk;
      CHECK(Same(whole, RunJob(backend, model, options)));
    }
    CHECK(backend->Memory().kv_allocated_bytes == 0);
  });
}

void WidthAndShardsChangeNoChain() {
  OnEach("cr8", [](const auto& model, const auto& backend) {
    const RunOptions options = Job(8, 30);
    const RunReport whole = RunJob(backend, model, options);
    CHECK(whole.chains[0].tokens != whole.chains[1].tokens);
    for (const int32_t width : {1, 2, 3}) {
      for (int32_t first = 0; first + width <= 8; first += 2) {
        RunOptions shard = options;
        shard.width = width;
        shard.first_chain = first;
        shard.lengths.assign(options.lengths.begin() + first, options.lengths.begin() + first + width);
        const RunReport report = RunJob(backend, model, shard);
        CHECK(report.prefill_read_sum == whole.prefill_read_sum);
        for (int32_t i = 0; i < width; ++i) {
          CHECK(Same(report.chains[static_cast<size_t>(i)], whole.chains[static_cast<size_t>(first + i)]));
        }
      }
    }
  });
}

void BackendsReportTheSame() {
  for (const char* variant : {"dense", "cr8"}) {
    const auto model = Open(models + "/countdown/" + variant);
    BackendOptions options;
    options.page_slots = 4;
    RunOptions job = Job(3, 20);
    while (job.prompt.size() < 60) job.prompt.insert(job.prompt.end(), kPrompt.begin(), kPrompt.end());
    for (const KvType kv : {KvType::kF32, KvType::kBF16}) {
      options.kv = kv;
      const RunReport expected = RunJob(Must(MakeReferenceBackend(model, options)), model, job);
      CHECK(expected.shared_sum > 0 && expected.shared_sum % 4 == 0);
      for (const BackendFactory& factory : Factories()) {
        CHECK(Same(RunJob(Must(factory.make(model, options)), model, job), expected));
      }
    }
  }
}

// --- Budgets ---------------------------------------------------------------------------------------------------------------------

int64_t TotalReads(const RunReport& report) {
  return std::accumulate(report.chains.begin(), report.chains.end(), int64_t{0},
                         [](int64_t sum, const ChainReport& chain) { return sum + chain.read_sum; });
}

void BudgetIsExact() {
  OnEach("cr4", [](const auto& model, const auto& backend) {
    RunOptions options = Job(3, 30);
    const auto free_run = Start(backend, model, options);
    std::vector<RunReport> by_step = {free_run->Report()};
    while (by_step.back().running > 0) {
      CHECK_OK(free_run->Step(1));
      by_step.push_back(free_run->Report());
    }
    const int64_t total = TotalReads(by_step.back()), heads = by_step[0].head_count;
    const int64_t mean = total / heads;
    for (const int64_t budget : {int64_t{0}, int64_t{1}, int64_t{27}, mean / 3, mean - 1, mean + 1, INT64_MAX}) {
      options.kv_read_budget = budget;
      const RunReport report = RunJob(backend, model, options);
      // The last step whose reads still fit; the one after it samples its tokens and is not fed.
      size_t fits = 0;
      while (fits + 1 < by_step.size() && (TotalReads(by_step[fits + 1]) + heads - 1) / heads <= budget) ++fits;
      CHECK(TotalReads(report) == TotalReads(by_step[fits]));
      const bool stopped = fits + 1 < by_step.size();
      CHECK(report.step == by_step[fits + stopped].step);
      for (size_t i = 0; i < report.chains.size(); ++i) {
        const ChainReport& ours = report.chains[i];
        const ChainReport& free = by_step[fits + stopped].chains[i];
        CHECK(ours.tokens == free.tokens);
        CHECK(ours.finish == (free.finish == Finish::kNone ? Finish::kBudget : free.finish));
      }
    }
  });
}

void LengthsCountGeneratedTokens() {
  OnEach("dense", [](const auto& model, const auto& backend) {
    RunOptions options = Job(3, 1);
    options.lengths = {1, 2, 9};
    options.eos_ids = {};
    const RunReport report = RunJob(backend, model, options);
    const auto prompt = static_cast<int64_t>(options.prompt.size());
    for (size_t i = 0; i < 3; ++i) {
      const ChainReport& chain = report.chains[i];
      const int64_t fed = options.lengths[i] - 1;
      CHECK(chain.tokens.size() == static_cast<size_t>(options.lengths[i]) && chain.finish == Finish::kLength);
      CHECK(chain.fed == prompt + fed && chain.live_sum == (prompt + fed) * report.head_count && chain.peak_sum == chain.live_sum);
      CHECK(chain.read_sum == (fed * prompt + fed * (fed + 1) / 2) * report.head_count && chain.dense_read_sum == chain.read_sum);
    }
    CHECK(report.prefill_read_sum == prompt * (prompt + 1) / 2 * report.head_count);
    CHECK(report.step == 9);
  });
}

// --- Interruptions ---------------------------------------------------------------------------------------------------------------

void CancelledRunsGoOn() {
  OnEach("cr8", [](const auto& model, const auto& backend) {
    RunOptions options = Job(3, 30);
    options.prefill_chunk = 2;
    const RunReport whole = RunJob(backend, model, options);
    int cancels = 0;
    const auto hooked = std::make_shared<HookedBackend>(backend);
    const auto run = Must(Run::Create(hooked, model, options));
    // A cancel that arrives while a batch is being fed takes effect before the next one.
    hooked->before_forward = [&] {
      run->RequestCancel();
      return Status::Ok();
    };
    const auto go_on = [&](const Status& status) {
      CHECK(status.ok() || Has(status, kErrCancelled));
      cancels += !status.ok();
      run->ClearCancel();
      return !status.ok();
    };
    while (go_on(run->Prefill())) CHECK(!run->Report().prefilled);
    while (run->Report().running > 0) go_on(run->Step(1000));
    CHECK(Same(whole, run->Report()));
    CHECK(cancels > 20);
  });
}

void ABackendErrorSticks() {
  OnEach("dense", [](const auto& model, const auto& backend) {
    for (const int fail_at : {0, 1, 5}) {
      const auto hooked = std::make_shared<HookedBackend>(backend);
      int forwards = 0;
      hooked->before_forward = [&] { return forwards++ == fail_at ? Error(kErrNumerics, "not finite") : Status::Ok(); };
      const auto run = Must(Run::Create(hooked, model, Job(2, 30)));
      Status status = run->Prefill();
      if (status.ok()) status = run->Step(100);
      CHECK(Has(status, kErrNumerics));
      CHECK(Has(run->Step(1), kErrNumerics) && Has(run->Prefill(), kErrNumerics));
      CHECK(forwards == fail_at + 1);
    }
    CHECK(backend->Memory().kv_allocated_bytes == 0);
  });
}

void EndingChainsLeavesTheOthers() {
  OnEach("cr4", [](const auto& model, const auto& backend) {
    const RunOptions options = Job(4, 30);
    const RunReport whole = RunJob(backend, model, options);
    const auto run = Must(Run::Create(backend, model, options));
    run->EndChains({3, 99, -1});
    CHECK_OK(run->Prefill());
    CHECK_OK(run->Step(5));
    const int64_t bytes = backend->Memory().kv_allocated_bytes;
    run->EndChains({0});
    CHECK(backend->Memory().kv_allocated_bytes < bytes);
    const RunReport report = Finished(*run);
    CHECK(report.chains[0].finish == Finish::kEnded && report.chains[0].tokens.size() == 5 && report.chains[0].read_sum > 0);
    CHECK(report.chains[3].finish == Finish::kEnded && report.chains[3].tokens.empty());
    CHECK(Same(report.chains[1], whole.chains[1]) && Same(report.chains[2], whole.chains[2]));
    const auto all_ended = Must(Run::Create(backend, model, options));
    all_ended->EndChains({0, 1, 2, 3});
    CHECK_OK(all_ended->Prefill());
    CHECK_OK(all_ended->Step(1));
    CHECK(backend->Memory().kv_allocated_bytes == 0);
  });
}

// --- Stop strings and refusals ---------------------------------------------------------------------------------------------------

void StopStringsCrossTokenBorders() {
  OnEach("cr2", [](const auto& model, const auto& backend) {
    RunOptions options = Job(2, 60);
    options.eos_ids = {};
    const std::vector<int32_t> tokens = RunJob(backend, model, options).chains[1].tokens;
    std::vector<std::string> pieces;
    for (int32_t id = 0; id < model->config.vocab_size; ++id) pieces.push_back("<" + std::to_string(id) + ">");
    const auto text_of = [&](size_t n) {
      std::string text;
      for (size_t i = 0; i < n; ++i) text += pieces[static_cast<size_t>(tokens[i])];
      return text;
    };
    // From the middle of token 20 to the middle of token 23, and one that never comes.
    const std::string wanted = text_of(24).substr(text_of(20).size() + 1, text_of(23).size() - text_of(20).size());
    options.stop = {"<<", wanted};
    options.pieces = std::make_shared<const std::vector<std::string>>(pieces);
    const ChainReport chain = RunJob(backend, model, options).chains[1];
    CHECK(chain.finish == Finish::kStop);
    CHECK(chain.stop_bytes == static_cast<int32_t>(text_of(tokens.size()).find(wanted)));
    CHECK(chain.tokens.size() <= 24 && std::ranges::equal(chain.tokens, std::span(tokens).first(chain.tokens.size())));
    CHECK(text_of(chain.tokens.size()).find(wanted) != std::string::npos);
    CHECK(text_of(chain.tokens.size() - 1).find(wanted) == std::string::npos);
  });
}

void BadOptionsAreRefused() {
  OnEach("dense", [](const auto& model, const auto& backend) {
    const auto create = [&](const std::function<void(RunOptions&)>& change) {
      RunOptions options = Job(2, 10);
      change(options);
      return Run::Create(backend, model, options).status();
    };
    CHECK_OK(create([](RunOptions&) {}));
    CHECK(Has(create([](RunOptions& o) { o.prompt.clear(); }), kErrOption));
    CHECK(Has(create([](RunOptions& o) { o.prompt[3] = 128; }), kErrOption));
    CHECK(Has(create([](RunOptions& o) { o.prompt[3] = -1; }), kErrOption));
    CHECK(Has(create([](RunOptions& o) { o.width = 0; }), kErrOption));
    CHECK(Has(create([](RunOptions& o) { o.width = kRunWidthMax + 1; }), kErrOption));
    CHECK(Has(create([](RunOptions& o) { o.lengths = {5}; }), kErrOption));
    CHECK(Has(create([](RunOptions& o) { o.lengths[1] = 0; }), kErrOption));
    CHECK_OK(create([](RunOptions& o) { o.lengths[1] = 1024 - 9; }));
    CHECK(Has(create([](RunOptions& o) { o.lengths[1] = 1024 - 8; }), kErrPromptTooLong));
    CHECK(Has(create([](RunOptions& o) { o.prompt.resize(2000); }), kErrPromptTooLong));
    CHECK(Has(create([](RunOptions& o) { o.first_chain = INT32_MAX; }), kErrOption));
    CHECK(Has(create([](RunOptions& o) { o.kv_read_budget = -2; }), kErrOption));
    CHECK(Has(create([](RunOptions& o) { o.prefill_chunk = 0; }), kErrOption));
    CHECK(Has(create([](RunOptions& o) { o.logprobs = 21; }), kErrOption));
    CHECK(Has(create([](RunOptions& o) { o.stop = {"x"}; }), kErrOption));
    CHECK(Has(create([](RunOptions& o) { o.sampling.top_p = 0.0f; }), kErrOption));
    const auto run = Must(Run::Create(backend, model, Job(1, 5)));
    CHECK(Has(run->Step(1), kErrOption));
  });
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"greedy runs give the published tokens, live counts, KV reads and peaks", PublishedOutputs},
      {"the size of steps and prefill chunks changes no token and no number", StepsAndChunksChangeNothing},
      {"a chain is the same at any width and in any shard", WidthAndShardsChangeNoChain},
      {"every backend reports the same tokens and the same accounting", BackendsReportTheSame},
      {"a KV-read budget is never exceeded and used up to the last whole step", BudgetIsExact},
      {"G generated tokens are G - 1 reads, and the last is never fed", LengthsCountGeneratedTokens},
      {"a run cancelled between all batches goes on as if it never was", CancelledRunsGoOn},
      {"an error of the backend sticks to its run and leaks no KV", ABackendErrorSticks},
      {"ending chains frees their KV and leaves the others as they were", EndingChainsLeavesTheOthers},
      {"stop strings match across token borders and report where the text ends", StopStringsCrossTokenBorders},
      {"an option out of range is refused before anything runs", BadOptionsAreRefused},
  });
}
