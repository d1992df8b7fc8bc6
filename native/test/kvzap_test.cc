// KVzap (METHOD.md 2): the fixtures of test/fixtures/README.md, the law of bits between the backends, and what a prompt gives back
// when it ends. Usage: kvzap_test FIXTURES_DIR MODELS_DIR
#include <numeric>
#include <string>
#include <vector>

#include "core/exact_math.h"
#include "run/run.h"
#include "test/fed.h"
#include "test/model_fixtures.h"
#include "test/recorder.h"
#include "test/synthetic.h"

namespace rum::test {
namespace {

constexpr size_t kPrompt = 96;  // of the fixtures

std::string SurrogateOf(const std::string& kind) { return (fs::path(fixtures) / ("models/kvzap_" + kind)).string(); }

// --- The oracle ----------------------------------------------------------------------------------------------------------------------

void FixtureEqualsTheOracle(const std::string& kind, bool decode) {
  const std::string name = (fs::path(fixtures) / ("kvzap_" + kind + (decode ? "_decode" : "_prefill"))).string();
  const Fixture fixture(name + ".safetensors");
  const JsonFile numbers(name + ".json");
  const std::vector<int32_t> ids = fixture.Ints("all_ids");
  const std::vector<uint8_t> visible = fixture.Bytes("visible");  // [layers * kv, T, T]
  const PolicyOverrides overrides = {{"policy", "kvzap"},
                                     {"surrogate", SurrogateOf(kind)},
                                     {"threshold", std::to_string(Get<double>(numbers.root()["tau"]))},
                                     {"window", std::to_string(Get<int64_t>(numbers.root()["window"]))},
                                     {"decode", decode ? "true" : "false"}};
  for (const BackendFactory& factory : Factories()) {
    for (const size_t chunk : {size_t{17}, kPrompt}) {
      Fed fed(factory, Open((fs::path(fixtures) / "models/tiny_qwen3").string(), overrides));
      Recorder recorder(fed.model->config, ids.size());
      fed.backend->SetTrace(&recorder);
      std::vector<float> logits;
      const auto feed = [&](size_t begin, size_t end) {
        const std::vector<float> part = fed.Feed(ids, begin, end, kPrompt);
        logits.insert(logits.end(), part.begin(), part.end());
      };
      for (size_t t = 0; t < kPrompt; t += chunk) feed(t, std::min(kPrompt, t + chunk));
      for (size_t t = kPrompt; t < ids.size(); ++t) {
        const int64_t predicted = fed.backend->NextLiveSum(fed.chain);
        feed(t, t + 1);
        CHECK(fed.backend->ReadSum(fed.chain) == predicted);
        const std::vector<HeadSnapshot> heads = fed.Snapshots();
        for (size_t h = 0; h < heads.size(); ++h) {
          const auto row = visible.begin() + static_cast<std::ptrdiff_t>((h * ids.size() + t) * ids.size());
          CHECK(std::ranges::equal(Mask(heads[h].positions, ids.size()), std::span(row, ids.size())));
        }
      }
      CHECK(MaxDifference(logits, fixture.Floats("logits")) <= 1e-3f);
      CHECK(MaxDifference(logits, fixture.Floats("logits_kvpress")) <= 1e-3f);
      CHECK(MaxDifference(recorder.decision_logits, fixture.Floats("scores")) <= 1e-4f);
      for (size_t i = 0; i < recorder.live.size(); ++i) {
        const auto row = visible.begin() + static_cast<std::ptrdiff_t>(i * ids.size());
        CHECK(recorder.live[i] == std::accumulate(row, row + static_cast<std::ptrdiff_t>(ids.size()), 0));
      }
    }
  }
}

void LinearWithDecode() { FixtureEqualsTheOracle("linear", true); }
void LinearPromptOnly() { FixtureEqualsTheOracle("linear", false); }
void MlpWithDecode() { FixtureEqualsTheOracle("mlp", true); }
void MlpPromptOnly() { FixtureEqualsTheOracle("mlp", false); }

void ErfAndGeluAreAccurate() {
  double erf_error = 0.0, gelu_error = 0.0;
  for (double x = -8.0; x <= 8.0; x += 1.0 / 4096) {
    erf_error = std::max(erf_error, std::fabs(ErfD(x) - std::erf(x)));
    const auto exact = 0.5 * x * std::erfc(-x * 0.70710678118654752440);
    gelu_error = std::max(gelu_error, std::fabs(GeluF(static_cast<float>(x)) - exact) / std::max(std::fabs(exact), 1e-3));
  }
  CHECK(erf_error < 3e-16);
  CHECK(gelu_error < 7e-8);
  CHECK(ErfD(1e300) == 1.0 && ErfD(-1e300) == -1.0 && ErfD(0.0) == 0.0 && std::isnan(ErfD(NAN)));
  CHECK(GeluF(0.0f) == 0.0f && GeluF(100.0f) == 100.0f && GeluF(-100.0f) == 0.0f);
}

// --- The law of bits -----------------------------------------------------------------------------------------------------------------

struct Shape {
  int32_t hidden, heads, kv_heads, head_dim, window;
  int64_t width;  // of the surrogate; 0: linear
  bool decode;
  float threshold;  // about half of the scores are below it
  DType dtype;
  KvType kv;
  bool qk_norm = true, qkv_bias = false;  // Qwen3; without the norm Llama, with the biases Qwen2
};
const Shape kShapes[] = {
    {40, 4, 2, 16, 5, 0, true, 0.1f, DType::kF32, KvType::kF32},    {33, 6, 2, 20, 3, 9, true, 0.0f, DType::kBF16, KvType::kBF16},
    {48, 3, 3, 24, 7, 11, false, -0.1f, DType::kF16, KvType::kF32}, {36, 5, 1, 72, 0, 0, true, 0.0f, DType::kF32, KvType::kBF16},
    {64, 4, 4, 12, 0, 8, false, 0.2f, DType::kF32, KvType::kF32},   {40, 4, 2, 16, 30, 7, true, 0.0f, DType::kF32, KvType::kF32},
    {40, 4, 2, 16, 6, 0, true, 0.1f, DType::kF32, KvType::kF32, false, false}, {40, 4, 2, 16, 6, 7, true, 0.0f, DType::kBF16, KvType::kF32, false, true},
};

std::shared_ptr<const Model> MakeModel(const Shape& s) {
  ModelConfig c;
  c.model_type = "synthetic";
  c.vocab_size = 50;
  c.hidden_size = s.hidden;
  c.intermediate_size = 56;
  c.num_layers = 2;
  c.num_heads = s.heads;
  c.num_kv_heads = s.kv_heads;
  c.head_dim = s.head_dim;
  c.max_positions = 512;
  c.qk_norm = s.qk_norm;
  c.qkv_bias = s.qkv_bias;
  c.policy.kind = PolicyKind::kKvzap;
  c.policy.window = s.window;
  c.policy.threshold = s.threshold;
  c.policy.prunes_generated = s.decode;
  return MakeSynthetic(c, s.dtype, static_cast<uint64_t>(s.hidden), s.width);
}

std::vector<int32_t> Tokens(size_t count, uint32_t seed = 9) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    ids.push_back(static_cast<int32_t>((seed >> 8) % 50));
  }
  return ids;
}

void BackendsGiveTheSameBytes() {
  const std::vector<int32_t> ids = Tokens(80);
  for (const Shape& shape : kShapes) {
    const auto model = MakeModel(shape);
    BackendOptions options;
    options.kv = shape.kv;
    for (const size_t prompt : {size_t{50}, size_t{6}, size_t{1}, size_t{0}}) {
      Fed oracle(Factories()[0], model, options);
      const std::vector<float> logits = oracle.FeedAll(ids, prompt, 1);
      const std::vector<HeadSnapshot> snapshots = oracle.Snapshots();
      const int64_t all = 2 * 80 * shape.kv_heads, live = oracle.backend->LiveSum(oracle.chain);
      if (prompt == 50) CHECK(live < all - all / 20);
      for (const BackendFactory& factory : Factories()) {
        for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
          if (!ResolveIsa(isa).ok()) continue;
          options.isa = isa;
          for (const size_t chunk : {size_t{7}, size_t{80}}) {
            options.threads = chunk == 7 ? 3 : 1;
            options.page_slots = chunk == 7 ? 4 : 64;
            Fed fed(factory, model, options);
            CHECK(SameBytes(fed.FeedAll(ids, prompt, chunk, chunk == 7 ? 1 : 30), logits));
            CHECK(Same(fed.Snapshots(), snapshots));
            CHECK(fed.backend->LiveSum(fed.chain) == live);
          }
        }
      }
    }
  }
}

// Two policies with the same bytes: nothing to prune, and nothing to keep but the window.
void ThresholdsAtTheEnds() {
  const std::vector<int32_t> ids = Tokens(70);
  Shape shape = kShapes[0];
  shape.threshold = -1e6f;
  const auto keeps = MakeModel(shape);
  const auto bare = std::make_shared<Model>(*keeps);  // views of the weights that `keeps` holds
  bare->config.policy = PolicySpec{};
  bare->kvzap.clear();
  shape.threshold = 1e6f;
  const auto drops = MakeModel(shape);
  for (const BackendFactory& factory : Factories()) {
    Fed fed(factory, keeps), plain(factory, bare);
    CHECK(SameBytes(fed.FeedAll(ids, 40, 40), plain.FeedAll(ids, 40, 40)));
    CHECK(Same(fed.Snapshots(), plain.Snapshots()));
    Fed window(factory, drops);
    (void)window.FeedAll(ids, 40, 11);
    for (const HeadSnapshot& head : window.Snapshots()) CHECK(head.positions == std::vector<int32_t>({64, 65, 66, 67, 68, 69}));
  }
}

// --- The end of the prompt -----------------------------------------------------------------------------------------------------------

void APromptGivesItsMemoryBack() {
  const std::vector<int32_t> ids = Tokens(400);
  const auto model = MakeModel(kShapes[0]);
  BackendOptions options;
  options.page_slots = 8;
  Fed fed(Factories().back(), model, options);
  CHECK(fed.backend->Memory().weight_bytes > 0);
  const int64_t empty = fed.backend->Memory().kv_allocated_bytes;
  (void)fed.Feed(ids, 0, 399, 400);
  const int64_t dense = fed.backend->Memory().kv_allocated_bytes, heads = 2 * 2;
  CHECK(fed.backend->LiveSum(fed.chain) == 399 * heads && fed.backend->NextLiveSum(fed.chain) == 400 * heads);
  Recorder recorder(model->config, 400);
  fed.backend->SetTrace(&recorder);
  (void)fed.Feed(ids, 399, 400, 400);
  for (size_t h = 0; h < static_cast<size_t>(heads); ++h) CHECK(recorder.live[h * 400 + 399] == 400);  // dense to its last token
  const int64_t pruned = fed.backend->Memory().kv_allocated_bytes, live = fed.backend->LiveSum(fed.chain);
  CHECK(live < 300 * heads);
  // Pages for what is left, the last one of each head partly filled, and not a page more.
  const int64_t page_bytes = (dense - empty) / (heads * ((399 - 6 + 7) / 8));
  CHECK(pruned - empty <= page_bytes * (live / 8 + heads));
  fed.backend->FreeChain(std::exchange(fed.chain, Must(fed.backend->NewChain())));
  CHECK(fed.backend->Memory().kv_allocated_bytes == empty);
}

void AShortPromptIsNotPruned() {
  const std::vector<int32_t> ids = Tokens(60);
  for (const Shape& shape : {kShapes[2], kShapes[5]}) {
    const auto prompt = static_cast<size_t>(shape.window);
    for (const BackendFactory& factory : Factories()) {
      Fed fed(factory, MakeModel(shape));
      (void)fed.Feed(ids, 0, prompt, prompt);
      for (const HeadSnapshot& head : fed.Snapshots()) CHECK(head.positions.size() == prompt);
      for (size_t t = prompt; t < 60; ++t) (void)fed.Feed(ids, t, t + 1, prompt);
      const int64_t all = 60 * 2 * shape.kv_heads, live = fed.backend->LiveSum(fed.chain);
      CHECK(shape.decode ? live < all : live == all);  // generated tokens and those of the prompt that leave the window
    }
  }
}

// Forks of a finished prompt share its pruned pages; forks of an open one part when it ends. Both backends count alike.
void ForksShareThePrunedPages() {
  const std::vector<int32_t> ids = Tokens(90), other = Tokens(30, 77);
  for (const Shape& shape : kShapes) {
    const auto model = MakeModel(shape);
    for (const size_t forked_at : {size_t{60}, size_t{45}}) {
      std::vector<int64_t> counts[2];
      size_t which = 0;
      for (const BackendFactory& factory : Factories()) {
        BackendOptions options;
        options.kv = shape.kv;
        options.page_slots = 4;
        Fed fed(factory, model, options), alone(factory, model, options);
        (void)fed.Feed(ids, 0, forked_at, 60);
        const int64_t before = fed.backend->Memory().kv_allocated_bytes;
        const ChainId fork = Must(fed.backend->ForkChain(fed.chain));
        std::vector<int64_t>& seen = counts[which++];
        const auto note = [&] {
          for (const ChainId chain : {fed.chain, fork}) {
            for (const int64_t n : {fed.backend->SharedSum(chain), fed.backend->LiveSum(chain), fed.backend->NextLiveSum(chain)}) seen.push_back(n);
          }
        };
        note();
        if (forked_at == 60 && shape.window < 10) {
          CHECK(fed.backend->SharedSum(fork) > 0);
          if (factory.make == MakeCpuBackend) CHECK(fed.backend->Memory().kv_allocated_bytes < before * 2);
        }
        (void)alone.Feed(ids, 0, 60, 60);
        if (forked_at < 60) {
          (void)fed.Feed(ids, forked_at, 60, 60);
          note();
          for (size_t t = forked_at; t < 60; ++t) {
            const Row row = {fork, ids[t], false, true, t + 1 == 60};
            CHECK_OK(fed.backend->Forward({&row, 1}, nullptr));
          }
          note();
        }
        for (size_t t = 0; t < 30; ++t) {
          const Row rows[] = {{fed.chain, ids[60 + t], false}, {fork, other[t], false}};
          CHECK_OK(fed.backend->Forward(rows, nullptr));
          (void)alone.Feed(other, t, t + 1, 0);
          note();
        }
        fed.backend->FreeChain(std::exchange(fed.chain, fork));
        CHECK(Same(fed.Snapshots(), alone.Snapshots()));
      }
      CHECK(counts[0] == counts[1]);
    }
  }
}

void RunsSpendWhatTheyPlan() {
  for (const char* decode : {"true", "false"}) {
    const auto model = Open((fs::path(fixtures) / "models/tiny_qwen3").string(),
                            {{"policy", "kvzap"}, {"surrogate", SurrogateOf("mlp")}, {"threshold", "0.7"}, {"window", "8"}, {"decode", decode}});
    RunOptions options;
    options.prompt = Fixture((fs::path(fixtures) / "kvzap_mlp_decode.safetensors").string()).Ints("prompt_ids");
    options.width = 3;
    options.lengths = {20, 20, 20};
    options.sampling.temperature = 1.0f;
    options.prefill_chunk = 17;
    const auto run_on = [&](const BackendFactory& factory, int64_t budget) {
      options.kv_read_budget = budget;
      const auto run = Must(Run::Create(std::shared_ptr<Backend>(Must(factory.make(model, {}))), model, options));
      CHECK_OK(run->Prefill());
      while (run->Report().running > 0 && CHECK_OK(run->Step(1000))) {
      }
      return run->Report();
    };
    const RunReport oracle = run_on(Factories()[0], -1), report = run_on(Factories().back(), -1);
    CHECK(report.prefill_read_sum == 96 * 97 / 2 * report.head_count);
    int64_t reads = 0;
    for (size_t i = 0; i < 3; ++i) {
      const ChainReport &a = report.chains[i], &b = oracle.chains[i];
      CHECK(a.tokens == b.tokens && a.read_sum == b.read_sum && a.live_sum == b.live_sum);
      CHECK(a.peak_sum == 96 * report.head_count && a.decode_peak_sum < a.peak_sum && a.decode_peak_sum >= a.live_sum);
      reads += a.read_sum;
    }
    const int64_t budget = reads / report.head_count / 2;
    const RunReport half = run_on(Factories().back(), budget);
    const int64_t spent = half.chains[0].read_sum + half.chains[1].read_sum + half.chains[2].read_sum;
    CHECK(half.chains[0].finish == Finish::kBudget && spent <= budget * report.head_count && spent > (budget - 3 * 116) * report.head_count);
  }
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"the linear surrogate with decode gives the oracle's scores, masks and logits", LinearWithDecode},
      {"the linear surrogate on the prompt only does too", LinearPromptOnly},
      {"so does the mlp with decode", MlpWithDecode},
      {"so does the mlp on the prompt only", MlpPromptOnly},
      {"erf and GELU are accurate to the last bits", ErfAndGeluAreAccurate},
      {"backends, levels, chunks, threads and page sizes give the same bytes", BackendsGiveTheSameBytes},
      {"a threshold below all scores is dense, one above all is a window", ThresholdsAtTheEnds},
      {"a prompt is dense to its last token and then gives its memory back", APromptGivesItsMemoryBack},
      {"a prompt within the window is not pruned", AShortPromptIsNotPruned},
      {"forks share the pruned pages, forks of an open prompt part at its end", ForksShareThePrunedPages},
      {"runs spend what they plan, on every backend the same", RunsSpendWhatTheyPlan},
  });
}
