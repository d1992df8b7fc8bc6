// Runs of one backend that share their Forwards: none of them can tell. On the bundled countdown models and each backend that is linked.
// Usage: batch_test FIXTURES_DIR MODELS_DIR
#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/geometry.h"
#include "run/batch.h"
#include "test/backends.h"
#include "test/check.h"
#include "test/fixture.h"
#include "test/vault.h"

namespace rum::test {
namespace {


const std::vector<int32_t> kPrompt = {1, 6, 28, 39, 38, 28, 8, 56, 4};  // "<s> user 7 18 17 7 target 35 <think>"

RunOptions Job(uint64_t seed, int32_t width, int32_t length) {
  RunOptions o;
  o.prompt = kPrompt;
  o.prompt.insert(o.prompt.end() - 1, seed % 5, static_cast<int32_t>(30 + seed % 7));  // prompts of many lengths
  o.width = width;
  for (int32_t i = 0; i < width; ++i) o.lengths.push_back(length + 5 * i);
  o.seed = seed;
  o.sampling.temperature = seed % 2 == 0 ? 0.0f : 1.1f;
  o.sampling.top_p = 0.97f;
  o.eos_ids = {2};
  o.prefill_chunk = 3;
  return o;
}

RunReport Alone(const std::shared_ptr<Backend>& backend, const std::shared_ptr<const Model>& model, const RunOptions& options) {
  auto run = Must(Run::Create(backend, model, options));
  CHECK_OK(run->Prefill());
  while (run->Report().running > 0) CHECK_OK(run->Step(1000));
  return run->Report();
}

// A run with the call that it is in; after the prefill it steps `stride` at a time, until no chain is left.
struct Rider {
  std::unique_ptr<Run> run;
  int32_t stride;
  RunCall call;
  Rider(std::unique_ptr<Run> run_in, int32_t stride_in) : run(std::move(run_in)), stride(stride_in), call(RunCall::Prefill(*run)) {}
  // false: it has nothing left to do, or failed.
  bool Renew() {
    if (call.done() && call.status().ok() && run->Report().running > 0) call = RunCall::Step(*run, stride);
    return !call.done();
  }
};

// Rides to the end of all that have come; `before` is called before each Advance with its number.
void Ride(Batch& batch, std::vector<std::unique_ptr<Rider>>& riders, const std::function<void(int)>& before = [](int) {}) {
  for (int n = 0; n < 100000; ++n) {
    before(n);
    std::vector<RunCall*> calls;
    for (auto& rider : riders) {
      if (rider->Renew()) calls.push_back(&rider->call);
    }
    if (calls.empty()) return;
    batch.Advance(calls);
  }
  CHECK(false);
}

using Body = std::function<void(const std::shared_ptr<const Model>&, const std::shared_ptr<Backend>&)>;

void OnEach(const Body& body) {
  for (const char* variant : {"dense", "cr8"}) {
    const auto model = Open(models + "/countdown/" + variant);
    for (const BackendFactory& factory : Factories()) {
      const int failed_before = failed_checks;
      body(model, Must(factory.make(model, {})));
      if (failed_checks > failed_before) std::printf("    on %s with %s\n", variant, factory.name);
    }
  }
}

int32_t LengthFor(const Backend& backend) { return std::string_view(backend.name()) == "reference" ? 24 : 120; }

void CompanyChangesNothing() {
  OnEach([](const auto& model, const auto& backend) {
    const int32_t length = LengthFor(*backend);
    std::vector<RunOptions> jobs;
    for (uint64_t seed = 0; seed < 6; ++seed) jobs.push_back(Job(seed, 1 + static_cast<int32_t>(seed % 3), length + static_cast<int32_t>(seed)));
    Batch batch(backend, model->config.vocab_size);
    std::vector<std::unique_ptr<Rider>> riders;
    // They come one after another, so that prompts are fed beside tokens, and leave at different times.
    Ride(batch, riders, [&](int n) {
      const auto next = static_cast<size_t>(n / 4);
      if (n % 4 == 0 && next < jobs.size()) riders.push_back(std::make_unique<Rider>(Must(Run::Create(backend, model, jobs[next])), 1 + n % 7));
    });
    for (size_t i = 0; i < jobs.size(); ++i) CHECK(Same(riders[i]->run->Report(), Alone(backend, model, jobs[i])));
  });
}

void WhoIsCancelledLeavesTheOthersAloneAndGoesOnLater() {
  OnEach([](const auto& model, const auto& backend) {
    const int32_t length = LengthFor(*backend);
    Batch batch(backend, model->config.vocab_size);
    std::vector<std::unique_ptr<Rider>> riders;
    for (uint64_t seed = 0; seed < 3; ++seed) riders.push_back(std::make_unique<Rider>(Must(Run::Create(backend, model, Job(seed, 2, length))), 50));
    Ride(batch, riders, [&](int n) {
      if (n == 9) riders[1]->run->RequestCancel();
    });
    CHECK(std::string_view(riders[1]->call.status().code) == kErrCancelled);
    CHECK(riders[1]->run->Report().running == 2);
    for (const size_t i : {size_t{0}, size_t{2}}) CHECK(Same(riders[i]->run->Report(), Alone(backend, model, Job(i, 2, length))));
    riders[1]->run->ClearCancel();
    while (riders[1]->run->Report().running > 0) CHECK_OK(riders[1]->run->Step(7));
    CHECK(Same(riders[1]->run->Report(), Alone(backend, model, Job(1, 2, length))));
  });
}

void ABudgetIsItsJobsOwn() {
  OnEach([](const auto& model, const auto& backend) {
    RunOptions tight = Job(1, 2, LengthFor(*backend));
    tight.kv_read_budget = 400;
    Batch batch(backend, model->config.vocab_size);
    std::vector<std::unique_ptr<Rider>> riders;
    riders.push_back(std::make_unique<Rider>(Must(Run::Create(backend, model, Job(0, 3, LengthFor(*backend)))), 9));
    riders.push_back(std::make_unique<Rider>(Must(Run::Create(backend, model, tight)), 9));
    Ride(batch, riders);
    CHECK(riders[1]->run->Report().chains[0].finish == Finish::kBudget);
    CHECK(Same(riders[1]->run->Report(), Alone(backend, model, tight)));
    CHECK(Same(riders[0]->run->Report(), Alone(backend, model, Job(0, 3, LengthFor(*backend)))));
  });
}

// Its tokens since the last delta are fed again while others generate.
void ARestoredRunCatchesUpInCompany() {
  for (const char* variant : {"dense", "cr8"}) {
    const auto model = Open(models + "/countdown/" + variant);
    const std::shared_ptr<Backend> backend = Must(MakeCpuBackend(model, {}));
    RunOptions options = Job(3, 3, 120);
    options.checkpointed = true;
    const RunReport whole = Alone(backend, model, options);
    Vault vault(LayoutIdOf(GeometryOf(model->config, {})));
    {
      auto run = Must(Run::Create(backend, model, options));
      CHECK_OK(run->Prefill());
      CHECK_OK(run->Step(20));
      vault.Save(*run, true, 3);
      CHECK_OK(run->Step(25));
      vault.Save(*run, false, 3);
    }
    Batch batch(backend, model->config.vocab_size);
    std::vector<std::unique_ptr<Rider>> riders;
    riders.push_back(std::make_unique<Rider>(Must(Run::Create(backend, model, Job(0, 2, 90))), 11));
    riders.push_back(std::make_unique<Rider>(Must(Run::Restore(backend, model, options, vault.Plan(3))), 9));
    Ride(batch, riders);
    CHECK(riders[1]->run->Report().caught_up > 0);
    for (size_t c = 0; c < 3; ++c) CHECK(Same(riders[1]->run->Report().chains[c], whole.chains[c]));
    CHECK(Same(riders[0]->run->Report(), Alone(backend, model, Job(0, 2, 90))));
  }
}

void WhoseLogitsAreNotFiniteFailsAlone() {
  OnEach([](const auto& model, const auto& backend) {
    auto hooked = std::make_shared<HookedBackend>(backend);
    Batch batch(hooked, model->config.vocab_size);
    std::vector<std::unique_ptr<Rider>> riders;
    for (uint64_t seed = 0; seed < 3; ++seed) riders.push_back(std::make_unique<Rider>(Must(Run::Create(hooked, model, Job(seed, 1, 20))), 50));
    hooked->after_forward = [&, n = 0](std::span<const Row> rows, float* logits) mutable {
      if (++n != 15 || rows.size() != 3) return Status::Ok();
      logits[static_cast<size_t>(model->config.vocab_size) + 2] = std::numeric_limits<float>::quiet_NaN();  // of the second run
      return Error(kErrNumerics, "not finite");
    };
    Ride(batch, riders);
    CHECK(std::string_view(riders[1]->call.status().code) == kErrNumerics);
    for (const size_t i : {size_t{0}, size_t{2}}) CHECK(Same(riders[i]->run->Report(), Alone(backend, model, Job(i, 1, 20))));
    const Status again = riders[1]->run->Step(1);
    CHECK(!again.ok() && std::string_view(again.code) == kErrNumerics);
  });
}

void MemoryThatRunsOutInCompanyCutsNobodyShort() {
  OnEach([](const auto& model, const auto& backend) {
    auto hooked = std::make_shared<HookedBackend>(backend);
    Batch batch(hooked, model->config.vocab_size);
    std::vector<std::unique_ptr<Rider>> riders;
    for (uint64_t seed = 0; seed < 2; ++seed) riders.push_back(std::make_unique<Rider>(Must(Run::Create(hooked, model, Job(seed, 1, 20))), 50));
    hooked->before_forward = [n = 0]() mutable { return ++n == 10 ? Error(kErrMemory, "none left") : Status::Ok(); };
    Ride(batch, riders);
    for (const auto& rider : riders) {
      CHECK(std::string_view(rider->call.status().code) == kErrMemory);
      CHECK(rider->run->Report().chains[0].finish == Finish::kNone);
    }
  });
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"runs that share their steps generate what each would alone", CompanyChangesNothing},
      {"a run that is cancelled leaves the others alone, and goes on later", WhoIsCancelledLeavesTheOthersAloneAndGoesOnLater},
      {"a budget is its job's own", ABudgetIsItsJobsOwn},
      {"a restored run catches up in company", ARestoredRunCatchesUpInCompany},
      {"a run whose logits are not finite fails alone", WhoseLogitsAreNotFiniteFailsAlone},
      {"memory that runs out in company cuts nobody short", MemoryThatRunsOutInCompanyCutsNobodyShort},
  });
}
