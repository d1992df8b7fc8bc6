// Where a run ends: EOS lists, a budget met exactly, memory that runs out, logits that are not numbers; and what is kept then.
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <string_view>

#include "cache/page_pool.h"
#include "run/run.h"
#include "test/backends.h"
#include "test/check.h"
#include "test/synthetic.h"

namespace rum::test {
namespace {

ModelConfig SmallConfig() {
  ModelConfig c;
  c.model_type = "qwen3";
  c.vocab_size = 40;
  c.hidden_size = 32;
  c.intermediate_size = 48;
  c.num_layers = 2;
  c.num_heads = 2;
  c.num_kv_heads = 2;
  c.head_dim = 16;
  c.max_positions = 400;
  c.qk_norm = true;
  return c;
}

std::shared_ptr<const Model> SmallModel() { return MakeSynthetic(SmallConfig(), DType::kF32, 5); }

RunOptions Options(int32_t width, int32_t length) {
  RunOptions o;
  o.prompt = {1, 2, 3, 4, 5, 6, 7};
  o.width = width;
  o.lengths.assign(static_cast<size_t>(width), length);
  o.seed = 3;
  return o;
}

struct Started {
  std::shared_ptr<Backend> backend;
  std::unique_ptr<Run> run;
};

Started Start(const std::shared_ptr<const Model>& model, std::shared_ptr<Backend> backend, RunOptions options) {
  auto run = Run::Create(backend, model, std::move(options));
  CHECK_OK(run.status());
  return {std::move(backend), std::move(*run)};
}

std::shared_ptr<Backend> Cpu(const std::shared_ptr<const Model>& model) {
  BackendOptions options;
  options.page_slots = 4;
  auto backend = MakeCpuBackend(model, options);
  CHECK_OK(backend.status());
  return std::move(*backend);
}

RunReport RunToEnd(const std::shared_ptr<const Model>& model, std::shared_ptr<Backend> backend, RunOptions options) {
  const Started s = Start(model, std::move(backend), std::move(options));
  CHECK_OK(s.run->Prefill());
  while (s.run->Report().running > 0 && CHECK_OK(s.run->Step(1000))) {
  }
  return s.run->Report();
}

void EveryIdOfAnEosListEndsAChain() {
  const auto model = SmallModel();
  const RunReport whole = RunToEnd(model, Cpu(model), Options(1, 60));
  const std::vector<int32_t>& tokens = whole.chains[0].tokens;
  CHECK(tokens.size() == 60);
  const int32_t last = tokens[40];
  const auto first_seen = static_cast<size_t>(std::find(tokens.begin(), tokens.end(), last) - tokens.begin());
  const int32_t absent = [&] {
    int32_t id = 0;
    while (std::find(tokens.begin(), tokens.end(), id) != tokens.end()) ++id;
    return id;
  }();
  for (const auto& eos : {std::vector<int32_t>{absent, last}, std::vector<int32_t>{last, absent}}) {
    RunOptions o = Options(1, 60);
    o.eos_ids = eos;
    const RunReport report = RunToEnd(model, Cpu(model), o);
    CHECK(report.chains[0].finish == Finish::kStop);
    CHECK(report.chains[0].tokens == std::vector<int32_t>(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(first_seen) + 1));
  }
}

void ABudgetMetExactlyIsSpentWhole() {
  const auto model = SmallModel();
  const RunReport whole = RunToEnd(model, Cpu(model), Options(2, 30));
  // Dense: the reads of n fed steps are whole numbers, so the budget can equal the need.
  int64_t need = 0;
  for (int64_t step = 1; step <= 20; ++step) need += 2 * (7 + step);
  for (const int64_t short_by : {0, 1}) {
    RunOptions o = Options(2, 30);
    o.kv_read_budget = need - short_by;
    const RunReport report = RunToEnd(model, Cpu(model), o);
    for (size_t c = 0; c < 2; ++c) {
      CHECK(report.chains[c].finish == Finish::kBudget);
      CHECK(report.chains[c].tokens.size() == static_cast<size_t>(21 - short_by));
      CHECK(report.chains[c].fed == 7 + 20 - short_by);
      CHECK(std::equal(report.chains[c].tokens.begin(), report.chains[c].tokens.end(), whole.chains[c].tokens.begin()));
    }
  }
}

void ThePeakCountsThePrompt() {
  const auto model = SmallModel();
  const RunReport report = RunToEnd(model, Cpu(model), Options(2, 1));
  for (const ChainReport& chain : report.chains) CHECK(chain.peak_sum == 7 * report.head_count && chain.read_sum == 0);
}

void AMemoryLimitCutsAndKeepsWhatWasThought() {
  const auto model = SmallModel();
  const RunReport whole = RunToEnd(model, Cpu(model), Options(3, 200));
  const auto backend = Cpu(model);
  RunOptions o = Options(3, 200);
  o.memory_limit_bytes = 200000;
  const RunReport report = RunToEnd(model, backend, o);
  for (size_t c = 0; c < 3; ++c) {
    const ChainReport& chain = report.chains[c];
    CHECK(chain.finish == Finish::kMemory);
    CHECK(chain.tokens.size() > 20 && chain.tokens.size() < 200);
    CHECK(std::equal(chain.tokens.begin(), chain.tokens.end(), whole.chains[c].tokens.begin()));
    CHECK(chain.fed == 7 + static_cast<int32_t>(chain.tokens.size()) - 1);
  }
  CHECK(backend->Memory().kv_allocated_bytes == 0);
}

// Out of memory in its Forward number `fail_at`.
std::shared_ptr<Backend> Failing(std::shared_ptr<Backend> inner, int32_t fail_at) {
  auto hooked = std::make_shared<HookedBackend>(std::move(inner));
  hooked->before_forward = [left = fail_at]() mutable { return left-- == 0 ? Error(kErrMemory, "none left") : Status::Ok(); };
  return hooked;
}

void MemoryThatRunsOutCutsAStepAndFailsAPrefill() {
  const auto model = SmallModel();
  const RunReport whole = RunToEnd(model, Cpu(model), Options(2, 30));
  const auto inner = Cpu(model);
  const RunReport report = RunToEnd(model, Failing(inner, 11), Options(2, 30));
  for (size_t c = 0; c < 2; ++c) {
    CHECK(report.chains[c].finish == Finish::kMemory);
    CHECK(report.chains[c].tokens.size() == 11);  // the prompt, ten steps fed, and the token whose feeding failed
    CHECK(std::equal(report.chains[c].tokens.begin(), report.chains[c].tokens.end(), whole.chains[c].tokens.begin()));
  }
  CHECK(inner->Memory().kv_allocated_bytes == 0);
  const Started s = Start(model, Failing(Cpu(model), 0), Options(2, 30));
  const Status status = s.run->Prefill();
  CHECK(!status.ok() && std::string_view(status.code) == kErrMemory);
}

void LogitsThatAreNotNumbersAreRefused() {
  const auto owner = SmallModel();  // keeps the other tensors
  const auto model = std::make_shared<Model>(*owner);
  std::vector<float> huge(static_cast<size_t>(model->config.vocab_size) * 32, 3e38f);
  model->lm_head.data = huge.data();
  for (const bool reference : {true, false}) {
    auto backend = reference ? MakeReferenceBackend(model, {}) : MakeCpuBackend(model, {});
    CHECK_OK(backend.status());
    const Started s = Start(model, std::shared_ptr<Backend>(std::move(*backend)), Options(1, 5));
    const Status status = s.run->Prefill();
    CHECK(!status.ok() && std::string_view(status.code) == kErrNumerics);
  }
}

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

void AFreedPageGivesItsMemoryBackWhileItsNeighboursLive() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return;  // resident bytes are the sanitizer's own
#endif
  if (ResidentBytes() == 0) return;  // no /proc
  constexpr int64_t kPageBytes = 16384, kPages = 4000;
  PagePool pool(kPageBytes);
  const int64_t before = ResidentBytes();
  std::vector<uint8_t*> pages;
  for (int64_t i = 0; i < kPages; ++i) {
    pages.push_back(pool.Allocate());
    std::fill_n(pages.back(), kPageBytes, uint8_t{1});
  }
  const int64_t full = ResidentBytes() - before;
  CHECK(full >= kPages * kPageBytes * 9 / 10);
  for (size_t i = 0; i < pages.size(); i += 2) pool.Release(pages[i]);
  CHECK(ResidentBytes() - before < full * 6 / 10);
  for (size_t i = 1; i < pages.size(); i += 2) pool.Release(pages[i]);
  CHECK(pool.allocated_bytes() == 0 && ResidentBytes() - before < full / 10);
}

void PagesKeptAtHandAreFewAndZeroed() {
  constexpr int64_t kPageBytes = 16384, kPages = 1000;
  PagePool pool(kPageBytes);
  std::vector<uint8_t*> pages;
  for (int64_t i = 0; i < kPages; ++i) {
    pages.push_back(pool.Allocate());
    std::fill_n(pages.back(), kPageBytes, uint8_t{1});
  }
  CHECK(pool.reserved_bytes() == 0);
  pool.Release(pages);
  CHECK(pool.allocated_bytes() == 0 && pool.reserved_bytes() == PagePool::kReserveBytes);
  for (uint8_t*& page : pages) {
    page = pool.Allocate();
    CHECK(std::all_of(page, page + kPageBytes, [](uint8_t byte) { return byte == 0; }));
  }
  CHECK(pool.allocated_bytes() == kPages * kPageBytes && pool.reserved_bytes() == 0);
  pool.Release(pages);
}

}  // namespace
}  // namespace rum::test

int main() {
  using namespace rum::test;
  return RunAll({
      {"every id of an EOS list ends a chain", EveryIdOfAnEosListEndsAChain},
      {"a budget that equals the need of n steps runs all n", ABudgetMetExactlyIsSpentWhole},
      {"the peak counts the prompt", ThePeakCountsThePrompt},
      {"a memory limit cuts the chains and keeps their tokens", AMemoryLimitCutsAndKeepsWhatWasThought},
      {"memory that runs out cuts a step as a budget does, and fails a prefill", MemoryThatRunsOutCutsAStepAndFailsAPrefill},
      {"logits that are not finite are refused on both backends", LogitsThatAreNotNumbersAreRefused},
      {"a freed page gives its memory back while its neighbours live", AFreedPageGivesItsMemoryBackWhileItsNeighboursLive},
      {"pages kept at hand are few and zeroed", PagesKeptAtHandAreFewAndZeroed},
  });
}
