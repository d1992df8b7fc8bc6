// Damaged, lying and foreign model files are refused by name, and no bytes whatever crash the loader.
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <random>
#include <span>
#include <string>

#include "test/model_fixtures.h"

namespace rum::test {
namespace {

// --- safetensors ---------------------------------------------------------------------------------

void LyingHeadersAreRefused() {
  const std::string a = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  auto tensor = [](const char* dtype, const char* shape, const char* offsets) {
    return std::string("{\"a\":{\"dtype\":") + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
  };
  CHECK_OK(HeaderStatus("{" + a + "}   ", 8));
  CHECK_OK(HeaderStatus(R"({"__metadata__":{"format":"pt"},)" + a + "}", 8));
  CHECK_OK(HeaderStatus(tensor("\"F8_E4M3\"", "[3,2]", "[0,6]"), 6));
  CHECK_OK(HeaderStatus(tensor("\"I64\"", "[]", "[0,8]"), 8));
  CHECK_OK(HeaderStatus(tensor("\"F32\"", "[0,5]", "[0,0]"), 0));
  CHECK_OK(HeaderStatus(tensor("\"F999\"", "[5]", "[0,3]"), 3));

  const std::pair<std::string, size_t> lies[] = {
      {"[]", 0}, {" {}", 0}, {"{} x", 0}, {"", 0}, {"{\"a\":1}", 0}, {"{\"a\":{}}", 0},
      {"{" + a + "}", 7}, {"{" + a + "}", 9},                        // file shorter and longer than the tensors
      {"{" + a + "," + a + "}", 8},                                    // the same name twice
      {"{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12},   // overlap
      {"{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8},     // the same bytes twice
      {"{" + a + R"(,"b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})", 20},  // hole
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})", 8},
      {R"({"a":{"dtype":"F32","dtype":"F32","data_offsets":[0,8]}})", 8},
      {R"({"a":{"dtype":"F32","shape":[2]}})", 8},
      {R"({"__metadata__":{"a":1}})", 0}, {R"({"__metadata__":[]})", 0}, {R"({"__metadata__":{"a":"1","a":"2"}})", 0},
      {tensor("7", "[2]", "[0,8]"), 8}, {tensor("\"F32\"", "[-2]", "[0,8]"), 8}, {tensor("\"F32\"", "[2.0]", "[0,8]"), 8},
      {tensor("\"F32\"", "2", "[0,8]"), 8}, {tensor("\"F32\"", "[\"2\"]", "[0,8]"), 8}, {tensor("\"F32\"", "[2]", "[8,0]"), 8},
      {tensor("\"F32\"", "[2]", "[-8,0]"), 8}, {tensor("\"F32\"", "[2]", "[0]"), 8}, {tensor("\"F32\"", "[2]", "[0,8,8]"), 8},
      {tensor("\"F32\"", "[3]", "[0,8]"), 8}, {tensor("\"F32\"", "[2]", "[0,9223372036854775807]"), 8},
      {tensor("\"F32\"", "[2]", "[9223372036854775807,9223372036854775807]"), 8},
      {tensor("\"F32\"", "[0]", "[9223372036854775807,9223372036854775807]"), 0},  // past the end by almost everything
      {tensor("\"F32\"", "[2]", "[0,18446744073709551615]"), 8},
      {tensor("\"F32\"", "[4294967296,4294967296]", "[0,8]"), 8},      // 2^64 elements: 0 if it wrapped
      {tensor("\"F32\"", "[4611686018427387904,4]", "[0,0]"), 0},      // wraps to 0 bytes
      {tensor("\"F32\"", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), 8},          // rank 9
      {tensor("\"F4\"", "[3]", "[0,1]"), 1},                           // 12 bits
      {"{\"a\":" + std::string(1000, '[') + std::string(1000, ']') + "}", 0},
  };
  for (const auto& [header, data_bytes] : lies) CHECK(Names(HeaderStatus(header, data_bytes), kErrModelFile, "test.safetensors"));

  for (uint64_t length : {uint64_t{0}, uint64_t{1}, uint64_t{1000}, uint64_t{100'000'001}, uint64_t{1} << 63, ~uint64_t{0}}) {
    std::string file = SafetensorsFile("{" + a + "}", 8);
    std::memcpy(file.data(), &length, sizeof(length));
    CHECK(Names(ParseHeader(file).status(), kErrModelFile, "test.safetensors"));
  }
}

void EveryTruncationIsRefused() {
  const std::string file = ReadFile(fs::path(fixtures) / "models/tiny_qwen3/model.safetensors");
  const size_t data_begin = 8 + HeaderOf(file).size();
  CHECK_OK(ParseHeader(file));
  for (size_t size = 0; size < data_begin; ++size) {
    // Not copied: thousands of copies add nothing here, the mutation test copies.
    const std::span bytes(reinterpret_cast<const uint8_t*>(file.data()), size);
    if (!CHECK(!ParseSafetensorsHeader(bytes, "t").ok())) return;
  }
  for (size_t size : {data_begin, data_begin + 1, (data_begin + file.size()) / 2, file.size() - 4, file.size() - 1}) {
    TempDir dir("tiny_qwen3");
    fs::resize_file(dir.path / "model.safetensors", size);
    CHECK(Names(OpenModel(dir.path.string(), {}).status(), kErrModelFile, "model.safetensors"));
  }
}

// --- Directories ---------------------------------------------------------------------------------

// Opens a copy of a fixture after `change` has been at its directory.
Status StatusAfter(const char* fixture, const std::function<void(const fs::path&)>& change) {
  TempDir dir(fixture);
  change(dir.path);
  return OpenModel(dir.path.string(), {}).status();
}

std::function<void(const fs::path&)> Edit(const char* file, const std::string& from, const std::string& to) {
  return [=](const fs::path& dir) { WriteFile(dir / file, Replace(ReadFile(dir / file), from, to)); };
}

// Edits the header of model.safetensors; its length field follows.
std::function<void(const fs::path&)> EditHeader(const std::string& from, const std::string& to) {
  return [=](const fs::path& dir) {
    const std::string file = ReadFile(dir / "model.safetensors");
    WriteFile(dir / "model.safetensors", WithHeader(file, Replace(HeaderOf(file), from, to)));
  };
}

void MissingAndForeignFilesAreNamed() {
  auto refused = [](const std::function<void(const fs::path&)>& change, const std::string& words) {
    return Names(StatusAfter("tiny_qwen3", change), kErrModelFile, words);
  };
  const char* weights = "model.safetensors";
  CHECK(Names(OpenModel("/nonexistent", {}).status(), kErrModelFile, "/nonexistent/config.json does not exist"));
  CHECK(Names(OpenModel(std::string("/\0x", 3), {}).status(), kErrModelFile, "NUL"));
  CHECK(refused([&](auto& d) { fs::remove(d / weights); }, "neither"));
  CHECK(refused([&](auto& d) { WriteFile(d / weights, ""); }, "is empty"));
  CHECK(refused([&](auto& d) { WriteFile(d / "config.json", std::string((1 << 20) + 1, ' ')); }, "1048576"));
  CHECK(refused([&](auto& d) { fs::remove(d / weights), fs::create_directory(d / weights); }, "regular"));
  CHECK(refused([&](auto& d) { fs::remove(d / weights), CHECK(mkfifo((d / weights).c_str(), 0600) == 0); }, "regular"));
  CHECK_OK(StatusAfter("tiny_qwen3", [](auto& d) { fs::remove(d / "generation_config.json"); }));
}

void BadShardsAreNamed() {
  const char* index = "model.safetensors.index.json";
  const std::string second = "model-00002-of-00003.safetensors";
  const std::string head = "\"lm_head.weight\": ";
  const std::string entry = head + "\"model-00003-of-00003.safetensors\"";
  auto refused = [](const std::function<void(const fs::path&)>& edit, const std::string& words) {
    return Names(StatusAfter("tiny_qwen3_sharded", edit), kErrModelFile, words);
  };
  CHECK(refused([&](auto& d) { fs::remove(d / second); }, second));
  for (const char* name : {"../x", "/etc/passwd", "a/b", "", ".", "..", "a\\\\b", "a\\u0000"}) {
    CHECK(refused(Edit(index, entry, head + "\"" + name + "\""), "lm_head.weight"));
  }
  CHECK(refused(Edit(index, entry, head + "3"), "lm_head.weight"));
  CHECK(refused(Edit(index, entry, head + "\"" + second + "\""), "should be in"));
  CHECK(refused(Edit(index, entry, entry + ", " + entry), "twice"));
  CHECK(refused(Edit(index, "\"weight_map\"", "\"weights\""), "weight_map"));
  const Status empty = StatusAfter("tiny_qwen3_sharded", [&](auto& d) { WriteFile(d / index, "{\"weight_map\": {}}"); });
  CHECK(Names(empty, kErrModelTensor, "embed_tokens"));
}

void WrongTensorsAreNamed() {
  // The words stand in the error of tiny_qwen3 after the edit.
  auto refused = [](const std::function<void(const fs::path&)>& edit, const std::string& words) {
    return Names(StatusAfter("tiny_qwen3", edit), kErrModelTensor, words);
  };
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  CHECK(refused(EditHeader(q, "model.layers.1.self_attn.x_proj.weight"), q + " is missing"));
  CHECK(refused(EditHeader("model.norm.weight", "model.norm.other!"), "model.norm.weight is missing"));
  CHECK(refused(EditHeader("[128,64]", "[64,128]"), "must have shape [128, 64] by config.json, found [64, 128]"));
  CHECK(refused(EditHeader("[128,64]", "[8192]"), "found [8192]"));
  CHECK(refused(EditHeader("\"F32\"", "\"I32\""), "\"I32\""));
  CHECK(refused(Edit("config.json", "\"intermediate_size\": 128", "\"intermediate_size\": 130"), "mlp"));
  CHECK(refused(Edit("config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4"), "model.layers.3."));
  const std::string alpha = "dms_proj_alpha_norm";
  CHECK(Names(StatusAfter("tiny_qwen3_dms_separate", EditHeader(alpha, "dms_proj_alpha_nope")), kErrModelTensor, alpha));
  CHECK_OK(OpenFixture("tiny_qwen3_dms_separate", {{"policy", "dense"}}));
}

void MissingBiasesAreNamed() {
  const std::string k = "model.layers.1.self_attn.k_proj.bias";
  CHECK(Names(StatusAfter("tiny_qwen2", EditHeader(k, "model.layers.1.self_attn.k_proj.vias")), kErrModelTensor, k + " is missing"));
  const Status all = StatusAfter("tiny_llama31", Edit("config.json", "\"attention_bias\": false", "\"attention_bias\": true"));
  CHECK(Names(all, kErrModelTensor, "model.layers.0.self_attn.q_proj.bias is missing"));
  const Status alpha = StatusAfter("tiny_qwen3_dms_separate", Edit("config.json", "\"attention_bias\": false", "\"attention_bias\": true"));
  CHECK(Names(alpha, kErrModelTensor, "bias is missing"));
}

// tiny_qwen3's config.json says that lm_head is not tied.
void AMissingHeadIsTiedUnlessConfigDenies() {
  const std::string stated = "\"tie_word_embeddings\": false";
  const auto no_head = EditHeader("lm_head.weight", "lm_head.veight");
  CHECK(Names(StatusAfter("tiny_qwen3", no_head), kErrModelTensor, "lm_head.weight is missing"));
  const auto tied = [&](const std::string& words, bool with_head) {
    TempDir dir("tiny_qwen3");
    Edit("config.json", stated, words)(dir.path);
    if (!with_head) no_head(dir.path);
    auto opened = OpenModel(dir.path.string(), {});
    if (!CHECK_OK(opened)) return false;
    CHECK((*opened)->config.tied_embeddings == ((*opened)->lm_head.data == (*opened)->embed.data));
    return (*opened)->config.tied_embeddings;
  };
  for (const char* absent : {"\"x\": 0", "\"tie_word_embeddings\": null"}) CHECK(tied(absent, false) && !tied(absent, true));
  CHECK(tied("\"tie_word_embeddings\": true", false) && tied("\"tie_word_embeddings\": true", true) && !tied(stated, true));
}

void NonFiniteWeightsAreNamed() {
  for (const char* fixture : {"tiny_qwen3", "tiny_qwen3_tied_bf16"}) {
    const std::string file = ReadFile(fs::path(fixtures) / "models" / fixture / "model.safetensors");
    auto header = ParseHeader(file);
    if (!CHECK_OK(header)) return;
    const int64_t element = std::string_view(fixture) == "tiny_qwen3" ? 4 : 2;
    for (const char* name : {"model.embed_tokens.weight", "model.layers.2.self_attn.k_norm.weight",
                             "model.layers.0.mlp.down_proj.weight"}) {
      const TensorEntry* tensor = header->Find(name);
      if (!CHECK(tensor)) return;
      // The last element, and both signs of infinity and NaN in its two high bytes.
      for (const char* high : {"\x80\x7f", "\x80\xff", "\xc0\x7f"}) {
        std::string bad = file;
        bad.replace(static_cast<size_t>(tensor->end - 2), 2, high, 2);
        if (element == 4) bad.replace(static_cast<size_t>(tensor->end - 4), 2, 2, '\0');
        CHECK(Names(StatusAfter(fixture, [&](auto& d) { WriteFile(d / "model.safetensors", bad); }), kErrModelWeights, name));
      }
    }
  }
}

void AnUnalignedFileOpens() {
  TempDir dir("tiny_qwen3");
  const std::string file = ReadFile(dir.path / "model.safetensors");
  WriteFile(dir.path / "model.safetensors", WithHeader(file, HeaderOf(file) + " "));
  auto odd = OpenModel(dir.path.string(), {}), even = OpenFixture("tiny_qwen3");
  if (CHECK_OK(odd) && CHECK_OK(even)) CHECK(SameBytes((*odd)->layers[1].q_proj, (*even)->layers[1].q_proj));
}

// --- Mutations -----------------------------------------------------------------------------------

// A few bytes changed, removed, doubled or inserted; biased to the characters JSON is made of.
std::string Mutate(std::string text, std::mt19937& random) {
  auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  static constexpr std::string_view kJson = "{}[]\",:0123456789-.eEtfn\\ ";
  for (size_t edits = 1 + below(4); edits > 0 && !text.empty(); --edits) {
    const size_t at = below(text.size());
    switch (below(5)) {
      case 0: text[at] = static_cast<char>(below(256)); break;
      case 1: text[at] = kJson[below(kJson.size())]; break;
      case 2: text.erase(at, 1 + below(16)); break;
      case 3: text.insert(at, text, at, below(64)); break;
      default: text.insert(at, 1, kJson[below(kJson.size())]);
    }
  }
  return text;
}

void MutatedHeadersNeverCrash() {
  const std::string file = ReadFile(fs::path(fixtures) / "models/tiny_qwen3_dms_separate/model.safetensors");
  const std::string header = HeaderOf(file);
  const std::string data = file.substr(8 + header.size());
  const std::vector<TensorEntry> original = ParseHeader(file)->tensors;
  int accepted = 0;
  for (uint32_t seed = 1; seed <= 5000; ++seed) {
    std::mt19937 random(seed);
    std::string mutated = SafetensorsFile(Mutate(header, random), 0) + data;
    if (seed % 8 == 0) mutated[random() % 4] = static_cast<char>(random());  // a length that lies a little
    auto parsed = ParseHeader(mutated);
    if (!parsed.ok()) {
      if (!CHECK(std::string(parsed.status().code) == kErrModelFile)) std::printf("    seed %u\n", seed);
      continue;
    }
    ++accepted;  // a changed name or dtype of the same width can be a valid file: its ranges must still hold
    for (const TensorEntry& tensor : parsed->tensors) {
      const bool inside = tensor.begin >= 8 && tensor.begin <= tensor.end && tensor.end <= std::ssize(mutated);
      if (!CHECK(inside)) std::printf("    seed %u\n", seed);
    }
  }
  CHECK(accepted > 0 && accepted < 2500);
}

void MutatedConfigsNeverCrash() {
  const std::string qwen = ReadFile(fs::path(fixtures) / "models/tiny_qwen3_dms_separate/config.json");
  const std::string llama = ReadFile(fs::path(fixtures) / "models/tiny_llama31/config.json");
  const std::string yarn = R"({"model_type": "qwen2", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
      "num_attention_heads": 2, "rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": 32, "mscale": 1, "mscale_all_dim": 1}})";
  const std::string dms = R"({"config": {"window_size": 8, "alpha_scale": 100, "dms_alpha_offset": 5, "target_cr": 4, "context_len": 64}})";
  for (uint32_t seed = 1; seed <= 6000; ++seed) {
    std::mt19937 random(seed);
    const std::string mutated = Mutate(seed % 3 == 0 ? yarn : seed % 3 == 1 ? llama : qwen, random);
    const std::string generation = seed % 2 ? "" : Mutate("{\"eos_token_id\": [2, 3], \"bos_token_id\": 1}", random);
    const std::string metadata = seed % 5 ? "" : Mutate(dms, random), log = seed % 7 ? "" : Mutate(dms, random);
    auto parsed = ParseConfig({mutated, generation, metadata, log}, {});
    if (parsed.ok()) {
      for (const float f : RopeFrequencies(parsed->rope, parsed->head_dim)) {
        if (!CHECK(std::isfinite(f) && f >= 0.0f && f <= 1.0f)) std::printf("    seed %u: frequency %g\n", seed, static_cast<double>(f));
      }
    }
    if (parsed.ok()) {
      const bool sane = parsed->num_layers > 0 && parsed->head_dim > 0 && parsed->num_heads % parsed->num_kv_heads == 0;
      if (!CHECK(sane)) std::printf("    seed %u\n", seed);
    } else if (!CHECK(std::string(parsed.status().code) == kErrModelConfig)) {
      std::printf("    seed %u\n", seed);
    }
  }
}

void MutatedDirectoriesNeverCrash() {
  TempDir dir("tiny_qwen3_sharded");
  std::vector<std::pair<fs::path, std::string>> originals;
  for (const auto& file : fs::directory_iterator(dir.path)) originals.emplace_back(file.path(), ReadFile(file.path()));
  std::ranges::sort(originals);
  for (uint32_t seed = 1; seed <= 1000; ++seed) {
    std::mt19937 random(seed);
    const auto& [path, bytes] = originals[random() % originals.size()];
    const bool weights = path.extension() == ".safetensors";
    WriteFile(path, weights ? WithHeader(bytes, Mutate(HeaderOf(bytes), random)) : Mutate(bytes, random));
    const Status status = OpenModel(dir.path.string(), {}).status();
    if (!CHECK(status.ok() || !status.message.empty())) std::printf("    seed %u\n", seed);
    WriteFile(path, bytes);
  }
  CHECK_OK(OpenModel(dir.path.string(), {}));
}


}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"a safetensors header that lies is refused", LyingHeadersAreRefused},
      {"a file cut at any byte of its header or in its data is refused", EveryTruncationIsRefused},
      {"a missing, empty, huge or irregular file is refused by name", MissingAndForeignFilesAreNamed},
      {"a shard that is missing, elsewhere or lacks its tensor is refused by name", BadShardsAreNamed},
      {"a missing, misshapen or uncomputable tensor is refused by name", WrongTensorsAreNamed},
      {"a bias that config.json asks for and the weights lack is refused by name", MissingBiasesAreNamed},
      {"a missing lm_head means tied embeddings unless config.json denies it", AMissingHeadIsTiedUnlessConfigDenies},
      {"a NaN or infinite weight is refused with its tensor's name", NonFiniteWeightsAreNamed},
      {"tensors at odd addresses open to the same bytes", AnUnalignedFileOpens},
      {"5000 mutated safetensors headers never crash the parser", MutatedHeadersNeverCrash},
      {"6000 mutated configs never crash the parser, and give frequencies RoPE can use", MutatedConfigsNeverCrash},
      {"1000 mutated directories never crash the loader", MutatedDirectoriesNeverCrash},
  });
}
