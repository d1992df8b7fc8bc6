// The oracle against the fixtures of test/fixtures/README.md (METHOD.md 7): logits within 1e-3, greedy tokens, decisions, live
// counts, visible masks and accounting exact.
// Usage: reference_test FIXTURES_DIR MODELS_DIR
#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "core/exact_math.h"
#include "test/backends.h"
#include "test/check.h"
#include "test/fixture.h"
#include "test/recorder.h"

namespace rum::test {
namespace {

constexpr float kLogitTolerance = 1e-3f;


struct Outcome {
  std::unique_ptr<Backend> backend;
  ChainId chain = 0;
  std::vector<float> logits;  // [tokens, vocab]
  std::unique_ptr<Recorder> trace;
  std::vector<int64_t> live_sums;  // [tokens] by LiveSum after each token
};

Outcome Feed(const std::shared_ptr<const Model>& model, const std::vector<int32_t>& ids,
             const BackendFactory& factory = Factories().front()) {
  Outcome out;
  out.backend = Must(factory.make(model, {}));
  out.chain = Must(out.backend->NewChain());
  out.trace = std::make_unique<Recorder>(model->config, ids.size());
  out.backend->SetTrace(out.trace.get());
  const auto vocab = static_cast<size_t>(model->config.vocab_size);
  out.logits.resize(ids.size() * vocab);
  for (size_t t = 0; t < ids.size(); ++t) {
    const int64_t predicted = out.backend->NextLiveSum(out.chain);
    const Row row{out.chain, ids[t], true};
    if (!CHECK_OK(out.backend->Forward({&row, 1}, &out.logits[t * vocab]))) break;
    out.live_sums.push_back(out.backend->LiveSum(out.chain));
    CHECK(out.live_sums.back() == predicted);
  }
  return out;
}

float MaxDifference(const std::vector<float>& a, const std::vector<float>& b) {
  if (!CHECK(a.size() == b.size())) return INFINITY;
  float max = 0.0f;
  for (size_t i = 0; i < a.size(); ++i) max = std::max(max, std::fabs(a[i] - b[i]));
  return max;
}

// The prediction after token t is token t + 1, for the greedily generated part.
void CheckGreedy(const Outcome& out, const std::vector<int32_t>& ids, size_t prompt_size) {
  const size_t vocab = out.logits.size() / ids.size();
  std::vector<int32_t> generated;
  for (size_t t = prompt_size - 1; t + 1 < ids.size(); ++t) {
    const auto row = out.logits.begin() + static_cast<std::ptrdiff_t>(t * vocab);
    generated.push_back(static_cast<int32_t>(std::max_element(row, row + static_cast<std::ptrdiff_t>(vocab)) - row));
  }
  CHECK(std::ranges::equal(generated, std::span(ids).subspan(prompt_size)));
}

void CheckDense(const std::string& name, const std::string& directory) {
  const Fixture fixture(fixtures + "/" + name + ".safetensors");
  const auto model = Open(fixtures + "/models/" + directory);
  const std::vector<int32_t> ids = fixture.Ints("all_ids");
  for (const BackendFactory& factory : Factories()) {
    const Outcome out = Feed(model, ids, factory);
    if (!CHECK(MaxDifference(out.logits, fixture.Floats("logits")) <= kLogitTolerance)) std::printf("    on %s\n", factory.name);
    CheckGreedy(out, ids, fixture.Ints("prompt_ids").size());
    const int64_t heads = model->config.num_layers * model->config.num_kv_heads;
    for (size_t t = 0; t < ids.size(); t += 32) CHECK(out.live_sums[t] == heads * static_cast<int64_t>(t + 1));
  }
}

void DenseQwen3() {
  CheckDense("dense_qwen3", "tiny_qwen3");
  CheckDense("dense_qwen3", "tiny_qwen3_sharded");
}
void DenseLlama31() { CheckDense("dense_llama31", "tiny_llama31"); }
void DenseQwen2() { CheckDense("dense_qwen2", "tiny_qwen2"); }

void TiedBf16Weights() {
  const Fixture tied(fixtures + "/dense_qwen3_tied_bf16.safetensors");
  const Outcome out = Feed(Open(fixtures + "/models/tiny_qwen3_tied_bf16"), tied.Ints("prompt_ids"));
  CHECK(MaxDifference(out.logits, tied.Floats("logits_f32_of_bf16_weights")) <= kLogitTolerance);
}

// visible[layer][head][last query] against Snapshot's positions.
void CheckVisible(const Outcome& out, const Fixture& fixture, const ModelConfig& config, size_t tokens) {
  const std::vector<uint8_t> visible = fixture.Bytes("visible");
  for (int32_t layer = 0; layer < config.num_layers; ++layer) {
    for (int32_t j = 0; j < config.num_kv_heads; ++j) {
      const HeadSnapshot snapshot = out.backend->Snapshot(out.chain, layer, j);
      const auto head = static_cast<size_t>(layer * config.num_kv_heads + j);
      std::vector<int32_t> expected;
      for (size_t k = 0; k < tokens; ++k) {
        if (visible[(head * tokens + tokens - 1) * tokens + k]) expected.push_back(static_cast<int32_t>(k));
      }
      CHECK(snapshot.positions == expected);
      CHECK(snapshot.k.size() == expected.size() * static_cast<size_t>(config.head_dim));
      CHECK(snapshot.v.size() == snapshot.k.size());
    }
  }
}

void CheckDms(const std::string& name, const std::string& directory, const PolicyOverrides& overrides) {
  const std::string path = fixtures + "/" + name;
  const Fixture fixture(path + ".safetensors");
  const auto model = Open(fixtures + "/models/" + directory, overrides);
  const std::vector<int32_t> ids = fixture.Ints("all_ids");
  const size_t prompt_size = fixture.Ints("prompt_ids").size();
  const Outcome out = Feed(model, ids);

  CHECK(MaxDifference(out.logits, fixture.Floats("logits")) <= kLogitTolerance);
  CheckGreedy(out, ids, prompt_size);
  // Scaled by 100, so looser than the logits; the sign is exact.
  CHECK(MaxDifference(out.trace->decision_logits, fixture.Floats("decision_logits")) <= 1e-2f);
  const std::vector<uint8_t> decisions = fixture.Bytes("evict_decision");
  CHECK(std::ranges::equal(out.trace->decision_logits, decisions, [](float x, uint8_t d) { return (x > 0.0f) == (d != 0); }));
  CHECK(out.trace->live == fixture.Ints("live_count"));
  CheckVisible(out, fixture, model->config, ids.size());

  const JsonFile json(path + ".json");
  const double heads = model->config.num_layers * model->config.num_kv_heads;
  double reads_all = 0.0, reads_decode = 0.0, peak = 0.0;
  for (size_t t = 0; t < ids.size(); ++t) {
    const double mean = static_cast<double>(out.live_sums[t]) / heads;
    reads_all += mean;
    if (t >= prompt_size) reads_decode += mean;
    peak = std::max(peak, mean);
  }
  CHECK(std::fabs(reads_all - Get<double>(json.root()["kv_reads_all"])) <= 1e-6);
  CHECK(std::fabs(reads_decode - Get<double>(json.root()["kv_reads_decode"])) <= 1e-6);
  CHECK(std::fabs(peak - Get<double>(json.root()["peak_tokens"])) <= 1e-6);
}

void RefusesForeignTokens() {
  const auto backend = Must(MakeReferenceBackend(Open(fixtures + "/models/tiny_qwen3"), {}));
  const ChainId chain = Must(backend->NewChain());
  for (const int32_t token : {-1, 128}) {
    const Row rows[] = {{chain, 1, false}, {chain, token, false}};
    CHECK(Has(backend->Forward(rows, nullptr), kErrOption));
    CHECK(backend->Length(chain) == 0);
  }
  BackendOptions options;
  options.page_slots = 0;
  CHECK(Has(MakeReferenceBackend(Open(fixtures + "/models/tiny_qwen3"), options).status(), kErrOption));
}

void Bf16CacheIsRounded() {
  const auto model = Open(fixtures + "/models/tiny_qwen3");
  BackendOptions options;
  const auto f32 = Must(MakeReferenceBackend(model, options));
  options.kv = KvType::kBF16;
  const auto bf16 = Must(MakeReferenceBackend(model, options));
  const ChainId a = Must(f32->NewChain()), b = Must(bf16->NewChain());
  for (int32_t t = 0; t < 20; ++t) {
    const Row rows[] = {{a, t, false}, {b, t, false}};
    CHECK_OK(f32->Forward({&rows[0], 1}, nullptr));
    CHECK_OK(bf16->Forward({&rows[1], 1}, nullptr));
  }
  const HeadSnapshot exact = f32->Snapshot(a, 0, 1), rounded = bf16->Snapshot(b, 0, 1);
  const auto round = [](float x) { return FromBf16(ToBf16(x)); };
  CHECK(std::ranges::equal(rounded.k, exact.k, {}, {}, round));
  CHECK(std::ranges::equal(rounded.v, exact.v, {}, {}, round));
}

void BorrowedWindow8() { CheckDms("dms_borrowed_w8", "tiny_qwen3_dms", {}); }
void BorrowedWindow3() { CheckDms("dms_borrowed_w3", "tiny_qwen3_dms", {{"window", "3"}}); }
void SeparatePerHead() { CheckDms("dms_separate_head_w8", "tiny_qwen3_dms_separate", {}); }
void SeparatePerLayer() { CheckDms("dms_separate_layer_w8", "tiny_qwen3_dms_separate", {{"alpha_per", "layer"}}); }

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"dense Qwen3 gives the logits and greedy tokens of transformers on every backend", DenseQwen3},
      {"dense Llama 3.1 with its scaled RoPE gives them too", DenseLlama31},
      {"dense Qwen2 with its biases gives them too", DenseQwen2},
      {"tied BF16 weights give the logits of the widened weights", TiedBf16Weights},
      {"DMS with a borrowed channel, window 8: logits, decisions, masks and accounting", BorrowedWindow8},
      {"DMS with a borrowed channel, window 3", BorrowedWindow3},
      {"DMS with its own projection, one decision for each head", SeparatePerHead},
      {"DMS with its own projection, one decision for each layer", SeparatePerLayer},
      {"a token outside the vocabulary is an option error and feeds nothing", RefusesForeignTokens},
      {"a BF16 cache holds the F32 keys and values of the first layer, rounded", Bf16CacheIsRounded},
  });
}
