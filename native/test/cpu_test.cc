// The law of bits (docs/NUMERICS.md): the cpu backend gives the bytes of the reference whatever the level, the threads, the chunks,
// the page size or the company in the batch. And the cache really frees memory.
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/thread_pool.h"
#include "cache/chain_cache.h"
#include "test/check.h"
#include "test/pass.h"
#include "test/synthetic.h"

namespace rum::test {
namespace {

// Sizes that are no multiple of 16 or 32, groups of 1, 3 and 5, odd columns for the BF16 pairs.
const Shape kShapes[] = {
    {"dense f32", 61, 40, 72, 2, 3, 1, 24, 0, PolicyKind::kDense, false, true, DType::kF32, KvType::kF32},
    {"borrowed f32", 50, 48, 80, 2, 4, 2, 16, 5, PolicyKind::kDmsBorrowed, false, true, DType::kF32, KvType::kF32},
    {"borrowed bf16", 50, 33, 47, 2, 5, 1, 20, 3, PolicyKind::kDmsBorrowed, false, true, DType::kBF16, KvType::kBF16},
    {"separate f16", 50, 64, 96, 2, 2, 2, 40, 7, PolicyKind::kDmsSeparate, false, true, DType::kF16, KvType::kF32},
    {"separate per layer, no norm", 70, 32, 64, 3, 6, 2, 72, 4, PolicyKind::kDmsSeparate, true, false, DType::kF32, KvType::kBF16},
    {"window 20", 50, 48, 80, 1, 4, 2, 32, 20, PolicyKind::kDmsBorrowed, false, true, DType::kF32, KvType::kF32},
    {"llama3 rope, dense", 50, 40, 72, 2, 4, 2, 24, 0, PolicyKind::kDense, false, false, DType::kBF16, KvType::kF32, Bias::kNone,
     RopeType::kLlama3},
    {"llama borrowed", 50, 48, 80, 2, 4, 2, 16, 5, PolicyKind::kDmsBorrowed, false, false, DType::kF32, KvType::kF32, Bias::kNone,
     RopeType::kLlama3},
    {"qwen2 borrowed, biases, yarn", 50, 36, 52, 2, 6, 2, 20, 6, PolicyKind::kDmsBorrowed, false, false, DType::kBF16, KvType::kBF16,
     Bias::kQkv, RopeType::kYarn},
    {"qwen2 separate, biases, linear", 50, 48, 64, 2, 4, 4, 12, 4, PolicyKind::kDmsSeparate, false, false, DType::kF32, KvType::kF32,
     Bias::kQkv, RopeType::kLinear},
    {"llama separate, all biases", 50, 33, 48, 2, 3, 3, 16, 4, PolicyKind::kDmsSeparate, false, false, DType::kF16, KvType::kF32,
     Bias::kAll, RopeType::kLlama3},
    {"qwen3 with all biases", 50, 40, 48, 2, 4, 1, 24, 8, PolicyKind::kDmsSeparate, true, true, DType::kF32, KvType::kF32,
     Bias::kAll, RopeType::kYarn},
};

void CpuGivesTheBytesOfTheReference() {
  for (const Shape& shape : kShapes) {
    const ModelConfig config = ConfigOf(shape);
    const auto model = MakeSynthetic(config, shape.types, 7);
    const auto ids = Tokens(90, config.vocab_size, 3);
    BackendOptions options;
    options.kv = shape.kv;
    const Outcome want = ReferencePass(model, ids, shape.kv);
    if (shape.policy != PolicyKind::kDense) {
      const int64_t dense = int64_t{90} * config.num_layers * config.num_kv_heads;
      CHECK(want.live < dense && want.live > (shape.window + 1) * config.num_layers * config.num_kv_heads);
    }
    for (const Isa isa : Levels()) {
      for (const int32_t threads : {1, 2, 3}) {
        options.isa = isa;
        options.threads = threads;
        for (const int32_t page_slots : {4, 16, 64}) {
          options.page_slots = page_slots;
          auto cpu = MakeCpuBackend(model, options);
          CHECK_OK(cpu.status());
          for (const int32_t chunk : {1, 7, 90}) {
            if (!CHECK(Pass(**cpu, config, ids, chunk) == want)) {
              std::printf("    %s: %s, %d threads, %d slots, chunk %d\n", shape.name, IsaName(isa), threads, page_slots, chunk);
            }
          }
        }
      }
    }
  }
}

// Otherwise two backends that both forget one would agree.
void EveryBiasHasAPartInTheResult() {
  const Shape& shape = kShapes[std::size(kShapes) - 1];
  const ModelConfig config = ConfigOf(shape);
  const auto model = MakeSynthetic(config, shape.types, 7);
  const auto ids = Tokens(60, config.vocab_size, 3);
  const Outcome want = Pass(**MakeReferenceBackend(model, {}), config, ids, 1);
  using L = LayerWeights;
  for (TensorView L::* bias : {&L::q_bias, &L::k_bias, &L::v_bias, &L::o_bias, &L::alpha_bias}) {
    auto without = std::make_shared<Model>(*model);
    for (L& layer : without->layers) layer.*bias = {};
    CHECK(!(Pass(**MakeReferenceBackend(without, {}), config, ids, 1) == want));
  }
}

void CompanyInTheBatchChangesNothing() {
  for (const Shape& shape : kShapes) {
    const ModelConfig config = ConfigOf(shape);
    const auto model = MakeSynthetic(config, shape.types, 11);
    const auto ids = Tokens(60, config.vocab_size, 5);
    for (const Isa isa : Levels()) {
      BackendOptions options;
      options.kv = shape.kv;
      options.isa = isa;
      auto cpu = MakeCpuBackend(model, options);
      CHECK_OK(cpu.status());
      const Outcome alone = Pass(**cpu, config, ids, 1);
      for (const int32_t company : {1, 2, 7, 14}) CHECK(Pass(**cpu, config, ids, 1, company) == alone);
    }
  }
}

// Forks after every prefix: the fork and its source go different ways and each equals a chain that was never forked.
void AForkSharesPagesAndDecidesOnItsOwn() {
  const ModelConfig config = ConfigOf(kShapes[1]);
  const auto model = MakeSynthetic(config, DType::kF32, 7);
  BackendOptions options;
  options.page_slots = 4;
  auto cpu = MakeCpuBackend(model, options);
  CHECK_OK(cpu.status());
  Backend& b = **cpu;
  const auto ids = Tokens(80, config.vocab_size, 9);
  for (size_t cut = 1; cut < 60; cut += 3) {
    const auto feed = [&](ChainId chain, int32_t token) {
      std::vector<float> logits(static_cast<size_t>(config.vocab_size));
      const Row row{chain, token, true};
      CHECK_OK(b.Forward({&row, 1}, logits.data()));
      return logits;
    };
    const ChainId source = *b.NewChain();
    for (size_t i = 0; i < cut; ++i) feed(source, ids[i]);
    const ChainId fork = *b.ForkChain(source);
    const ChainId alone_a = *b.NewChain(), alone_b = *b.NewChain();
    for (size_t i = 0; i < cut; ++i) {
      feed(alone_a, ids[i]);
      feed(alone_b, ids[i]);
    }
    for (size_t i = cut; i < 80; ++i) {
      const int32_t other = (ids[i] + 1) % config.vocab_size;
      CHECK(feed(source, ids[i]) == feed(alone_a, ids[i]));
      CHECK(feed(fork, other) == feed(alone_b, other));
    }
    CHECK(b.SharedSum(alone_a) == 0);
    for (const ChainId c : {source, fork, alone_a, alone_b}) b.FreeChain(c);
  }
  CHECK(b.Memory().kv_allocated_bytes == 0);
}

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * 4096;
}

void EvictedTokensCostNoMemoryAndFreedChainsGiveItBack() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return;  // resident bytes are the sanitizer's own
#endif
  if (ResidentBytes() == 0) return;  // no /proc
  Shape shape = kShapes[1];
  shape.head_dim = 64;
  shape.hidden = 64;
  ModelConfig config = ConfigOf(shape);
  config.max_positions = 4096;
  const auto model = MakeSynthetic(config, DType::kF32, 7);
  auto cpu = MakeCpuBackend(model, {});
  CHECK_OK(cpu.status());
  Backend& b = **cpu;
  const auto ids = Tokens(3000, config.vocab_size, 1);
  std::vector<Row> rows;
  const auto run = [&](int32_t chains) {
    std::vector<ChainId> made;
    for (int32_t c = 0; c < chains; ++c) {
      made.push_back(*b.NewChain());
      for (size_t at = 0; at < ids.size(); at += 100) {
        rows.clear();
        for (size_t i = at; i < at + 100; ++i) rows.push_back({made.back(), ids[i], false});
        CHECK_OK(b.Forward(rows, nullptr));
      }
    }
    return made;
  };
  for (const ChainId c : run(1)) b.FreeChain(c);  // activations and scratch reach their size
  const int64_t before = ResidentBytes();
  const auto chains = run(12);
  int64_t live = 0;
  for (const ChainId c : chains) live += b.LiveSum(c);
  const int64_t bytes_per_entry = 2 * 4 * config.head_dim + 4;
  const int64_t needed = live * bytes_per_entry, grown = ResidentBytes() - before;
  const int64_t dense = int64_t{12} * 3000 * config.num_layers * config.num_kv_heads * bytes_per_entry;
  std::printf("  resident grew by %lld KiB for %lld KiB of live entries (dense: %lld KiB)\n", static_cast<long long>(grown / 1024),
              static_cast<long long>(needed / 1024), static_cast<long long>(dense / 1024));
  CHECK(needed < dense * 3 / 4);
  CHECK(grown < needed * 5 / 4 + (int64_t{1} << 20));
  CHECK(b.Memory().kv_allocated_bytes >= needed);
  for (const ChainId c : chains) b.FreeChain(c);
  CHECK(b.Memory().kv_allocated_bytes == 0);
  CHECK(ResidentBytes() - before < (int64_t{1} << 20) + needed / 8);
}

void NextLiveIsKnownBeforeTheToken() {
  for (const Shape& shape : kShapes) {
    const ModelConfig config = ConfigOf(shape);
    auto cpu = MakeCpuBackend(MakeSynthetic(config, shape.types, 3), {});
    CHECK_OK(cpu.status());
    const ChainId chain = *(*cpu)->NewChain();
    for (const int32_t id : Tokens(100, config.vocab_size, 2)) {
      const int64_t next = (*cpu)->NextLiveSum(chain);
      const Row row{chain, id, false};
      CHECK_OK((*cpu)->Forward({&row, 1}, nullptr));
      CHECK((*cpu)->LiveSum(chain) == next);
    }
  }
}

void KernelsAgreeOnEveryFloatOfExpAndSilu() {
  std::vector<float> x, one;
  for (uint32_t u = 0; u < 0xffffffffu - 70001u; u += 70001u) x.push_back(std::bit_cast<float>(u));
  for (const float f : {0.0f, -0.0f, 87.0f, 88.0f, 88.1f, -87.0f, -87.1f, INFINITY, -INFINITY, 1e-40f}) x.push_back(f);
  one.assign(x.size(), 1.0f);
  const auto n = static_cast<int64_t>(x.size());
  for (const Isa isa : Levels()) {
    std::vector<float> y(x.size());
    KernelsFor(isa)->silu_mul(x.data(), one.data(), y.data(), n);
    for (size_t i = 0; i < x.size(); ++i) {
      const float want = SiluF(x[i]);
      CHECK(std::bit_cast<uint32_t>(y[i]) == std::bit_cast<uint32_t>(want) || (y[i] != y[i] && want != want));
    }
  }
}

void ThreadsDoEveryItemOnce() {
  for (const int32_t threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 2000; ++round) {
      std::vector<int32_t> done(static_cast<size_t>(round % 37), 0);
      pool.Run(static_cast<int64_t>(done.size()), round % 2 == 0 ? int64_t{1} << 40 : 0, [&](int64_t begin, int64_t end, int32_t) {
        for (int64_t i = begin; i < end; ++i) ++done[static_cast<size_t>(i)];
      });
      for (const int32_t d : done) CHECK(d == 1);
    }
  }
}

void TokensOutsideTheVocabularyAreRefused() {
  const ModelConfig config = ConfigOf(kShapes[0]);
  auto cpu = MakeCpuBackend(MakeSynthetic(config, DType::kF32, 3), {});
  CHECK_OK(cpu.status());
  const ChainId chain = *(*cpu)->NewChain();
  for (const int32_t bad : {-1, config.vocab_size, INT32_MAX}) {
    const Row row{chain, bad, false};
    const Status s = (*cpu)->Forward({&row, 1}, nullptr);
    CHECK(!s.ok() && std::string(s.code) == kErrOption);
  }
  CHECK((*cpu)->Length(chain) == 0);
}

}  // namespace
}  // namespace rum::test

int main() {
  using namespace rum::test;
  return RunAll({
      {"every level gives the bits of ExpF and SiluF for floats of every size", KernelsAgreeOnEveryFloatOfExpAndSilu},
      {"a thread pool does every item once", ThreadsDoEveryItemOnce},
      {"cpu gives the bytes of the reference at every level, thread count, page size and chunk", CpuGivesTheBytesOfTheReference},
      {"every bias has a part in the result", EveryBiasHasAPartInTheResult},
      {"company in the batch changes no byte", CompanyInTheBatchChangesNothing},
      {"a fork shares sealed pages and goes its own way bit for bit", AForkSharesPagesAndDecidesOnItsOwn},
      {"the live length of the next step is known before it", NextLiveIsKnownBeforeTheToken},
      {"evicted tokens cost no memory and freed chains give theirs back", EvictedTokensCostNoMemoryAndFreedChainsGiveItBack},
      {"a token outside the vocabulary is refused and feeds nothing", TokensOutsideTheVocabularyAreRefused},
  });
}
