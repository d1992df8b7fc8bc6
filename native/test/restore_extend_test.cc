// Jobs that go on beyond their end, with more chains, or from somebody else's: as if they had been asked for so at once.
// Usage: restore_extend_test FIXTURES_DIR MODELS_DIR
#include "test/vault.h"

namespace rum::test {
namespace {


std::vector<Setting> Settings() {
  BackendOptions small;
  small.page_slots = 4;
  const PolicyOverrides kvzap = {{"policy", "kvzap"}, {"surrogate", fixtures + "/models/kvzap_mlp"}, {"threshold", "0.7"}, {"window", "8"}, {"decode", "true"}};
  return {{fixtures + "/models/tiny_qwen3_dms", {}, small}, {fixtures + "/models/tiny_qwen3", kvzap, small}};
}

RunOptions Longer(RunOptions job, int32_t length, int32_t width) {
  job.lengths.assign(static_cast<size_t>(width), length);
  job.width = width;
  return job;
}

// The plan of a job that goes on: chains are opened again, new ones begin with the prompt.
RestoreOptions Onward(Vault& vault, int32_t had, int32_t width, bool own, bool tails = true) {
  RestoreOptions plan = vault.Plan(width, 0, tails);
  for (RestoreChain& chain : plan.chains) chain.reopen = true;
  for (int32_t i = had; i < width; ++i) plan.chains[static_cast<size_t>(i)].source = -1;
  plan.own_journal = own;
  return plan;
}

// Goes on from a vault, half-way into another save and restore, to the end.
RunReport GoOn(const Setting& s, Vault& vault, const RunOptions& job, int32_t had, bool own, bool tails) {
  Bench first(s);
  Vault next(first.layout_id);
  const RestoreOptions plan = Onward(vault, had, job.width, own, tails);
  next.Inherit(vault, plan);
  {
    auto run = first.Resume(job, plan);
    next.Save(*run, false, job.width);
    CHECK_OK(run->Step(4));
    next.Save(*run, true, job.width);
    CHECK_OK(run->Step(3));
    next.Save(*run, false, job.width);
  }
  Bench second(s);
  auto run = second.Resume(job, next.Plan(job.width));
  CHECK(run->Report().running > 0);
  return ToTheEnd(*run);
}

Vault RunToItsEnd(const Setting& s, const RunOptions& job) {
  Bench bench(s);
  Vault vault(bench.layout_id);
  vault.first = job.first_chain;
  auto run = bench.Start(job);
  vault.Save(*run, true, job.width);
  StepTo(*run, 9);
  vault.Save(*run, true, job.width);
  ToTheEnd(*run);
  vault.Save(*run, true, job.width);
  return vault;
}

void ALongerJobIsTheJobAskedForAtOnce() {
  for (const Setting& s : Settings()) {
    const RunOptions longer = Longer(Job(s, 3), 40, 3);
    const RunReport whole = AtOnce(s, longer);
    Vault vault = RunToItsEnd(s, Longer(longer, 24, 3));
    Vault uneven = RunToItsEnd(s, Job(s, 3));  // one chain is at 12, two at 36
    for (const bool own : {false, true}) {
      for (const bool tails : {true, false}) {
        CHECK(Same(GoOn(s, vault, longer, 3, own, tails), whole));
        CHECK(Same(GoOn(s, uneven, longer, 3, own, tails), whole));
      }
    }
  }
}

void MoreChainsBeginWithThePrompt() {
  for (const Setting& s : Settings()) {
    const RunOptions wider = Longer(Job(s, 2), 30, 4);
    const RunReport whole = AtOnce(s, wider);
    Vault vault = RunToItsEnd(s, Longer(wider, 18, 2));
    Vault single = RunToItsEnd(s, Longer(wider, 18, 1));
    for (const bool own : {false, true}) {
      for (const bool tails : {true, false}) {
        CHECK(Same(GoOn(s, vault, wider, 2, own, tails), whole));
        CHECK(Same(GoOn(s, single, wider, 1, own, tails), whole));
      }
    }
    // The prompt's own tail is gone: it is fed again, and counted once.
    Bench bench(s);
    RestoreOptions plan = Onward(vault, 2, 4, false);
    plan.prompt_tail = {}, plan.prompt_segments = {};
    CHECK(Same(ToTheEnd(*bench.Resume(wider, plan)), whole));
  }
}

void ABudgetIsNeitherExceededNorForgotten() {
  for (const Setting& s : Settings()) {
    RunOptions job = Longer(Job(s, 3), 40, 3);
    const RunReport whole = AtOnce(s, job);
    int64_t reads = 0;
    for (const ChainReport& chain : whole.chains) reads += chain.read_sum;
    job.kv_read_budget = reads / whole.head_count / 2;
    const RunReport stopped = AtOnce(s, job);
    CHECK(stopped.chains[0].finish == Finish::kBudget);
    Vault vault = RunToItsEnd(s, job);
    // Gone on with under the same budget it stops where it stood; with a little more, where that would have stopped it.
    Bench bench(s);
    CHECK(Same(ToTheEnd(*bench.Resume(job, Onward(vault, 3, 3, true))), stopped));
    for (const int64_t more : {int64_t{200}, reads}) {
      RunOptions richer = job;
      richer.kv_read_budget += more;
      Bench other(s);
      CHECK(Same(ToTheEnd(*other.Resume(richer, Onward(vault, 3, 3, false))), AtOnce(s, richer)));
      CHECK(Same(ToTheEnd(*other.Resume(richer, Onward(vault, 3, 3, true, false))), AtOnce(s, richer)));
    }
  }
}

void ChainsThatWereEndedGoOn() {
  const Setting s = Settings()[0];
  const RunOptions job = Longer(Job(s, 3), 30, 3);
  const RunReport whole = AtOnce(s, job);
  Bench bench(s);
  Vault vault(bench.layout_id);
  auto run = bench.Start(job);
  vault.Save(*run, true, 3);
  StepTo(*run, 10);
  run->EndChains({0, 2});
  StepTo(*run, 14);  // other rows of logits now
  vault.Save(*run, true, 3);
  CHECK(run->Report().chains[0].finish == Finish::kEnded && bench.backend->Memory().kv_allocated_bytes > 0);
  Bench second(s);
  auto resumed = second.Resume(job, Onward(vault, 3, 3, true));
  CHECK(resumed->Report().caught_up == 0);
  CHECK(Same(ToTheEnd(*resumed), whole));
  // Ended before it has caught up: as the journals have it.
  Bench third(s);
  const RestoreOptions from_prompt = Onward(vault, 3, 3, true, false);
  auto early = Must(Run::Restore(third.backend, third.model, job, from_prompt));
  early->EndChains({0, 1, 2});
  CHECK(early->Report().running == 0 && early->Report().chains[1].tokens.size() == 14 && early->Report().chains[1].read_sum > 0);
  Vault again(third.layout_id);
  again.Inherit(vault, from_prompt);
  again.Save(*early, true, 3);
  Bench fourth(s);
  CHECK(Same(ToTheEnd(*fourth.Resume(job, Onward(again, 3, 3, true))), whole));
}

// Two chains of a job of four.
RunOptions Shard(RunOptions job, int32_t first) {
  job.first_chain = first, job.job_width = 4;
  return job;
}

// The plan of one run that has the chains of both.
RestoreOptions Together(Vault& left, const Vault& right, bool tails) {
  RestoreOptions plan = Onward(left, 2, 4, false, tails);
  const size_t base = plan.objects.size();
  for (const SavedObject& object : right.objects) plan.objects.push_back(right.Stored(object));
  plan.shard_journals.emplace_back();
  for (const size_t journal : right.journals) plan.shard_journals[0].push_back(base + journal);
  for (const auto& [chain, held] : right.chains) {
    RestoreChain& onward = plan.chains[static_cast<size_t>(chain)];
    onward.source = chain;
    if (!tails) continue;
    onward.tail = base + held.tails.back().second;
    for (const size_t segment : held.segments) onward.segments.push_back(base + segment);
  }
  return plan;
}

void ChainsOfTwoShardsGoOnInOneRun() {
  for (const Setting& s : Settings()) {
    const RunOptions longer = Longer(Job(s, 4), 40, 4);
    const RunReport whole = AtOnce(s, longer);
    const RunOptions half = Longer(longer, 24, 2);
    Vault left = RunToItsEnd(s, Shard(half, 0)), right = RunToItsEnd(s, Shard(half, 2));
    for (const bool tails : {true, false}) {
      Bench bench(s);
      CHECK(Same(ToTheEnd(*bench.Resume(longer, Together(left, right, tails))), whole));
    }
    Bench bench(s);
    const auto refuses = [&](const RestoreOptions& plan) {
      const auto run = Run::Restore(bench.backend, bench.model, longer, plan);
      CHECK(!run.ok() && std::string_view(run.status().code) == kErrCheckpoint && bench.backend->Memory().kv_allocated_bytes == 0);
    };
    RestoreOptions twice = Together(left, right, true);
    twice.shard_journals.push_back(twice.shard_journals[0]);
    refuses(twice);
    RestoreOptions half_way = Together(left, right, true);
    half_way.shard_journals[0].erase(half_way.shard_journals[0].begin());
    refuses(half_way);
    RunOptions elsewhere = half;
    elsewhere.prompt[0] += 1;
    refuses(Together(left, RunToItsEnd(s, Shard(elsewhere, 2)), true));
  }
}

void AForkRepeatsItsParentUnlessItsSeedDiffers() {
  for (const Setting& s : Settings()) {
    const RunOptions job = Longer(Job(s, 2), 30, 2);
    const RunReport whole = AtOnce(s, job);
    Vault parent = RunToItsEnd(s, job);
    for (const int32_t at : {0, 1, 9, 17, 29}) {
      for (const bool tails : {true, false}) {
        RestoreOptions plan = Onward(parent, 2, 2, false, tails);
        for (int32_t i = 0; i < 2; ++i) {
          RestoreChain& chain = plan.chains[static_cast<size_t>(i)];
          chain.tokens = at, chain.reopen = false, chain.tail = {}, chain.segments = {};
          for (const auto& [generated, object] : parent.chains[i].tails) {
            if (generated <= at && tails) chain.tail = object, chain.segments = parent.chains[i].segments;
          }
        }
        Bench bench(s);
        CHECK(Same(ToTheEnd(*bench.Resume(job, plan)), whole));
        RunOptions other = job;
        other.seed = 77;
        Bench elsewhere(s);
        const RunReport forked = ToTheEnd(*elsewhere.Resume(other, plan));
        const auto& mine = forked.chains[0].tokens;
        const auto& theirs = whole.chains[0].tokens;
        CHECK(std::equal(mine.begin(), mine.begin() + at, theirs.begin()) && (at > 20 || mine != theirs));
      }
    }
    // A fork that is cut again where the parent's later pages are listed before its own.
    Bench bench(s);
    RestoreOptions plan = Onward(parent, 2, 2, false);
    RunOptions other = job;
    other.seed = 78;
    for (int32_t i = 0; i < 2; ++i) plan.chains[static_cast<size_t>(i)].tokens = 9, plan.chains[static_cast<size_t>(i)].tail = parent.chains[i].tails[0].second;
    auto run = bench.Resume(other, plan);
    Vault child(bench.layout_id);
    child.Inherit(parent, plan);
    StepTo(*run, 25);
    child.Save(*run, true, 2);
    Bench second(s);
    const RunReport resumed = ToTheEnd(*second.Resume(other, child.Plan(2)));
    CHECK(Same(resumed, ToTheEnd(*run)));
  }
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"a job that is made longer is the job asked for at once", ALongerJobIsTheJobAskedForAtOnce},
      {"more chains begin with the prompt while the others wait", MoreChainsBeginWithThePrompt},
      {"a budget is neither exceeded nor forgotten by going on", ABudgetIsNeitherExceededNorForgotten},
      {"chains that were ended from outside go on", ChainsThatWereEndedGoOn},
      {"chains of two shards go on in one run", ChainsOfTwoShardsGoOnInOneRun},
      {"a fork repeats its parent unless its seed differs", AForkRepeatsItsParentUnlessItsSeedDiffers},
  });
}
