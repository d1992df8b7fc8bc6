// The model loader opens what it should and refuses everything else by name. Usage: model_test FIXTURES_DIR MODELS_DIR
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <random>
#include <span>

#include <sys/stat.h>

#include "model/config.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "test/check.h"

namespace rum {
namespace {

namespace fs = std::filesystem;

fs::path fixtures_dir;  // set once by main
fs::path models_dir;

// --- Helpers ---------------------------------------------------------------------------------------------------------------------

std::string ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void WriteFile(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// A directory of its own, removed at the end; optionally with a fixture's files copied into it.
struct TempDir {
  fs::path path;
  explicit TempDir(const char* fixture = nullptr) {
    std::string pattern = (fs::temp_directory_path() / "ruminate_model_test_XXXXXX").string();
    path = mkdtemp(pattern.data());
    if (!fixture) return;
    for (const auto& file : fs::directory_iterator(fixtures_dir / "models" / fixture)) fs::copy(file, path / file.path().filename());
  }
  ~TempDir() { fs::remove_all(path); }
};

Expected<std::shared_ptr<const Model>> OpenFixture(const char* name, const PolicyOverrides& overrides = {}) {
  return OpenModel((fixtures_dir / "models" / name).string(), overrides);
}

// Whether the status is an error with this code whose message has this word in it; prints the message if not.
bool Names(const Status& status, const char* code, const std::string& word) {
  const bool named = !status.ok() && std::string(status.code) == code && status.message.find(word) != std::string::npos;
  if (!named) std::printf("    expected %s naming %s, found %s: %s\n", code, word.c_str(), status.ok() ? "OK" : status.code, status.message.c_str());
  return named;
}

std::string Replace(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  if (!CHECK(at != std::string::npos)) return text;
  return text.replace(at, from.size(), to);
}

std::string QwenConfig() { return ReadFile(fixtures_dir / "models/tiny_qwen3/config.json"); }

// tiny_qwen3's config with `"key": old` replaced by `"key": value`.
std::string WithValue(const std::string& key, const std::string& value) {
  std::string text = QwenConfig();
  const size_t begin = text.find("\"" + key + "\": ");
  if (!CHECK(begin != std::string::npos)) return text;
  const size_t value_begin = begin + key.size() + 4;
  size_t end = text.find_first_of(",\n", value_begin);
  if (text[value_begin] == '[') end = text.find(']', value_begin) + 1;
  return text.replace(value_begin, end - value_begin, value);
}

std::string WithField(const std::string& field) { return Replace(QwenConfig(), "{", "{ " + field + ","); }

Status ConfigStatus(const std::string& json, const PolicyOverrides& overrides = {}, const std::string& generation = "") {
  return ParseConfig(json, generation, overrides).status();
}

// A safetensors file of a header and data_bytes zero bytes.
std::string SafetensorsFile(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(sizeof(length), '\0');
  std::memcpy(file.data(), &length, sizeof(length));
  return file + header + std::string(data_bytes, '\0');
}

// Parses a copy of exactly the file's size, so that AddressSanitizer sees a read past its end.
Expected<SafetensorsHeader> ParseHeader(std::string_view file) {
  const std::vector<uint8_t> bytes(file.begin(), file.end());
  return ParseSafetensorsHeader(bytes, "test.safetensors");
}

Status HeaderStatus(const std::string& header, size_t data_bytes) { return ParseHeader(SafetensorsFile(header, data_bytes)).status(); }

// The JSON header of a file, and the file with another header in its place.
std::string HeaderOf(const std::string& file) {
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof(length));
  return file.substr(8, length);
}
std::string WithHeader(const std::string& file, const std::string& header) {
  return SafetensorsFile(header, 0) + file.substr(8 + HeaderOf(file).size());
}

bool SameBytes(const TensorView& a, const TensorView& b) {
  if (a.dtype != b.dtype || a.rows != b.rows || a.cols != b.cols || !a.data != !b.data) return false;
  return !a.data || std::memcmp(a.data, b.data, static_cast<size_t>(a.rows * a.cols * ElementBytes(a.dtype))) == 0;
}

// --- What opens ------------------------------------------------------------------------------------------------------------------

void TinyQwen3Opens() {
  auto opened = OpenFixture("tiny_qwen3");
  if (!CHECK_OK(opened)) return;
  const Model& model = **opened;
  const ModelConfig& c = model.config;
  CHECK(c.model_type == "qwen3" && c.vocab_size == 128 && c.hidden_size == 64 && c.intermediate_size == 128 && c.num_layers == 3);
  CHECK(c.num_heads == 4 && c.num_kv_heads == 2 && c.group() == 2 && c.head_dim == 16 && c.max_positions == 512);
  CHECK(c.rms_eps == 1e-6f && c.rope_theta == 1e6 && !c.tied_embeddings && c.qk_norm && c.dtype == "float32");
  CHECK(c.eos_ids == std::vector<int32_t>{2} && c.bos_id == 1);
  CHECK(c.policy.kind == PolicyKind::kDense && c.policy.window == 0 && !c.policy.reason.empty());
  CHECK(model.layers.size() == 3 && model.parameter_count == 127520 && model.dtype == DType::kF32);
  CHECK(model.file_bytes == static_cast<int64_t>(fs::file_size(fixtures_dir / "models/tiny_qwen3/model.safetensors")));
  CHECK(model.layers[2].down_proj.rows == 64 && model.layers[2].down_proj.cols == 128 && model.layers[2].q_norm.rows == 1);
  CHECK(!model.layers[0].alpha_proj && model.lm_head.data != model.embed.data);
}

void ShardedEqualsUnsharded() {
  auto one = OpenFixture("tiny_qwen3"), sharded = OpenFixture("tiny_qwen3_sharded");
  if (!CHECK_OK(one) || !CHECK_OK(sharded)) return;
  const Model &a = **one, &b = **sharded;
  CHECK(b.files.size() == 3 && a.parameter_count == b.parameter_count && a.layers.size() == b.layers.size());
  CHECK(SameBytes(a.embed, b.embed) && SameBytes(a.final_norm, b.final_norm) && SameBytes(a.lm_head, b.lm_head));
  using L = LayerWeights;
  for (size_t i = 0; i < a.layers.size(); ++i) {
    for (TensorView L::* m : {&L::input_norm, &L::q_proj, &L::k_proj, &L::v_proj, &L::q_norm, &L::k_norm, &L::o_proj, &L::post_norm,
                              &L::gate_proj, &L::up_proj, &L::down_proj, &L::alpha_proj, &L::alpha_norm}) {
      CHECK(SameBytes(a.layers[i].*m, b.layers[i].*m));
    }
  }
}

void TiedBf16Opens() {
  auto opened = OpenFixture("tiny_qwen3_tied_bf16");
  if (!CHECK_OK(opened)) return;
  CHECK((*opened)->config.tied_embeddings && (*opened)->lm_head.data == (*opened)->embed.data);
  CHECK((*opened)->dtype == DType::kBF16 && (*opened)->embed.dtype == DType::kBF16);
}

void DmsFlavoursAreDetected() {
  auto borrowed = OpenFixture("tiny_qwen3_dms"), separate = OpenFixture("tiny_qwen3_dms_separate");
  if (!CHECK_OK(borrowed) || !CHECK_OK(separate)) return;
  const PolicySpec &a = (*borrowed)->config.policy, &b = (*separate)->config.policy;
  CHECK(a.kind == PolicyKind::kDmsBorrowed && a.window == 8 && a.alpha_scale == 100.0f && a.alpha_offset == 5.0f && a.target_cr == 8.0f);
  CHECK(b.kind == PolicyKind::kDmsSeparate && b.window == 8 && !b.alpha_per_layer && !b.disable_eviction);
  CHECK((*separate)->layers[1].alpha_proj.rows == 2 && (*separate)->layers[1].alpha_norm.cols == 64);
  CHECK(!(*borrowed)->layers[1].alpha_proj && (*separate)->parameter_count - (*borrowed)->parameter_count == 3 * (2 * 64 + 64));
}

void CountdownModelsOpen() {
  for (const char* name : {"dense", "cr2", "cr4", "cr8"}) {
    auto opened = OpenModel((models_dir / "countdown" / name).string(), {});
    if (!CHECK_OK(opened)) continue;
    const bool dense = std::string_view(name) == "dense";
    CHECK((*opened)->config.policy.kind == (dense ? PolicyKind::kDense : PolicyKind::kDmsBorrowed));
    CHECK((*opened)->config.policy.window == (dense ? 0 : 16) && (*opened)->config.tied_embeddings);
  }
}

void OtherArchitecturesAreNamed() {
  CHECK(Names(OpenFixture("tiny_llama31").status(), kErrModelConfig, "\"llama\" is not supported; supported: qwen3"));
  CHECK(Names(OpenFixture("tiny_qwen2").status(), kErrModelConfig, "\"qwen2\""));
  CHECK(Names(OpenFixture("kvzap_mlp").status(), kErrModelConfig, "\"kvzap\""));
  CHECK(Names(OpenFixture("tiny_qwen3_nf4").status(), kErrModelTensor, "\"U8\""));
}

// --- config.json -----------------------------------------------------------------------------------------------------------------

void BothDialectsGiveTheSameConfig() {
  std::string text = Replace(QwenConfig(), "\"rope_scaling\": null,", "");
  text = Replace(text, "\"rope_theta\": 1000000.0", "\"rope_parameters\": {\"rope_theta\": 1e6, \"rope_type\": \"default\"}");
  auto nested = ParseConfig(text, "", {});
  if (CHECK_OK(nested)) CHECK(nested->rope_theta == 1e6);
  auto old_dtype = ParseConfig(Replace(QwenConfig(), "\"dtype\"", "\"torch_dtype\""), "", {});
  if (CHECK_OK(old_dtype)) CHECK(old_dtype->dtype == "float32");
  auto no_head_dim = ParseConfig(Replace(QwenConfig(), "\"head_dim\": 16,", ""), "", {});
  if (CHECK_OK(no_head_dim)) CHECK(no_head_dim->head_dim == 16);
  auto integer_theta = ParseConfig(WithValue("rope_theta", "10000"), "", {});
  if (CHECK_OK(integer_theta)) CHECK(integer_theta->rope_theta == 10000.0);
  CHECK(Names(ConfigStatus(WithField("\"rope_parameters\": {\"rope_theta\": 5e5}")), kErrModelConfig, "disagrees"));
}

void UnsupportedFeaturesAreNamed() {
  CHECK(Names(ConfigStatus(WithValue("rope_scaling", "{\"type\": \"yarn\"}")), kErrModelConfig, "\"yarn\""));
  CHECK(Names(ConfigStatus(WithField("\"rope_parameters\": {\"rope_theta\": 1e6, \"rope_type\": \"llama3\"}")), kErrModelConfig, "\"llama3\""));
  CHECK(Names(ConfigStatus(WithValue("attention_bias", "true")), kErrModelConfig, "attention_bias"));
  CHECK(Names(ConfigStatus(WithValue("use_sliding_window", "true")), kErrModelConfig, "use_sliding_window"));
  CHECK(Names(ConfigStatus(WithValue("layer_types", "[\"full_attention\", \"sliding_attention\"]")), kErrModelConfig, "sliding_attention"));
  CHECK(Names(ConfigStatus(WithValue("hidden_act", "\"gelu\"")), kErrModelConfig, "\"gelu\""));
  CHECK(Names(ConfigStatus(WithValue("architectures", "[\"Qwen3Model\"]")), kErrModelConfig, "Qwen3Model"));
}

void AbsurdNumbersAreRefusedByName() {
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "max_position_embeddings"}) {
    for (const char* value : {"0", "-1", "1e18", "1000000000000000000", "99999999999999999999999999", "0.5", "\"64\"", "true", "[1]", "{}"}) {
      const std::string text = WithValue(key, value);
      // simdjson itself refuses an integer beyond 64 bits, before any field is read.
      CHECK(Names(ConfigStatus(text), kErrModelConfig, std::strlen(value) > 20 ? "config.json" : key));
    }
  }
  for (const char* key : {"rope_theta", "rms_norm_eps"}) {
    for (const char* value : {"0", "-1.0", "1e300", "\"1\"", "null"}) CHECK(Names(ConfigStatus(WithValue(key, value)), kErrModelConfig, key));
  }
  CHECK(Names(ConfigStatus(WithValue("rope_theta", "NaN")), kErrModelConfig, "JSON"));
  CHECK(Names(ConfigStatus(WithValue("num_key_value_heads", "3")), kErrModelConfig, "multiple"));
  CHECK(Names(ConfigStatus(WithValue("head_dim", "15")), kErrModelConfig, "even"));
  CHECK(Names(ConfigStatus(WithValue("eos_token_id", "128")), kErrModelConfig, "eos_token_id"));
  CHECK(Names(ConfigStatus(WithValue("eos_token_id", "[2, -1]")), kErrModelConfig, "eos_token_id"));
  CHECK(Names(ConfigStatus(WithField("\"hidden_size\": 32")), kErrModelConfig, "twice"));
  for (const char* window : {"0", "-1", "1000001", "8.5", "\"8\""}) {
    CHECK(Names(ConfigStatus(WithField(std::string("\"dms_window_size\": ") + window)), kErrModelConfig, "dms_window_size"));
  }
  CHECK(Names(ConfigStatus(WithField("\"dms_cr\": 4, \"dms_alpha_per\": \"layer\"")), kErrModelConfig, "dms_separate_alpha"));
}

void BrokenJsonIsRefused() {
  for (const char* text : {"", "[]", "{", "null", "{}{}", "{\"model_type\":\"qwen3\"", "\xff\xfe", "{\"a\":\"\xc3\"}"}) {
    CHECK(Names(ConfigStatus(text), kErrModelConfig, "config.json"));
  }
  const std::string deep = std::string(100'000, '[') + std::string(100'000, ']');
  CHECK(Names(ConfigStatus(WithField("\"deep\": " + deep)), kErrModelConfig, "JSON"));
  CHECK(Names(ConfigStatus(QwenConfig(), {}, "{"), kErrModelConfig, "generation_config.json"));
}

void EosIdsComeFromTheGenerationConfigFirst() {
  auto eos = [](const std::string& config, const std::string& generation) {
    auto parsed = ParseConfig(config, generation, {});
    return CHECK_OK(parsed) ? parsed->eos_ids : std::vector<int32_t>{};
  };
  CHECK((eos(QwenConfig(), "{\"eos_token_id\": [5, 7]}") == std::vector<int32_t>{5, 7}));
  CHECK((eos(QwenConfig(), "{\"eos_token_id\": null}") == std::vector<int32_t>{2}));
  CHECK((eos(WithValue("eos_token_id", "[3, 4]"), "") == std::vector<int32_t>{3, 4}));
  CHECK(eos(WithValue("eos_token_id", "null"), "{}").empty());
}

void OverridesApplyStrictly() {
  auto policy = [](const PolicyOverrides& overrides, const std::string& config = WithField("\"dms_window_size\": 8.0")) {
    auto parsed = ParseConfig(config, "", overrides);
    return CHECK_OK(parsed) ? parsed->policy : PolicySpec{};
  };
  CHECK(policy({}).kind == PolicyKind::kDmsBorrowed && policy({}).window == 8);
  CHECK(policy({{"policy", "dense"}}).kind == PolicyKind::kDense && policy({{"policy", "dense"}}).window == 0);
  const PolicySpec forced = policy({{"alpha_offset", "-2.5"}, {"policy", "dms"}}, QwenConfig());
  CHECK(forced.kind == PolicyKind::kDmsBorrowed && forced.window == 512 && forced.alpha_offset == -2.5f && forced.alpha_scale == 100.0f);
  CHECK(policy({{"window", "3"}}).window == 3 && policy({{"disable_eviction", "true"}}).disable_eviction);
  CHECK(policy({{"alpha_per", "layer"}}, WithField("\"dms_cr\": 8, \"dms_separate_alpha\": true")).alpha_per_layer);

  const std::pair<const char*, const char*> bad[] = {
      {"window", ""}, {"window", "0"}, {"window", "1000001"}, {"window", "8x"}, {"window", " 8"}, {"window", "8.0"}, {"window", "+8"},
      {"alpha_scale", "nan"}, {"alpha_scale", "inf"}, {"alpha_scale", "-1"}, {"alpha_scale", "1e999"}, {"alpha_offset", "5,0"},
      {"alpha_per", "head "}, {"alpha_per", "layer"}, {"disable_eviction", "1"}, {"policy", "DMS"}};
  for (const auto& [key, value] : bad) CHECK(Names(ConfigStatus(WithField("\"dms_cr\": 8"), {{key, value}}), kErrOption, key));
  CHECK(Names(ConfigStatus(QwenConfig(), {{"windows", "8"}}), kErrOption, "valid: policy, window, alpha_scale"));
  CHECK(Names(ConfigStatus(QwenConfig(), {{"window", "8"}}), kErrOption, "policy=dms"));
  CHECK(Names(ConfigStatus(QwenConfig(), {{"policy", "dms"}, {"policy", "dense"}}), kErrOption, "twice"));
}

// --- safetensors -----------------------------------------------------------------------------------------------------------------

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
  const std::string file = ReadFile(fixtures_dir / "models/tiny_qwen3/model.safetensors");
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

// --- Directories -----------------------------------------------------------------------------------------------------------------

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
  CHECK(Names(OpenModel("/nonexistent", {}).status(), kErrModelFile, "/nonexistent/config.json does not exist"));
  CHECK(Names(OpenModel(std::string("/\0x", 3), {}).status(), kErrModelFile, "NUL"));
  CHECK(Names(StatusAfter("tiny_qwen3", [](auto& d) { fs::remove(d / "model.safetensors"); }), kErrModelFile, "neither"));
  CHECK(Names(StatusAfter("tiny_qwen3", [](auto& d) { WriteFile(d / "model.safetensors", ""); }), kErrModelFile, "is empty"));
  CHECK(Names(StatusAfter("tiny_qwen3", [](auto& d) { WriteFile(d / "config.json", std::string((1 << 20) + 1, ' ')); }), kErrModelFile, "1048576"));
  auto swap_for = [](auto make) {
    return [make](const fs::path& d) { fs::remove(d / "model.safetensors"); make(d / "model.safetensors"); };
  };
  CHECK(Names(StatusAfter("tiny_qwen3", swap_for([](const fs::path& p) { fs::create_directory(p); })), kErrModelFile, "regular"));
  CHECK(Names(StatusAfter("tiny_qwen3", swap_for([](const fs::path& p) { CHECK(mkfifo(p.c_str(), 0600) == 0); })), kErrModelFile, "regular"));
  CHECK_OK(StatusAfter("tiny_qwen3", [](auto& d) { fs::remove(d / "generation_config.json"); }));
}

void BadShardsAreNamed() {
  const char* index = "model.safetensors.index.json";
  const std::string second = "model-00002-of-00003.safetensors";
  CHECK(Names(StatusAfter("tiny_qwen3_sharded", [&](auto& d) { fs::remove(d / second); }), kErrModelFile, second));
  const std::string entry = "\"lm_head.weight\": \"model-00003-of-00003.safetensors\"";
  for (const char* name : {"../x", "/etc/passwd", "a/b", "", ".", "..", "a\\\\b", "a\\u0000"}) {
    CHECK(Names(StatusAfter("tiny_qwen3_sharded", Edit(index, entry, std::string("\"lm_head.weight\": \"") + name + "\"")), kErrModelFile, "lm_head.weight"));
  }
  CHECK(Names(StatusAfter("tiny_qwen3_sharded", Edit(index, entry, "\"lm_head.weight\": 3")), kErrModelFile, "lm_head.weight"));
  CHECK(Names(StatusAfter("tiny_qwen3_sharded", Edit(index, entry, "\"lm_head.weight\": \"" + second + "\"")), kErrModelFile, "should be in"));
  CHECK(Names(StatusAfter("tiny_qwen3_sharded", Edit(index, entry, entry + ", " + entry)), kErrModelFile, "twice"));
  CHECK(Names(StatusAfter("tiny_qwen3_sharded", Edit(index, "\"weight_map\"", "\"weights\"")), kErrModelFile, "weight_map"));
  CHECK(Names(StatusAfter("tiny_qwen3_sharded", [&](auto& d) { WriteFile(d / index, "{\"weight_map\": {}}"); }), kErrModelTensor, "embed_tokens"));
}

void WrongTensorsAreNamed() {
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  CHECK(Names(StatusAfter("tiny_qwen3", EditHeader(q, "model.layers.1.self_attn.x_proj.weight")), kErrModelTensor, q + " is missing"));
  CHECK(Names(StatusAfter("tiny_qwen3", EditHeader("model.norm.weight", "model.norm.other!")), kErrModelTensor, "model.norm.weight is missing"));
  CHECK(Names(StatusAfter("tiny_qwen3", EditHeader("[128,64]", "[64,128]")), kErrModelTensor, "must have shape [128, 64] by config.json, found [64, 128]"));
  CHECK(Names(StatusAfter("tiny_qwen3", EditHeader("[128,64]", "[8192]")), kErrModelTensor, "found [8192]"));
  CHECK(Names(StatusAfter("tiny_qwen3", EditHeader("\"F32\"", "\"I32\"")), kErrModelTensor, "\"I32\""));
  CHECK(Names(StatusAfter("tiny_qwen3", Edit("config.json", "\"intermediate_size\": 128", "\"intermediate_size\": 130")), kErrModelTensor, "mlp"));
  CHECK(Names(StatusAfter("tiny_qwen3", Edit("config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4")), kErrModelTensor, "model.layers.3."));
  CHECK(Names(StatusAfter("tiny_qwen3_dms_separate", EditHeader("dms_proj_alpha_norm", "dms_proj_alpha_other")), kErrModelTensor, "dms_proj_alpha_norm"));
  CHECK_OK(OpenFixture("tiny_qwen3_dms_separate", {{"policy", "dense"}}));
}

void NonFiniteWeightsAreNamed() {
  for (const char* fixture : {"tiny_qwen3", "tiny_qwen3_tied_bf16"}) {
    const std::string file = ReadFile(fixtures_dir / "models" / fixture / "model.safetensors");
    auto header = ParseHeader(file);
    if (!CHECK_OK(header)) return;
    const int64_t element = std::string_view(fixture) == "tiny_qwen3" ? 4 : 2;
    for (const char* name : {"model.embed_tokens.weight", "model.layers.2.self_attn.k_norm.weight", "model.layers.0.mlp.down_proj.weight"}) {
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

// --- Mutations -------------------------------------------------------------------------------------------------------------------

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
  const std::string file = ReadFile(fixtures_dir / "models/tiny_qwen3_dms_separate/model.safetensors");
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
      if (!CHECK(tensor.begin >= 8 && tensor.begin <= tensor.end && tensor.end <= static_cast<int64_t>(mutated.size()))) std::printf("    seed %u\n", seed);
    }
  }
  CHECK(accepted > 0 && accepted < 2500);
}

void MutatedConfigsNeverCrash() {
  const std::string config = ReadFile(fixtures_dir / "models/tiny_qwen3_dms_separate/config.json");
  for (uint32_t seed = 1; seed <= 5000; ++seed) {
    std::mt19937 random(seed);
    const std::string mutated = Mutate(config, random);
    auto parsed = ParseConfig(mutated, seed % 2 ? "" : Mutate("{\"eos_token_id\": [2, 3], \"bos_token_id\": 1}", random), {});
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
}  // namespace rum

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: model_test FIXTURES_DIR MODELS_DIR\n");
    return 2;
  }
  rum::fixtures_dir = argv[1];
  rum::models_dir = argv[2];
  return rum::test::RunAll({
      {"a Qwen3 directory opens with the shapes its config states", rum::TinyQwen3Opens},
      {"a sharded model has the same bytes as the unsharded one", rum::ShardedEqualsUnsharded},
      {"a tied bf16 model uses its embeddings as the head", rum::TiedBf16Opens},
      {"both DMS flavours are told apart by their metadata", rum::DmsFlavoursAreDetected},
      {"the bundled countdown models open with their policies", rum::CountdownModelsOpen},
      {"another architecture or a quantised tensor is refused by name", rum::OtherArchitecturesAreNamed},
      {"both config dialects give the same config", rum::BothDialectsGiveTheSameConfig},
      {"a feature that would change the computation is refused by name", rum::UnsupportedFeaturesAreNamed},
      {"an absurd number in config.json is refused by its key", rum::AbsurdNumbersAreRefusedByName},
      {"broken or endlessly nested JSON is refused", rum::BrokenJsonIsRefused},
      {"eos ids come from generation_config.json first", rum::EosIdsComeFromTheGenerationConfigFirst},
      {"policy overrides are parsed strictly", rum::OverridesApplyStrictly},
      {"a safetensors header that lies is refused", rum::LyingHeadersAreRefused},
      {"a file cut at any byte of its header or in its data is refused", rum::EveryTruncationIsRefused},
      {"a missing, empty, huge or irregular file is refused by name", rum::MissingAndForeignFilesAreNamed},
      {"a shard that is missing, elsewhere or lacks its tensor is refused by name", rum::BadShardsAreNamed},
      {"a missing, misshapen or uncomputable tensor is refused by name", rum::WrongTensorsAreNamed},
      {"a NaN or infinite weight is refused with its tensor's name", rum::NonFiniteWeightsAreNamed},
      {"tensors at odd addresses open to the same bytes", rum::AnUnalignedFileOpens},
      {"5000 mutated safetensors headers never crash the parser", rum::MutatedHeadersNeverCrash},
      {"5000 mutated configs never crash the parser", rum::MutatedConfigsNeverCrash},
      {"1000 mutated directories never crash the loader", rum::MutatedDirectoriesNeverCrash},
  });
}
