// A run that is saved and restored goes on as if nothing had happened: bytes of K, V and logits, tokens and accounting.
// Usage: restore_test FIXTURES_DIR MODELS_DIR
#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "cache/chain_cache.h"
#include "checkpoint/geometry.h"
#include "run/run.h"
#include "test/backends.h"
#include "test/check.h"
#include "test/fixture.h"
#include "test/synthetic.h"

namespace rum::test {
namespace {

std::string fixtures, models;  // set once by main

// What a store holds of one job: every object, and what its manifest would list.
struct Vault {
  struct Chain {
    std::vector<size_t> segments;
    std::vector<std::pair<int32_t, size_t>> tails;  // (generated, object)
  };
  std::vector<SavedObject> objects;
  std::vector<size_t> prompt_segments, journals;
  std::optional<size_t> prompt_tail;
  std::map<int32_t, Chain> chains;
  LayoutId layout_id{};
  uint32_t cuts = 0;

  void Save(Run& run, bool delta, int32_t width) {
    auto parts = Must(run.Save({delta, 1, cuts++, layout_id, cuts % 3 == 0 ? Codec::kPlanesZstd : Codec::kRaw, {}}));
    for (SavedPart& part : parts) {
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
        for (int32_t i = 0; i < width; ++i) chains[i].segments.push_back(index);
      } else {
        chains[chain].segments.push_back(index);
      }
    }
  }

  // Chains as the last tails hold them; `older`: as the ones before.
  RestoreOptions Plan(int32_t width, size_t older = 0) {
    RestoreOptions restore;
    for (const SavedObject& object : objects) {
      const std::span<const uint8_t> bytes(object.bytes.data(), static_cast<size_t>(object.size));
      const size_t half = bytes.size() / 2 + 1;  // in two chunks, cut anywhere
      restore.objects.push_back({{bytes.first(half), bytes.subspan(half)}, object.size, object.digest, 0});
    }
    restore.seals = {Seal{}};
    restore.layout_id = layout_id;
    restore.prompt_segments = prompt_segments;
    restore.prompt_tail = prompt_tail;
    restore.journals = journals;
    for (int32_t i = 0; i < width; ++i) {
      RestoreChain chain;
      chain.source = i;
      chain.segments = chains[i].segments;
      const auto& tails = chains[i].tails;
      if (tails.size() > older) chain.tail = tails[tails.size() - 1 - older].second;
      restore.chains.push_back(std::move(chain));
    }
    return restore;
  }
};

bool Same(const ChainReport& a, const ChainReport& b) {
  return a.tokens == b.tokens && a.finish == b.finish && a.stop_bytes == b.stop_bytes && a.live_sum == b.live_sum && a.peak_sum == b.peak_sum &&
         a.decode_peak_sum == b.decode_peak_sum && a.read_sum == b.read_sum && a.dense_read_sum == b.dense_read_sum && a.fed == b.fed;
}
bool Same(const RunReport& a, const RunReport& b) {
  return a.step == b.step && a.prefill_read_sum == b.prefill_read_sum && a.shared_sum == b.shared_sum && a.running == b.running &&
         std::ranges::equal(a.chains, b.chains, [](const ChainReport& x, const ChainReport& y) { return Same(x, y); });
}

struct Setting {
  std::string directory;
  PolicyOverrides overrides;
  BackendOptions backend;
  int32_t prompt = 40, length = 70;
};

struct Bench {
  std::shared_ptr<const Model> model;
  BackendOptions options;
  std::shared_ptr<Backend> backend;
  LayoutId layout_id;
  explicit Bench(const Setting& s, BackendOptions backend_options)
      : model(Must(OpenModel(s.directory, s.overrides))), options(backend_options), backend(Must(MakeCpuBackend(model, options))),
        layout_id(LayoutIdOf(GeometryOf(model->config, options))) {}
};

RunOptions Job(const Setting& s, const Model& model, int32_t width) {
  RunOptions o;
  for (int32_t i = 0; i < s.prompt; ++i) o.prompt.push_back((i * 7 + 3) % model.config.vocab_size);
  o.width = width;
  for (int32_t i = 0; i < width; ++i) o.lengths.push_back(i == 1 ? s.length / 3 : s.length);  // one finishes early
  o.seed = 5;
  o.sampling.temperature = 1.0f;
  o.sampling.frequency_penalty = 0.1f;
  o.checkpointed = true;
  o.prefill_chunk = 16;
  return o;
}

void StepTo(Run& run, int64_t step) {
  while (run.Report().step < step && run.Report().running > 0) {
    if (!CHECK_OK(run.Step(static_cast<int32_t>(step - run.Report().step)))) return;
  }
}

// Saves at `cut` (and before), restores into a fresh backend with other threads and another level, runs to the end.
void CheckCut(const Setting& s, int64_t cut, size_t older, const RunReport& whole) {
  Bench first(s, s.backend);
  Vault vault;
  vault.layout_id = first.layout_id;
  const RunOptions job = Job(s, *first.model, 3);
  {
    auto run = Must(Run::Create(first.backend, first.model, job));
    CHECK_OK(run->Prefill());
    vault.Save(*run, true, 3);
    if (cut >= 8) {
      StepTo(*run, cut - 7);
      vault.Save(*run, true, 3);
      StepTo(*run, cut - 3);
      vault.Save(*run, false, 3);
    }
    StepTo(*run, cut);
    vault.Save(*run, older == 0, 3);
  }
  BackendOptions other = s.backend;
  other.threads = 3;
  if (cut % 2 == 0 && s.prompt == 40) other.isa = Isa::kPortable;
  Bench second(s, other);
  auto run = Must(Run::Restore(second.backend, second.model, job, vault.Plan(3, 0)));
  if (!CHECK_OK(run->Prefill())) return;
  CHECK(run->Report().caught_up == 0 || older > 0);
  StepTo(*run, 1'000'000);
  if (!CHECK(Same(run->Report(), whole))) std::printf("    cut %lld, older %zu\n", static_cast<long long>(cut), older);
}

RunReport Whole(const Setting& s) {
  Bench bench(s, s.backend);
  RunOptions job = Job(s, *bench.model, 3);
  job.checkpointed = false;
  auto run = Must(Run::Create(bench.backend, bench.model, job));
  CHECK_OK(run->Prefill());
  StepTo(*run, 1'000'000);
  return run->Report();
}

std::vector<Setting> Settings() {
  BackendOptions small;
  small.page_slots = 4;
  BackendOptions bf16 = small;
  bf16.kv = KvType::kBF16;
  return {
      {fixtures + "/models/tiny_qwen3_dms", {}, small},
      {fixtures + "/models/tiny_qwen3_dms_separate", {}, bf16},
      {models + "/countdown/cr8", {}, bf16, 30, 60},
  };
}

void EveryCutGoesOnAsIfNothingHadHappened() {
  for (const Setting& s : Settings()) {
    const RunReport whole = Whole(s);
    CHECK(whole.running == 0);
    for (int64_t cut = 0; cut < whole.step; cut += cut < 4 ? 1 : 7) CheckCut(s, cut, 0, whole);
  }
}

void AnOlderTailAndTheJournalGiveTheSame() {
  for (const Setting& s : Settings()) {
    const RunReport whole = Whole(s);
    for (int64_t cut = 9; cut < whole.step; cut += 11) CheckCut(s, cut, 1, whole);
  }
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  if (argc < 3) return 2;
  fixtures = argv[1];
  models = argv[2];
  return RunAll({
      {"every cut goes on as if nothing had happened", EveryCutGoesOnAsIfNothingHadHappened},
      {"an older tail and the journal give the same", AnOlderTailAndTheJournalGiveTheSame},
  });
}
