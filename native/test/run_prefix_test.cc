// Jobs whose prompt begins as a chain of another job did: as if all of it had been fed at once, in every bit and counter.
// Usage: run_prefix_test FIXTURES_DIR MODELS_DIR
#include "test/vault.h"

namespace rum::test {
namespace {


std::vector<Setting> Settings() {
  BackendOptions small;
  small.page_slots = 4;
  return {{fixtures + "/models/tiny_qwen3_dms", {}, small}, {fixtures + "/models/tiny_qwen3_dms_separate", {}, small}, {fixtures + "/models/tiny_qwen3", {}, small}};
}

struct Said {
  RunOptions job;
  Vault vault;
  RunReport report;
};

// Two chains, cut at their prompt's end, at 9 tokens and at their ends.
Said Conversation(const Setting& s) {
  Bench bench(s);
  Said said{Job(s, 2), Vault(bench.layout_id), {}};
  auto run = bench.Start(said.job);
  said.vault.Save(*run, true, 2);
  StepTo(*run, 9);
  said.vault.Save(*run, true, 2);
  said.report = ToTheEnd(*run);
  said.vault.Save(*run, true, 2);
  return said;
}

// The parent's prompt, so many tokens of its chain, and something new.
RunOptions Next(const Said& said, int32_t chain, int32_t tokens, int32_t more, int32_t width) {
  RunOptions job = said.job;
  const auto& generated = said.report.chains[static_cast<size_t>(chain)].tokens;
  job.prompt.insert(job.prompt.end(), generated.begin(), generated.begin() + tokens);
  for (int32_t i = 0; i < more; ++i) job.prompt.push_back((i * 11 + 5) % 60);
  job.width = width;
  job.lengths.assign(static_cast<size_t>(width), 20);
  return job;
}

RestoreOptions From(Said& said, int32_t chain, const std::vector<size_t>& segments, size_t tail, int32_t width) {
  RestoreOptions plan = said.vault.Plan(2);
  plan.chains.assign(static_cast<size_t>(width), {});
  plan.own_journal = false;
  plan.prompt_segments = {}, plan.prompt_tail = {};
  plan.prefix = RestoreChain{chain, -1, false, segments, tail};
  return plan;
}

bool IsAtOnce(const Setting& s, const RunOptions& job, const RestoreOptions& plan) {
  Bench whole(s), restored(s);
  auto at_once = whole.Start(job);
  auto run = restored.Resume(job, plan);
  if (run->Report().caught_up != 0 || !Same(run->Report(), at_once->Report())) return false;
  // Every K, V and logit of the prompt, and of what comes after it.
  for (const int64_t step : {int64_t{1}, int64_t{7}}) {
    StepTo(*at_once, step), StepTo(*run, step);
    if (whole.backend->State(whole.model->config) != restored.backend->State(restored.model->config)) return false;
  }
  // Cut there and gone on with from its own objects alone.
  Vault vault(restored.layout_id);
  vault.Save(*run, true, job.width);
  Bench later(s);
  const RunReport resumed = ToTheEnd(*later.Resume(job, vault.Plan(job.width)));
  const RunReport end = ToTheEnd(*at_once);
  return Same(ToTheEnd(*run), end) && Same(resumed, end);
}

void APromptGoesOnFromAnyTail() {
  for (const Setting& s : Settings()) {
    Said said = Conversation(s);
    for (const int32_t width : {1, 3}) {
      CHECK(IsAtOnce(s, Next(said, 0, 0, 1, width), From(said, -1, said.vault.prompt_segments, *said.vault.prompt_tail, width)));
      CHECK(IsAtOnce(s, Next(said, 0, 5, 30, width), From(said, -1, said.vault.prompt_segments, *said.vault.prompt_tail, width)));
      for (const int32_t chain : {0, 1}) {
        for (const auto& [generated, tail] : said.vault.chains[chain].tails) {
          CHECK(IsAtOnce(s, Next(said, chain, generated, 25, width), From(said, chain, said.vault.chains[chain].segments, tail, width)));
        }
      }
      // The last token of a chain that has ended was not fed: what follows may be another.
      const auto& [generated, tail] = said.vault.chains[0].tails.back();
      CHECK(IsAtOnce(s, Next(said, 0, generated - 1, 25, width), From(said, 0, said.vault.chains[0].segments, tail, width)));
    }
  }
}

void AnotherPromptIsRefused() {
  const Setting s = Settings()[0];
  Said said = Conversation(s);
  const auto& chain = said.vault.chains[0];
  const auto [generated, tail] = chain.tails[0];
  const auto refusal = [&](const RunOptions& job, const RestoreOptions& plan) {
    Bench bench(s);
    auto run = Run::Restore(bench.backend, bench.model, job, plan);
    CHECK(!run.ok() && bench.backend->Memory().kv_allocated_bytes == 0);
    return run.ok() ? std::string() : std::string(run.status().code);
  };
  const RestoreOptions plan = From(said, 0, chain.segments, tail, 1);
  RunOptions job = Next(said, 0, generated, 5, 1);
  for (const size_t at : {size_t{0}, said.job.prompt.size() - 1, said.job.prompt.size(), said.job.prompt.size() + 8}) {
    RunOptions other = job;
    other.prompt[at] = (other.prompt[at] + 1) % 60;
    CHECK(refusal(other, plan) == "ERR_OPTION");
  }
  CHECK(refusal(Next(said, 0, generated, 0, 1), plan) == "ERR_OPTION");
  CHECK(refusal(Next(said, 0, 3, 0, 1), plan) == "ERR_OPTION");
  CHECK(refusal(said.job, From(said, -1, said.vault.prompt_segments, *said.vault.prompt_tail, 2)) == "ERR_OPTION");
  // Another chain's tail, one of no chain, none, without journals, without pages.
  CHECK(refusal(job, From(said, 1, chain.segments, tail, 1)) == "ERR_OPTION");
  CHECK(refusal(job, From(said, 7, chain.segments, tail, 1)) == "ERR_CHECKPOINT");
  CHECK(refusal(job, From(said, -1, chain.segments, tail, 1)) == "ERR_CHECKPOINT");
  CHECK(refusal(job, From(said, 0, {}, tail, 1)) == "ERR_CHECKPOINT");
  RestoreOptions bare = plan;
  bare.journals = {};
  CHECK(refusal(job, bare) == "ERR_CHECKPOINT");
  bare = plan;
  bare.prefix->tail = {};
  CHECK(refusal(job, bare) == "ERR_OPTION");
}

void KvzapGoesOnFromNothing() {
  Setting s = Settings()[2];
  s.overrides = {{"policy", "kvzap"}, {"surrogate", fixtures + "/models/kvzap_mlp"}, {"threshold", "0.7"}, {"window", "8"}, {"decode", "true"}};
  Said said = Conversation(s);
  Bench bench(s);
  const auto& [generated, tail] = said.vault.chains[0].tails[0];
  auto run = Run::Restore(bench.backend, bench.model, Next(said, 0, generated, 5, 1), From(said, 0, said.vault.chains[0].segments, tail, 1));
  CHECK(!run.ok() && std::string(run.status().code) == "ERR_OPTION");
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"a prompt goes on from any tail of a chain that began so", APromptGoesOnFromAnyTail},
      {"another prompt is refused and leaves nothing behind", AnotherPromptIsRefused},
      {"under kvzap a prompt goes on from nothing", KvzapGoesOnFromNothing},
  });
}
