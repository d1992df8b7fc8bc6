// Models in GGUF files: those of test/fixtures-own/gguf, written by the gguf package with llama.cpp's order of rows (scripts/fixtures/
// make_gguf.py), equal the safetensors directories they were made from; wrong ones are refused by name.
#include <cmath>
#include <functional>
#include <map>
#include <random>

#include "backend/backend.h"
#include "model/gguf_model.h"
#include "model/quant.h"
#include "test/check.h"
#include "test/gguf_builder.h"
#include "test/model_fixtures.h"

namespace rum::test {
namespace {

fs::path GgufPath(const std::string& name) { return fs::path(fixtures).parent_path() / "fixtures-own/gguf" / (name + ".gguf"); }

// logits [ids, vocab] of the reference backend.
std::vector<float> Logits(const std::shared_ptr<const Model>& model, int32_t ids) {
  auto backend = MakeReferenceBackend(model, {});
  if (!CHECK_OK(backend)) return {};
  auto chain = (*backend)->NewChain();
  if (!CHECK_OK(chain)) return {};
  const auto vocab = static_cast<size_t>(model->config.vocab_size);
  std::vector<float> logits(static_cast<size_t>(ids) * vocab);
  std::vector<Row> rows;
  for (int32_t i = 0; i < ids; ++i) rows.push_back({*chain, (i * 37 + 5) % model->config.vocab_size, true});
  CHECK_OK((*backend)->Forward(rows, logits.data()));
  return logits;
}

bool SameWeights(const Model& a, const Model& b) {
  bool same = SameBytes(a.embed, b.embed) && SameBytes(a.final_norm, b.final_norm) && SameBytes(a.lm_head, b.lm_head);
  for (size_t layer = 0; layer < a.layers.size(); ++layer) {
    for (auto member : {&LayerWeights::input_norm, &LayerWeights::q_proj, &LayerWeights::k_proj, &LayerWeights::v_proj, &LayerWeights::q_bias,
                        &LayerWeights::k_bias, &LayerWeights::v_bias, &LayerWeights::q_norm, &LayerWeights::k_norm, &LayerWeights::o_proj,
                        &LayerWeights::o_bias, &LayerWeights::post_norm, &LayerWeights::gate_proj, &LayerWeights::up_proj,
                        &LayerWeights::down_proj, &LayerWeights::alpha_proj}) {
      same = same && SameBytes(a.layers[layer].*member, b.layers[layer].*member);
    }
  }
  return same;
}

void GgufEqualsSafetensors() {
  for (const char* name : {"tiny_qwen3", "tiny_qwen2", "tiny_llama31"}) {
    auto gguf = OpenModel(GgufPath(name).string(), {}), original = OpenFixture(name);
    if (!CHECK_OK(gguf) || !CHECK_OK(original)) return;
    const ModelConfig &a = (*gguf)->config, &b = (*original)->config;
    CHECK(a.model_type == b.model_type && a.num_layers == b.num_layers && a.num_heads == b.num_heads && a.num_kv_heads == b.num_kv_heads);
    CHECK(a.head_dim == b.head_dim && a.hidden_size == b.hidden_size && a.intermediate_size == b.intermediate_size);
    CHECK(a.vocab_size == b.vocab_size && a.max_positions == b.max_positions && a.rms_eps == b.rms_eps && a.rope.theta == b.rope.theta);
    CHECK(a.qk_norm == b.qk_norm && a.qkv_bias == b.qkv_bias && a.o_bias == b.o_bias && a.tied_embeddings == b.tied_embeddings);
    CHECK(a.bos_id == 1 && a.eos_ids == std::vector<int32_t>{2} && a.policy.kind == PolicyKind::kDense);
    CHECK((*gguf)->parameter_count == (*original)->parameter_count && (*gguf)->dtype == DType::kF32);
    CHECK(SameWeights(**gguf, **original));
  }
}

void LogitsAreTheSameBits() {
  for (const char* name : {"tiny_qwen3", "tiny_qwen2"}) {
    auto gguf = OpenModel(GgufPath(name).string(), {}), original = OpenFixture(name);
    if (!CHECK_OK(gguf) || !CHECK_OK(original)) return;
    CHECK(Logits(*gguf, 48) == Logits(*original, 48));
  }
}

// The file's divisors are floats, so a frequency in the blended band can differ by one unit in the last place.
void Llama3ScalingIsReadFromItsTensor() {
  auto gguf = OpenModel(GgufPath("tiny_llama31").string(), {}), original = OpenFixture("tiny_llama31");
  if (!CHECK_OK(gguf) || !CHECK_OK(original)) return;
  const std::vector<float> found = RopeFrequencies((*gguf)->config.rope, 16), wanted = RopeFrequencies((*original)->config.rope, 16);
  if (!CHECK(found.size() == 8 && wanted.size() == 8 && (*gguf)->config.rope.divisors.size() == 8)) return;
  for (size_t i = 0; i < 8; ++i) CHECK(std::fabs(found[i] - wanted[i]) <= wanted[i] * 1.2e-7f);
  CHECK((*gguf)->config.rope.divisors.front() == 1.0f && (*gguf)->config.rope.divisors.back() == 8.0f);
  const std::vector<float> a = Logits(*gguf, 64), b = Logits(*original, 64);
  for (size_t i = 0; i < a.size(); ++i) {
    if (!CHECK(std::fabs(a[i] - b[i]) < 1e-3f)) return;
  }
}

void RowsOfBlocksAreReordered() {
  auto gguf = OpenModel(GgufPath("tiny_llama31_q8_0").string(), {}), original = OpenFixture("tiny_llama31");
  if (!CHECK_OK(gguf) || !CHECK_OK(original)) return;
  CHECK((*gguf)->dtype == DType::kQ8_0);
  for (auto member : {&LayerWeights::q_proj, &LayerWeights::k_proj, &LayerWeights::v_proj}) {
    const TensorView &blocks = (*gguf)->layers[1].*member, &plain = (*original)->layers[1].*member;
    std::vector<float> found(64), wanted(64);
    for (int64_t row = 0; row < plain.rows; ++row) {
      DequantiseRow(blocks, row, found.data());
      DequantiseRow(plain, row, wanted.data());
      float largest = 0, error = 0;
      for (size_t i = 0; i < 64; ++i) largest = std::max(largest, std::fabs(wanted[i])), error = std::max(error, std::fabs(found[i] - wanted[i]));
      if (!CHECK(error <= largest / 200)) return;
    }
  }
}

void DirectoriesAreSearched() {
  TempDir dir;
  CHECK(Names(OpenModel(dir.path.string(), {}).status(), kErrModelFile, "config.json does not exist"));
  fs::copy(GgufPath("tiny_qwen2"), dir.path / "a.gguf");
  WriteFile(dir.path / "README.md", "text");
  auto opened = OpenModel(dir.path.string(), {});
  if (CHECK_OK(opened)) CHECK((*opened)->config.model_type == "qwen2");
  fs::copy(GgufPath("tiny_qwen2"), dir.path / "b.gguf");
  CHECK(Names(OpenModel(dir.path.string(), {}).status(), kErrModelFile, "several GGUF files"));
  for (const char* name : {"config.json", "generation_config.json", "model.safetensors"}) {
    fs::copy(fs::path(fixtures) / "models/tiny_qwen3" / name, dir.path / name);
  }
  opened = OpenModel(dir.path.string(), {});
  if (CHECK_OK(opened)) CHECK((*opened)->config.model_type == "qwen3");
  CHECK(Names(OpenModel((dir.path / "none.gguf").string(), {}).status(), kErrModelFile, "none.gguf"));
}

void DmsIsAPolicyForAnyModel() {
  const std::string path = GgufPath("tiny_qwen3").string();
  auto opened = OpenModel(path, {{"policy", "dms"}, {"window", "8"}});
  if (CHECK_OK(opened)) CHECK((*opened)->config.policy.kind == PolicyKind::kDmsBorrowed && (*opened)->config.policy.window == 8);
  CHECK(Names(OpenModel(path, {{"window", "8"}}).status(), kErrOption, "policy=dms"));
}

// --- Files made here -----------------------------------------------------------------------------

using Fields = std::map<std::string, std::function<void(GgufBuilder&, const std::string&)>>;

auto Count(uint32_t value) {
  return [value](GgufBuilder& b, const std::string& key) { b.U32(key, value); };
}
auto Real(float value) {
  return [value](GgufBuilder& b, const std::string& key) { b.F32(key, value); };
}
auto Text(std::string value) {
  return [value](GgufBuilder& b, const std::string& key) { b.String(key, value); };
}
auto Nothing() {
  return [](GgufBuilder&, const std::string&) {};
}

struct TensorChange {
  std::string name;
  uint32_t type;
  std::vector<uint64_t> dims;
  std::string data;
};

// A one-layer Llama of zeros with some metadata and one tensor changed.
std::string SmallGguf(const Fields& changes, const TensorChange& change = {}) {
  Fields fields{{"general.architecture", Text("llama")}, {"llama.block_count", Count(1)}, {"llama.embedding_length", Count(32)},
                {"llama.feed_forward_length", Count(32)}, {"llama.attention.head_count", Count(2)}, {"llama.attention.head_count_kv", Count(1)},
                {"llama.context_length", Count(64)}, {"llama.attention.layer_norm_rms_epsilon", Real(1e-5f)}, {"llama.rope.freq_base", Real(1e4f)}};
  for (const auto& [key, write] : changes) fields[key] = write;
  GgufBuilder b;
  for (const auto& [key, write] : fields) write(b, key);
  const auto tensor = [&](const std::string& name, const std::vector<uint64_t>& dims) {
    if (name == change.name) {
      if (!change.dims.empty()) b.Tensor(name, change.dims, change.type, change.data);
      return;
    }
    b.Tensor(name, dims, 0, std::string(4 * dims[0] * (dims.size() > 1 ? dims[1] : 1), '\0'));
  };
  tensor("token_embd.weight", {32, 8});
  for (const char* name : {"attn_q", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}) tensor("blk.0." + std::string(name) + ".weight", {32, 32});
  for (const char* name : {"attn_k", "attn_v"}) tensor("blk.0." + std::string(name) + ".weight", {32, 16});
  for (const char* name : {"blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"}) tensor(name, {32});
  if (change.name == "rope_freqs.weight") b.Tensor(change.name, change.dims, change.type, change.data);
  return b.Build();
}

Expected<std::shared_ptr<const Model>> OpenBytes(const std::string& bytes, const PolicyOverrides& overrides = {}) {
  TempDir dir;
  WriteFile(dir.path / "m.gguf", bytes);
  return OpenModel((dir.path / "m.gguf").string(), overrides);
}

void WrongMetadataIsNamed() {
  auto small = OpenBytes(SmallGguf({}));
  if (!CHECK_OK(small)) return;
  CHECK((*small)->config.head_dim == 16 && (*small)->config.tied_embeddings && (*small)->config.rope.type == RopeType::kDefault);
  const auto refused = [](const std::string& key, auto write, const std::string& word) {
    CHECK(Names(OpenBytes(SmallGguf({{key, write}})).status(), kErrModelConfig, word));
  };
  refused("general.architecture", Text("gemma3"), "\"gemma3\" is not supported; supported: llama, qwen2, qwen3");
  refused("general.architecture", Nothing(), "general.architecture is missing");
  for (const char* key : {"block_count", "embedding_length", "feed_forward_length", "attention.head_count", "context_length",
                          "attention.layer_norm_rms_epsilon"}) {
    refused("llama." + std::string(key), Nothing(), std::string(key) + " is missing");
    refused("llama." + std::string(key), Count(0), key);
    refused("llama." + std::string(key), Count(0xFFFFFFFFu), key);
    refused("llama." + std::string(key), Text("2"), key);
  }
  refused("llama.attention.head_count", Count(3), "key_length is missing");
  refused("llama.attention.head_count_kv", Count(4), "head_count_kv");
  refused("llama.attention.key_length", Count(15), "key_length");
  refused("llama.attention.value_length", Count(8), "value_length");
  refused("llama.rope.dimension_count", Count(8), "dimension_count");
  refused("llama.expert_count", Count(8), "expert_count");
  refused("llama.attention.sliding_window", Count(16), "sliding_window");
  refused("llama.rope.scaling.type", Text("longrope"), "\"longrope\"");
  refused("llama.rope.freq_base", Real(NAN), "freq_base");
  refused("split.count", Count(3), "split.count");
  refused("tokenizer.ggml.eos_token_id", Count(8), "eos_token_id");
  refused("tokenizer.ggml.tokens", [](GgufBuilder& b, const std::string& key) { b.Strings(key, std::vector<std::string>(9, "t")); }, "tokens");
}

void ScalingAndEndsAreRead() {
  const auto yarn = OpenBytes(SmallGguf({{"llama.rope.scaling.type", Text("yarn")}, {"llama.rope.scaling.factor", Real(4)},
                                         {"llama.rope.scaling.original_context_length", Count(32)}}));
  auto linear = OpenBytes(SmallGguf({{"llama.rope.scaling.type", Text("linear")}, {"llama.rope.scaling.factor", Real(2)}}));
  if (!CHECK_OK(yarn) || !CHECK_OK(linear)) return;
  const ModelConfig& c = (*yarn)->config;
  CHECK(c.rope.type == RopeType::kYarn && c.rope.factor == 4 && c.rope.original_positions == 32 && c.max_positions == 128);
  CHECK(std::fabs(c.rope.attention_factor - (0.1 * std::log(4.0) + 1.0)) < 1e-12);
  CHECK((*linear)->config.rope.type == RopeType::kLinear && (*linear)->config.rope.factor == 2);

  auto ends = OpenBytes(SmallGguf({{"tokenizer.ggml.eos_token_id", Count(5)}, {"tokenizer.ggml.eot_token_id", Count(2)},
                                   {"tokenizer.ggml.tokens", [](GgufBuilder& b, const std::string& key) {
                                      b.Strings(key, {"a", "<|endoftext|>", "<|im_end|>", "b", "c", "d"});
                                    }}}));
  if (CHECK_OK(ends)) CHECK(((*ends)->config.eos_ids == std::vector<int32_t>{5, 2, 1}));
}

void WrongTensorsAreNamed() {
  const auto refused = [](const TensorChange& change, const char* code, const std::string& word) {
    CHECK(Names(OpenBytes(SmallGguf({}, change)).status(), code, word));
  };
  refused({"blk.0.attn_q.weight", 0, {}, ""}, kErrModelTensor, "blk.0.attn_q.weight is missing");
  refused({"blk.0.attn_q.weight", 0, {32, 16}, std::string(2048, '\0')}, kErrModelTensor, "must have shape [32, 32]");
  refused({"blk.0.ffn_up.weight", 6, {32, 32}, std::string(32 * 22, '\0')}, kErrModelTensor, "\"Q5_0\"; supported:");
  refused({"blk.0.ffn_up.weight", 99, {32, 32}, ""}, kErrModelTensor, "\"type 99\"");
  refused({"token_embd.weight", 0, {}, ""}, kErrModelConfig, "token_embd.weight");
  refused({"token_embd.weight", 0, {32}, std::string(128, '\0')}, kErrModelConfig, "token_embd.weight");
  refused({"output_norm.weight", 0, {32}, std::string(124, '\0') + Raw(NAN)}, kErrModelWeights, "model.norm.weight");
  refused({"blk.0.attn_k.weight", 8, {32, 16}, std::string(15 * 34, '\0') + std::string("\x00\x7c", 2) + std::string(32, '\1')}, kErrModelWeights, "k_proj");
  refused({"rope_freqs.weight", 0, {4}, std::string(16, '\0')}, kErrModelConfig, "rope_freqs.weight");
  refused({"rope_freqs.weight", 0, {8}, std::string(32, '\0')}, kErrModelConfig, "rope_freqs.weight");
}

void MutatedModelsNeverCrash() {
  const std::string file = SmallGguf({{"tokenizer.ggml.tokens", [](GgufBuilder& b, const std::string& key) { b.Strings(key, {"a", "</s>"}); }},
                                      {"tokenizer.ggml.eos_token_id", Count(1)}});
  const size_t header = file.find("output_norm.weight") + 60;
  int opened = 0;
  for (uint32_t seed = 1; seed <= 3000; ++seed) {
    std::mt19937 random(seed);
    std::string mutated = file;
    for (size_t edits = 1 + random() % 3; edits > 0; --edits) {
      const size_t at = random() % header;
      if (random() % 2) mutated[at] = static_cast<char>(random());
      else mutated[at] = static_cast<char>(mutated[at] ^ (1 << random() % 8));
    }
    if (random() % 8 == 0) mutated.resize(random() % mutated.size());
    auto model = OpenBytes(mutated);
    if (!model.ok()) {
      if (!CHECK(!model.status().message.empty())) std::printf("    seed %u\n", seed);
      continue;
    }
    ++opened;
    if (!CHECK(static_cast<int64_t>((*model)->layers.size()) == (*model)->config.num_layers)) std::printf("    seed %u\n", seed);
  }
  CHECK(opened > 0 && opened < 2000);
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"a GGUF file gives the configuration and weights of the directory it was made from, Llama's rows put back in order", GgufEqualsSafetensors},
      {"logits of an F32 GGUF file are those of the safetensors, bit for bit", LogitsAreTheSameBits},
      {"llama3 scaling is read from its tensor", Llama3ScalingIsReadFromItsTensor},
      {"rows of quantised blocks are put back in order", RowsOfBlocksAreReordered},
      {"a directory opens by its only GGUF file, and by Hugging Face's files if it has them", DirectoriesAreSearched},
      {"a GGUF model is dense, and runs with DMS when asked to", DmsIsAPolicyForAnyModel},
      {"metadata that is missing, absurd or would change the computation is refused by name", WrongMetadataIsNamed},
      {"linear and yarn scaling and all tokens that end an answer are read", ScalingAndEndsAreRead},
      {"a missing, misshapen, uncomputable or infinite tensor is refused by name", WrongTensorsAreNamed},
      {"3000 mutated GGUF models never crash the loader", MutatedModelsNeverCrash},
  });
}
