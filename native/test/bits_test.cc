// The law of bits (docs/NUMERICS.md): K, V and logits of a chain are a function of its tokens. Compared by memcmp, on each backend
// that is linked, against the oracle fed one token at a time. Usage: bits_test FIXTURES_DIR MODELS_DIR
#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "test/backends.h"
#include "test/check.h"
#include "test/fixture.h"

namespace rum::test {
namespace {


template <class T>
bool SameBytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

using Snapshots = std::vector<HeadSnapshot>;  // [layers * kv heads]

Snapshots SnapshotAll(const Backend& backend, ChainId chain, const ModelConfig& config) {
  Snapshots all;
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (int32_t j = 0; j < config.num_kv_heads; ++j) all.push_back(backend.Snapshot(chain, layer, j));
  }
  return all;
}

bool Same(const Snapshots& a, const Snapshots& b) {
  return std::ranges::equal(a, b, [](const HeadSnapshot& x, const HeadSnapshot& y) {
    return x.positions == y.positions && SameBytes(x.k, y.k) && SameBytes(x.v, y.v);
  });
}

// Feeds tokens in batches of `chunk` and returns the logits of all of them. [tokens, vocab]
std::vector<float> Feed(Backend& backend, ChainId chain, const std::vector<int32_t>& tokens, size_t chunk,
                        const ModelConfig& config) {
  const auto vocab = static_cast<size_t>(config.vocab_size);
  std::vector<float> logits(tokens.size() * vocab);
  for (size_t begin = 0; begin < tokens.size(); begin += chunk) {
    std::vector<Row> rows;
    for (size_t t = begin; t < std::min(begin + chunk, tokens.size()); ++t) rows.push_back({chain, tokens[t], true});
    CHECK_OK(backend.Forward(rows, &logits[begin * vocab]));
  }
  return logits;
}

// Tokens a reasoning model would see: the prompt and answer of a published output, repeated to the wanted length.
std::vector<int32_t> Tokens(size_t n) {
  const std::vector<int32_t> some = {1,  6,  28, 39, 38, 28, 8,  56, 4,  28, 39, 38, 28, 19, 38, 16, 28, 18, 31, 20, 39, 28,
                                     31, 19, 39, 15, 31, 18, 49, 20, 28, 49, 19, 56, 42, 14, 121, 56, 11, 5,  10, 38, 16, 28};
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < n; ++i) tokens.push_back(some[i % some.size()]);
  return tokens;
}

struct Case {
  std::shared_ptr<const Model> model;
  BackendOptions options;
};

std::vector<Case> Cases() {
  const std::string countdown = models + "/countdown/";
  const auto dense = Open(countdown + "dense"), cr4 = Open(countdown + "cr4"), cr8 = Open(countdown + "cr8");
  const auto separate = Open(fixtures + "/models/tiny_qwen3_dms_separate", {{"window", "5"}});
  const auto window1 = Open(fixtures + "/models/tiny_qwen3_dms", {{"window", "1"}});
  BackendOptions f32, bf16;
  f32.page_slots = 4;
  bf16.kv = KvType::kBF16;
  bf16.page_slots = 5;
  return {{dense, f32}, {dense, bf16}, {cr4, f32}, {cr8, f32}, {cr8, bf16}, {separate, f32}, {window1, f32}};
}

void BatchingChangesNoByte() {
  const std::vector<int32_t> tokens = Tokens(130);
  for (const Case& c : Cases()) {
    const ModelConfig& config = c.model->config;
    const auto oracle = Must(MakeReferenceBackend(c.model, c.options));
    const ChainId decoded = Must(oracle->NewChain());
    const std::vector<float> logits = Feed(*oracle, decoded, tokens, 1, config);
    const Snapshots snapshots = SnapshotAll(*oracle, decoded, config);
    for (const BackendFactory& factory : Factories()) {
      const auto backend = Must(factory.make(c.model, c.options));
      for (const size_t chunk : {size_t{1}, size_t{3}, size_t{17}, tokens.size()}) {
        const ChainId chain = Must(backend->NewChain());
        CHECK(SameBytes(Feed(*backend, chain, tokens, chunk, config), logits));
        CHECK(Same(SnapshotAll(*backend, chain, config), snapshots));
        CHECK(backend->LiveSum(chain) == oracle->LiveSum(decoded) && backend->NextLiveSum(chain) == oracle->NextLiveSum(decoded));
        backend->FreeChain(chain);
      }
    }
  }
}

// Chains with different tokens at different positions in one batch, several rows each.
void OtherChainsInTheBatchChangeNoByte() {
  for (const Case& c : Cases()) {
    const ModelConfig& config = c.model->config;
    const auto vocab = static_cast<size_t>(config.vocab_size);
    for (const BackendFactory& factory : Factories()) {
      const auto backend = Must(factory.make(c.model, c.options));
      std::mt19937 random(3);
      std::vector<ChainId> chains;
      std::vector<std::vector<int32_t>> fed(4);
      std::vector<std::vector<float>> logits(4);
      for (int i = 0; i < 4; ++i) chains.push_back(Must(backend->NewChain()));
      for (int batch = 0; batch < 12; ++batch) {
        std::vector<Row> rows;
        std::vector<size_t> owner;
        for (size_t i = 0; i < chains.size(); ++i) {
          for (size_t n = random() % 7; n > 0; --n) {
            const auto token = static_cast<int32_t>(random() % 50);
            fed[i].push_back(token);
            owner.push_back(i);
            rows.push_back({chains[i], token, true});
          }
        }
        std::vector<float> out(rows.size() * vocab);
        CHECK_OK(backend->Forward(rows, out.data()));
        for (size_t r = 0; r < rows.size(); ++r) {
          const auto row = out.begin() + static_cast<std::ptrdiff_t>(r * vocab);
          logits[owner[r]].insert(logits[owner[r]].end(), row, row + static_cast<std::ptrdiff_t>(vocab));
        }
      }
      for (size_t i = 0; i < chains.size(); ++i) {
        const auto oracle = Must(MakeReferenceBackend(c.model, c.options));
        const ChainId alone = Must(oracle->NewChain());
        CHECK(SameBytes(Feed(*oracle, alone, fed[i], 1, config), logits[i]));
        CHECK(Same(SnapshotAll(*backend, chains[i], config), SnapshotAll(*oracle, alone, config)));
      }
    }
  }
}

// --- Forks -----------------------------------------------------------------------------------------------------------------------

// Decisions of one position, [layers * kv heads].
class Decisions final : public TraceSink {
 public:
  explicit Decisions(const ModelConfig& config)
      : heads_(config.num_kv_heads), evicts(static_cast<size_t>(config.num_layers * heads_)) {}
  void OnToken(ChainId, int32_t layer, int32_t, const float* logits, const int32_t*) override {
    for (int32_t j = 0; j < heads_; ++j) evicts[static_cast<size_t>(layer * heads_ + j)] = logits[j] > 0.0f;
  }

 private:
  int32_t heads_;

 public:
  std::vector<bool> evicts;
};

// Two first tokens that disagree about the last prompt token in some head, and that head.
struct Disagreement {
  int32_t keeps = -1, drops = -1;  // tokens
  size_t head = 0;
};

Disagreement FindDisagreement(const Case& c, const std::vector<int32_t>& prompt) {
  const auto oracle = Must(MakeReferenceBackend(c.model, c.options));
  const ChainId source = Must(oracle->NewChain());
  (void)Feed(*oracle, source, prompt, prompt.size(), c.model->config);
  Decisions decisions(c.model->config);
  oracle->SetTrace(&decisions);
  std::vector<Disagreement> heads(decisions.evicts.size());
  for (int32_t token = 0; token < c.model->config.vocab_size; ++token) {
    const ChainId fork = Must(oracle->ForkChain(source));
    (void)Feed(*oracle, fork, {token}, 1, c.model->config);
    oracle->FreeChain(fork);
    for (size_t h = 0; h < heads.size(); ++h) {
      (decisions.evicts[h] ? heads[h].drops : heads[h].keeps) = token;
      heads[h].head = h;
      if (heads[h].keeps >= 0 && heads[h].drops >= 0) return heads[h];
    }
  }
  return {};
}

bool Sees(const HeadSnapshot& head, int32_t position) { return std::ranges::binary_search(head.positions, position); }

void ForksDecideAboutTheLastPromptToken() {
  const Case c{Open(models + "/countdown/cr8"), BackendOptions{.page_slots = 4}};
  const ModelConfig& config = c.model->config;
  int found = 0;
  // Prompts of every length modulo the page, so that the last token falls on each slot of its page.
  for (size_t prompt_size = 60; prompt_size < 68; ++prompt_size) {
    const std::vector<int32_t> prompt = Tokens(prompt_size);
    const Disagreement split = FindDisagreement(c, prompt);
    if (split.keeps < 0) continue;
    ++found;
    // Long enough for the last prompt token to leave the window, and for the chains to fill pages of their own.
    std::vector<int32_t> kept = {split.keeps}, dropped = {split.drops};
    for (int32_t i = 0; i < 3 * config.policy.window; ++i) {
      kept.push_back(7 + i % 40);
      dropped.push_back(9 + i % 30);
    }
    for (const BackendFactory& factory : Factories()) {
      const auto backend = Must(factory.make(c.model, c.options));
      const ChainId a = Must(backend->NewChain());
      (void)Feed(*backend, a, prompt, 16, config);
      const ChainId b = Must(backend->ForkChain(a));
      const ChainId idle = Must(backend->ForkChain(a));
      CHECK(backend->SharedSum(a) > 0);
      for (size_t i = 0; i < kept.size(); ++i) {
        const Row rows[] = {{a, kept[i], false}, {b, dropped[i], false}};
        CHECK_OK(backend->Forward(rows, nullptr));
      }
      const auto alone = [&](std::vector<int32_t> tail) {
        const auto oracle = Must(MakeReferenceBackend(c.model, c.options));
        const ChainId chain = Must(oracle->NewChain());
        tail.insert(tail.begin(), prompt.begin(), prompt.end());
        (void)Feed(*oracle, chain, tail, 1, config);
        return SnapshotAll(*oracle, chain, config);
      };
      const Snapshots of_a = SnapshotAll(*backend, a, config), of_b = SnapshotAll(*backend, b, config);
      const auto last = static_cast<int32_t>(prompt_size - 1);
      CHECK(Sees(of_a[split.head], last) && !Sees(of_b[split.head], last));
      CHECK(Same(of_a, alone(kept)));
      CHECK(Same(of_b, alone(dropped)));
      CHECK(Same(SnapshotAll(*backend, idle, config), alone({})));
    }
  }
  CHECK(found >= 4);
}

// By the definition in backend.h, from what Snapshot says.
int64_t SealedAtFork(const Backend& backend, ChainId chain, const Case& c) {
  const int32_t window = c.model->config.policy.kind == PolicyKind::kDense ? 0 : c.model->config.policy.window;
  int64_t sum = 0;
  for (const HeadSnapshot& head : SnapshotAll(backend, chain, c.model->config)) {
    const auto ring = head.positions.end() - std::ranges::lower_bound(head.positions, backend.Length(chain) - (window + 1));
    const int64_t survivors = static_cast<int64_t>(head.positions.size()) - ring;
    sum += survivors / c.options.page_slots * c.options.page_slots;
  }
  return sum;
}

void SharedPagesAreCountedWhileShared() {
  for (const Case& c : Cases()) {
    for (const BackendFactory& factory : Factories()) {
      const auto backend = Must(factory.make(c.model, c.options));
      const ChainId a = Must(backend->NewChain());
      (void)Feed(*backend, a, Tokens(130), 50, c.model->config);
      CHECK(backend->SharedSum(a) == 0);
      const int64_t first = SealedAtFork(*backend, a, c);
      const ChainId b = Must(backend->ForkChain(a));
      CHECK(first > 0 && backend->SharedSum(a) == first && backend->SharedSum(b) == first);
      (void)Feed(*backend, a, Tokens(90), 50, c.model->config);
      CHECK(backend->SharedSum(a) == first);
      const int64_t second = SealedAtFork(*backend, a, c);
      const ChainId d = Must(backend->ForkChain(a));
      CHECK(second > first && backend->SharedSum(a) == second && backend->SharedSum(b) == first && backend->SharedSum(d) == second);
      backend->FreeChain(d);
      CHECK(backend->SharedSum(a) == first && backend->SharedSum(b) == first);
      backend->FreeChain(a);
      CHECK(backend->SharedSum(b) == 0);
      backend->FreeChain(b);
      CHECK(backend->Memory().kv_allocated_bytes == 0);
    }
  }
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"decode, one-shot and chunked prefill give the same bytes of K, V and logits", BatchingChangesNoByte},
      {"other chains in the batch change no byte", OtherChainsInTheBatchChangeNoByte},
      {"forks that keep and drop the last prompt token equal chains of their own", ForksDecideAboutTheLastPromptToken},
      {"prompt pages are counted as shared while another chain holds them", SharedPagesAreCountedWhileShared},
  });
}
