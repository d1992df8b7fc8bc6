// The digest of a model's weights: of their values and places alone, whatever their files, and of every byte of them.
// Usage: model_digest_test MODELS_DIR
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/model_digest.h"
#include "test/check.h"
#include "test/fixture.h"
#include "test/synthetic.h"

namespace rum::test {
namespace {

std::string directory;  // set once by main

void OneByOne(int64_t items, const std::function<void(int64_t)>& f) {
  for (int64_t i = 0; i < items; ++i) f(i);
}

void OnThreads(int64_t items, const std::function<void(int64_t)>& f) {
  std::vector<std::thread> threads;
  for (int64_t i = items; i-- > 0;) threads.emplace_back([&f, i] { f(i); });
  for (std::thread& thread : threads) thread.join();
}

Digest DigestOf(const Model& model, int64_t pieces = 1, const ParallelFor& parallel = OneByOne) {
  WeightsHasher hasher(model);
  while (!hasher.done()) hasher.Advance(pieces, parallel);
  return hasher.Finish();
}

ModelConfig Config() {
  ModelConfig c;
  c.model_type = "qwen3";
  c.vocab_size = 10'000;  // embed and lm_head have two pieces of F32
  c.hidden_size = 128;
  c.intermediate_size = 192;
  c.num_layers = 2;
  c.num_heads = 2;
  c.num_kv_heads = 2;
  c.head_dim = 64;
  c.max_positions = 100;
  c.qk_norm = true;
  return c;
}

// Synthetic weights lie in memory of the test's own.
uint8_t* BytesOf(const TensorView& view) { return static_cast<uint8_t*>(const_cast<void*>(view.data)); }

std::vector<TensorView> TensorsOf(const Model& model) {
  std::vector<TensorView> all = {model.embed, model.final_norm, model.lm_head};
  for (const LayerWeights& w : model.layers) {
    for (const TensorView& t : {w.input_norm, w.q_proj, w.k_proj, w.v_proj, w.q_norm, w.k_norm, w.o_proj, w.post_norm, w.gate_proj, w.up_proj, w.down_proj}) {
      all.push_back(t);
    }
  }
  return all;
}

void ThreadsAndSlicesDoNotMatter() {
  const auto model = MakeSynthetic(Config(), DType::kF32, 3);
  const Digest digest = DigestOf(*model);
  for (const int64_t pieces : {2, 3, 1000}) {
    CHECK(DigestOf(*model, pieces) == digest);
    CHECK(DigestOf(*model, pieces, OnThreads) == digest);
  }
}

void EveryTensorCountsFromItsFirstByteToItsLast() {
  const auto model = MakeSynthetic(Config(), DType::kF32, 3);
  const Digest digest = DigestOf(*model);
  for (const TensorView& tensor : TensorsOf(*model)) {
    const int64_t bytes = tensor.rows * tensor.cols * 4;
    for (const int64_t at : {int64_t{0}, std::min(bytes - 1, WeightsHasher::kPieceBytes), bytes - 1}) {
      BytesOf(tensor)[at] ^= 1;
      CHECK(DigestOf(*model) != digest);
      BytesOf(tensor)[at] ^= 1;
    }
  }
  CHECK(DigestOf(*model) == digest);
}

void PlacesTypesAndShapesCount() {
  const auto owner = MakeSynthetic(Config(), DType::kBF16, 4);
  const Digest digest = DigestOf(*owner);
  Model model = *owner;
  std::swap(model.layers[0].gate_proj, model.layers[0].up_proj);
  CHECK(DigestOf(model) != digest);
  model = *owner;
  std::swap(model.layers[0], model.layers[1]);
  CHECK(DigestOf(model) != digest);
  model = *owner;
  model.layers[0].q_proj.dtype = DType::kF16;  // the same bytes, other numbers
  CHECK(DigestOf(model) != digest);
  model = *owner;
  std::swap(model.layers[0].gate_proj.rows, model.layers[0].gate_proj.cols);
  CHECK(DigestOf(model) != digest);
  model = *owner;
  model.layers[1].q_norm = {};
  CHECK(DigestOf(model) != digest);
  model.layers[1].q_norm = owner->layers[1].q_norm;
  CHECK(DigestOf(model) == digest);
}

void ScalesOfNf4Count() {
  const auto model = MakeSynthetic(Config(), DType::kNf4, 5);
  const Digest digest = DigestOf(*model);
  CHECK(DigestOf(*model, 7, OnThreads) == digest);
  for (const TensorView& tensor : {model->embed, model->layers[0].q_proj, model->layers[1].down_proj}) {
    if (!CHECK(tensor.nf4 != nullptr)) return;
    const auto blocks = Nf4BlockCount(tensor);
    for (const int64_t block : {int64_t{0}, blocks - 1}) {
      auto* codes = const_cast<uint8_t*>(static_cast<const uint8_t*>(tensor.nf4->absmax_codes));
      const uint8_t was = codes[block];
      codes[block] = static_cast<uint8_t>(was + 1);
      CHECK(DigestOf(*model) != digest);
      codes[block] = was;
    }
  }
  CHECK(DigestOf(*model) == digest);
}

void ShardsDoNotMatter() {
  const Digest whole = DigestOf(*Open(directory + "/tiny_qwen3"));
  CHECK(DigestOf(*Open(directory + "/tiny_qwen3_sharded"), 2, OnThreads) == whole);
  // What decides about eviction is in the configuration there, not in the weights.
  CHECK(DigestOf(*Open(directory + "/tiny_qwen3_dms")) == whole);
  CHECK(DigestOf(*Open(directory + "/tiny_qwen3_dms_separate")) != whole);
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  if (argc < 2) return 2;
  directory = std::string(argv[1]) + "/models";
  return RunAll({
      {"threads and slices do not matter", ThreadsAndSlicesDoNotMatter},
      {"every tensor counts from its first byte to its last", EveryTensorCountsFromItsFirstByteToItsLast},
      {"places, types and shapes count", PlacesTypesAndShapesCount},
      {"scales of NF4 count", ScalesOfNf4Count},
      {"the shards of its files do not matter", ShardsDoNotMatter},
  });
}
