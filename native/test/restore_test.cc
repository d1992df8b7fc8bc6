// A run that is saved and restored goes on as if nothing had happened: bytes of K, V and logits, tokens and accounting.
// Usage: restore_test FIXTURES_DIR MODELS_DIR
#include "checkpoint/journal.h"
#include "test/vault.h"

namespace rum::test {
namespace {


BackendOptions Small(KvType kv) {
  BackendOptions options;
  options.page_slots = 4;
  options.kv = kv;
  return options;
}

Setting Kvzap(const char* kind, const char* decode, KvType kv) {
  const PolicyOverrides overrides = {{"policy", "kvzap"}, {"surrogate", fixtures + "/models/kvzap_" + kind}, {"threshold", "0.7"}, {"window", "8"}, {"decode", decode}};
  return {fixtures + "/models/tiny_qwen3", overrides, Small(kv)};
}

// Every policy, both types of KV, a prompt below the window.
std::vector<Setting> Settings() {
  const std::string dms = fixtures + "/models/tiny_qwen3_dms", separate = fixtures + "/models/tiny_qwen3_dms_separate";
  return {
      {dms, {}, Small(KvType::kF32)},
      {dms, {}, Small(KvType::kBF16), 3, 20},
      {separate, {}, Small(KvType::kBF16)},
      {fixtures + "/models/tiny_qwen3", {}, Small(KvType::kBF16)},
      Kvzap("linear", "false", KvType::kF32),
      Kvzap("mlp", "true", KvType::kBF16),
      {models + "/countdown/cr8", {}, Small(KvType::kBF16), 20, 21},
  };
}

// What the job at once computes: its report at the end and every byte after each step.
struct Whole {
  RunReport report;
  std::map<int64_t, std::multiset<Digest>> states;  // by step

  Whole(const Setting& s, const RunOptions& job) {
    Bench bench(s);
    RunOptions plain = job;
    plain.checkpointed = false;
    auto run = bench.Start(plain);
    while (run->Report().running > 0 && CHECK_OK(run->Step(1))) states[run->Report().step] = bench.backend->State(bench.model->config);
    report = run->Report();
  }
};

// Body and index: header and trailer hold a nonce and a digest over it.
bool SameBody(const SavedObject& a, const SavedObject& b) {
  return a.size == b.size && std::memcmp(a.bytes.data() + kHeaderBytes, b.bytes.data() + kHeaderBytes,
                                         static_cast<size_t>(a.size - kHeaderBytes - kTrailerBytes)) == 0;
}

// A job that is cut: deltas and a journal before, then the cut itself.
Vault CutAt(const Setting& s, const RunOptions& job, int64_t cut, bool delta) {
  Bench bench(s);
  Vault vault(bench.layout_id);
  vault.codec = cut % 3 == 0 ? Codec::kPlanesZstd : Codec::kRaw;
  auto run = bench.Start(job);
  vault.Save(*run, true, job.width);
  if (cut >= 6) {
    StepTo(*run, cut - 5);
    vault.Save(*run, true, job.width);
    StepTo(*run, cut - 2);
    vault.Save(*run, false, job.width);
  }
  StepTo(*run, cut);
  vault.codec = Codec::kRaw;
  vault.Save(*run, delta, job.width);
  return vault;
}

// Goes on from a plan on another level with other threads: every byte of the steps that follow, and the report at the end.
bool GoesOn(const Setting& s, const RunOptions& job, int64_t cut, const RestoreOptions& plan, const Whole& whole, bool journals_only = false, bool reference = false) {
  BackendOptions other = s.backend;
  other.threads = 2;
  if (cut % 5 == 0) other.isa = Isa::kPortable;
  Bench bench(s, other, journals_only, reference);
  auto run = bench.Resume(job, plan);
  bool same = true;
  for (const int64_t steps : {1, 2}) {
    StepTo(*run, run->Report().step + steps);
    if (run->Report().running == 0) break;
    same = CHECK(bench.backend->State(bench.model->config) == whole.states.at(run->Report().step)) && same;
  }
  same = CHECK(Same(ToTheEnd(*run), whole.report)) && same;
  if (!same) std::printf("    %s, cut %lld\n", s.directory.c_str(), static_cast<long long>(cut));
  return same;
}

std::vector<int64_t> Cuts(const Setting& s, int64_t end) {
  std::vector<int64_t> cuts = {0, 1, 5, 6, end / 3, end - 1};  // the ring of 9 wraps at a total of 9, 18, ...; pages seal all the time
  for (int64_t cut = 8; cut < end && s.prompt != 20; cut += 9) cuts.push_back(cut);
  return cuts;
}

void EveryCutGoesOnAsIfNothingHadHappened() {
  for (const Setting& s : Settings()) {
    const RunOptions job = Job(s, 3);
    const Whole whole(s, job);
    CHECK(whole.report.running == 0 && whole.report.step == s.length);
    for (const int64_t cut : Cuts(s, whole.report.step)) {
      Vault vault = CutAt(s, job, cut, true);
      GoesOn(s, job, cut, vault.Plan(3), whole);
    }
  }
}

void TheCutItselfIsRestoredByteByByte() {
  for (const Setting& s : Settings()) {
    for (const int64_t cut : {0, 7, 18}) {
      const RunOptions job = Job(s, 3);
      Vault vault = CutAt(s, job, cut, true);
      const std::vector<std::pair<int32_t, size_t>> before = [&] {
        std::vector<std::pair<int32_t, size_t>> tails;
        for (const auto& [chain, held] : vault.chains) {
          if (!held.tails.empty()) tails.emplace_back(chain, held.tails.back().second);
        }
        return tails;
      }();
      Bench bench(s);
      auto run = bench.Resume(job, vault.Plan(3));
      CHECK(run->Report().caught_up == 0);
      Vault again(bench.layout_id);
      again.Save(*run, true, 3);
      for (const SavedPart& part : again.news) CHECK(part.header.kind != ObjectKind::kSegment);  // nothing is sealed anew
      for (const auto& [chain, object] : before) {
        if (again.chains.contains(chain)) CHECK(SameBody(vault.objects[object], again.objects[again.chains[chain].tails.back().second]));
      }
      CHECK(again.chains.size() == static_cast<size_t>(cut == 0 ? 0 : run->Report().running));
    }
  }
}

void OlderTailsThePromptsTailAndNoTailGiveTheSame() {
  for (const Setting& s : Settings()) {
    const RunOptions job = Job(s, 3);
    const Whole whole(s, job);
    const int64_t cut = s.length / 2;
    Vault vault = CutAt(s, job, cut, true);
    GoesOn(s, job, cut, vault.Plan(3, 1), whole);
    GoesOn(s, job, cut, vault.Plan(3, 99), whole);        // the prompt's tail
    GoesOn(s, job, cut, vault.Plan(3, 0, false), whole);  // nothing
    RestoreOptions mixed = vault.Plan(3);
    mixed.chains[2].tail = {}, mixed.chains[2].segments = {}, mixed.prompt_tail = {}, mixed.prompt_segments = {};
    GoesOn(s, job, cut, mixed, whole);  // the prompt is fed again beside a chain that has it
    Vault journaled = CutAt(s, job, cut + 1, false);
    GoesOn(s, job, cut, journaled.Plan(3), whole);
  }
}

void BackendsThatOnlyJournalAreComputedAgain() {
  const Setting tova{fixtures + "/models/tiny_qwen3", {{"policy", "tova"}, {"budget", "20"}}, Small(KvType::kF32), 24, 16};
  const Setting dms{fixtures + "/models/tiny_qwen3_dms", {}, Small(KvType::kF32), 24, 16};
  for (const Setting& s : {tova, dms}) {
    const RunOptions job = Job(s, 3);
    const Whole whole(s, job);
    const bool reference = s.overrides.empty();
    Bench bench(s, s.backend, true, reference);
    Vault vault(bench.layout_id);
    auto run = bench.Start(job);
    StepTo(*run, 9);
    vault.Save(*run, true, 3);
    CHECK(vault.objects.size() == 1);  // the journal
    GoesOn(s, job, 9, vault.Plan(3), whole, true, reference);
    if (reference) GoesOn(s, job, 9, vault.Plan(3), whole);  // another backend goes on, bit by bit the same
  }
}

// The journals of a vault as one, changed by hand and stored again.
void Rewrite(Vault& vault, const std::function<void(Journal&)>& change, int32_t vocab) {
  Journal all;
  for (const size_t index : vault.journals) {
    const StoredObject stored = vault.Stored(vault.objects[index]);
    auto reader = Must(ObjectReader::Open(stored.chunks, {ObjectKind::kJournal, vault.layout_id, stored.bytes, &stored.digest, true}, Seal{}));
    CHECK_OK(Fold(Must(LoadJournal(reader, vocab)), &all));
  }
  change(all);
  ObjectHeader header;
  header.layout_id = vault.layout_id;
  vault.objects.push_back(Must(SaveJournal(all, header, Seal{}, Codec::kRaw)));
  vault.journals = {vault.objects.size() - 1};
}

Status Restored(const Setting& s, const RunOptions& job, const RestoreOptions& plan) {
  Bench bench(s);
  auto run = Run::Restore(bench.backend, bench.model, job, plan);
  return run.ok() ? (*run)->Prefill() : run.status();
}

void ADecisionThatComesOutOtherwiseIsDrift() {
  const Setting s = Settings()[0];
  const RunOptions job = Job(s, 3);
  const auto drifts = [&](const std::function<void(Journal&)>& change, size_t older, bool tails = true) {
    Vault vault = CutAt(s, job, 20, true);
    Rewrite(vault, change, 1 << 20);
    const Status status = Restored(s, job, vault.Plan(3, older, tails));
    return Has(status, kErrCheckpoint) && status.message.starts_with("numerics_drift");
  };
  CHECK(drifts([](Journal& j) { j.chains.at(2).decisions.bits.back() ^= 1; }, 1));
  CHECK(drifts([](Journal& j) { j.chains.at(2).decisions.bits[0] ^= 2; }, 99));
  CHECK(drifts([](Journal& j) { j.job.prompt_decisions.bits[5] ^= 4; }, 0, false));
  CHECK(drifts([](Journal& j) { j.chains.at(0).report.read_sum += 1; }, 0));
  CHECK(drifts([](Journal& j) { j.job.prefill_read_sum += 1; }, 0, false));
  CHECK(!drifts([](Journal&) {}, 1));
}

// The journal of a model that evicts otherwise, forced upon this one: its cache, byte by byte, which this model alone would not have.
void ReplayForcesTheBits() {
  const Setting mine = Settings()[0];
  Setting theirs = mine;
  theirs.overrides = {{"alpha_offset", "2"}};
  const RunOptions job = Job(theirs, 3);
  const Whole whole(theirs, job);
  CHECK(!Same(whole.report, Whole(mine, job).report));
  Vault vault = CutAt(theirs, job, 20, false);
  RestoreOptions plan = vault.Plan(3, 0, false);
  const Status compared = Restored(mine, job, plan);
  CHECK(Has(compared, kErrCheckpoint) && compared.message.starts_with("numerics_drift"));
  plan.replay = true;
  Bench bench(mine);
  auto run = bench.Resume(job, plan);
  CHECK_OK(run->Step(1));  // whose own decision shows a window later
  CHECK(bench.backend->State(bench.model->config) == whole.states.at(21));
}

void TwentyResumesDriftNowhereAndSaveOnlyWhatIsNew() {
  const Setting s{fixtures + "/models/tiny_qwen3_dms", {}, Small(KvType::kBF16), 40, 80};
  const RunOptions job = Job(s, 2);
  const Whole whole(s, job);
  Vault vault = CutAt(s, job, 0, true);
  int64_t largest_tail = 0;
  for (int64_t cut = 4; cut <= 80; cut += 4) {
    Bench bench(s);
    auto run = bench.Resume(job, vault.Plan(2));
    StepTo(*run, cut);
    vault.Save(*run, true, 2);
    const size_t first = vault.objects.size() - vault.news.size();
    for (size_t p = 0; p < vault.news.size(); ++p) {
      const int64_t size = vault.objects[first + p].size;
      if (vault.news[p].header.kind == ObjectKind::kTail) largest_tail = std::max(largest_tail, size);
      if (vault.news[p].header.kind == ObjectKind::kJournal) CHECK(size < 2048);  // four tokens of two chains at most
    }
    if (cut < 80) CHECK(bench.backend->State(bench.model->config) == whole.states.at(cut));
    if (cut == 80) CHECK(Same(run->Report(), whole.report));
  }
  const int64_t first_tail = vault.objects[vault.chains[0].tails.front().second].size;
  CHECK(largest_tail < first_tail + first_tail / 4 + 4096);
}

void SavingTwiceWritesNothingTheSecondTime() {
  for (const Setting& s : {Settings()[0], Settings()[4]}) {
    const RunOptions job = Job(s, 3);
    Bench bench(s);
    Vault vault(bench.layout_id);
    auto run = bench.Start(job);
    StepTo(*run, 15);  // one chain has finished
    const int64_t held = bench.backend->Memory().kv_allocated_bytes;
    vault.Save(*run, false, 3);
    CHECK(bench.backend->Memory().kv_allocated_bytes == held);  // the finished chain is still there
    vault.Save(*run, true, 3);
    CHECK(bench.backend->Memory().kv_allocated_bytes < held);
    vault.Save(*run, true, 3);
    for (const SavedPart& part : vault.news) CHECK(part.header.kind != ObjectKind::kSegment);
    const SavedObject& journal = vault.objects[vault.journals.back()];
    const StoredObject stored = vault.Stored(journal);
    auto reader = Must(ObjectReader::Open(stored.chunks, {ObjectKind::kJournal, vault.layout_id, stored.bytes, &stored.digest, true}, Seal{}));
    CHECK(Must(LoadJournal(reader, 1 << 20)).chains.empty());
    Bench second(s);
    auto resumed = second.Resume(job, vault.Plan(3));
    Vault after(second.layout_id);
    after.Save(*resumed, true, 3);
    CHECK(after.prompt_segments.empty() && !after.prompt_tail.has_value());
    for (const SavedPart& part : after.news) CHECK(part.header.kind != ObjectKind::kSegment);
    resumed.reset();
    CHECK(second.backend->Memory().kv_allocated_bytes == 0);
  }
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"every cut goes on as if nothing had happened, byte by byte", EveryCutGoesOnAsIfNothingHadHappened},
      {"the cut itself is restored byte by byte", TheCutItselfIsRestoredByteByByte},
      {"older tails, the prompt's tail and no tail at all give the same", OlderTailsThePromptsTailAndNoTailGiveTheSame},
      {"jobs of backends that only journal are computed again", BackendsThatOnlyJournalAreComputedAgain},
      {"a decision or a count that comes out otherwise is drift", ADecisionThatComesOutOtherwiseIsDrift},
      {"replay forces the bits of the journal", ReplayForcesTheBits},
      {"twenty resumes drift nowhere, and each saves only what is new", TwentyResumesDriftNowhereAndSaveOnlyWhatIsNew},
      {"a second save writes an empty journal and no page; finished chains go with the delta", SavingTwiceWritesNothingTheSecondTime},
  });
}
