// bitsandbytes NF4 checkpoints: matrices and models of the oracle, and hostile directories refused by name.
// Usage: nf4_test FIXTURES_DIR MODELS_DIR
#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/json.h"
#include "model/nf4.h"
#include "model/quant.h"
#include "test/backends.h"
#include "test/fixture.h"
#include "test/model_fixtures.h"

namespace rum::test {
namespace {

// A safetensors file taken apart, to be put together again with changes.
struct Checkpoint {
  struct Tensor {
    std::string dtype, bytes;
    std::vector<int64_t> shape;
  };
  std::map<std::string, Tensor> tensors;

  explicit Checkpoint(const fs::path& path) {
    const std::string file = ReadFile(path);
    for (const TensorEntry& entry : Must(ParseHeader(file)).tensors) {
      tensors[entry.name] = {entry.dtype, file.substr(static_cast<size_t>(entry.begin), static_cast<size_t>(entry.end - entry.begin)),
                             entry.shape};
    }
  }

  void Write(const fs::path& path) const {
    std::string header, data;
    for (const auto& [name, t] : tensors) {
      header += header.empty() ? '{' : ',';
      header += Quote(name) + ":{\"dtype\":" + Quote(t.dtype) + ",\"shape\":[";
      for (size_t i = 0; i < t.shape.size(); ++i) header += std::string(i != 0 ? "," : "").append(std::to_string(t.shape[i]));
      header += "],\"data_offsets\":[" + std::to_string(data.size()) + ",";
      data += t.bytes;
      header += std::to_string(data.size()) + "]}";
    }
    WriteFile(path, SafetensorsFile(header + "}", 0) + data);
  }

  // `entries` keeps what is found at its place.
  TensorLookup Lookup(std::deque<TensorEntry>* entries) const {
    return [this, entries](std::string_view name) -> std::optional<FoundTensor> {
      const auto found = tensors.find(std::string(name));
      if (found == tensors.end()) return std::nullopt;
      const Tensor& t = found->second;
      entries->push_back({found->first, t.dtype, t.shape, 0, static_cast<int64_t>(t.bytes.size())});
      return FoundTensor{&entries->back(), reinterpret_cast<const uint8_t*>(t.bytes.data())};
    };
  }
};

void MatricesEqualBitsandbytes() {
  const fs::path path = fs::path(fixtures) / "nf4_matrices.safetensors";
  const Checkpoint checkpoint(path);
  const Fixture fixture(path.string());
  const struct {
    std::string name;
    int64_t rows, cols;
  } matrices[] = {{"a", 96, 192}, {"b", 96, 192}, {"c", 40, 104}};
  for (const auto& m : matrices) {
    std::deque<TensorEntry> entries;
    auto opened = OpenNf4(checkpoint.Lookup(&entries), m.name + ".weight", m.rows, m.cols);
    if (!CHECK_OK(opened)) continue;
    CHECK(AllFinite(opened->view));
    const std::vector<float> want = fixture.Floats(m.name + ".dequantised");
    std::vector<float> row(static_cast<size_t>(m.cols));
    for (int64_t r = 0; r < m.rows; ++r) {
      DequantiseRow(opened->view, r, row.data());
      const float* wanted = want.data() + r * m.cols;
      CHECK(std::ranges::equal(row, std::span(wanted, row.size()), [](float a, float b) { return std::fabs(a - b) <= 1e-7f * std::fabs(b); }));
    }
  }
}

// decisions [layers][heads][position]
class Decisions final : public TraceSink {
 public:
  Decisions(const ModelConfig& config, size_t tokens)
      : heads_(static_cast<size_t>(config.num_kv_heads)), tokens_(tokens), evicts(static_cast<size_t>(config.num_layers) * heads_ * tokens) {}
  void OnToken(ChainId, int32_t layer, int32_t position, const float* logits, const int32_t*) override {
    for (size_t j = 0; j < heads_ && logits != nullptr; ++j) {
      evicts[(static_cast<size_t>(layer) * heads_ + j) * tokens_ + static_cast<size_t>(position)] = logits[j] > 0.0f;
    }
  }

 private:
  size_t heads_, tokens_;

 public:
  std::vector<uint8_t> evicts;
};

void ModelsEqualTheOracle() {
  const std::pair<const char*, const char*> cases[] = {
      {"tiny_qwen3_nf4", "tiny_qwen3_nf4"}, {"tiny_qwen3_nf4_single", "tiny_qwen3_nf4_single"}, {"dms_nf4_w8", "tiny_qwen3_dms_nf4"}};
  for (const auto& [fixture_name, directory] : cases) {
    const Fixture fixture((fs::path(fixtures) / (std::string(fixture_name) + ".safetensors")).string());
    const auto model = Open((fs::path(fixtures) / "models" / directory).string());
    CHECK(model->dtype == DType::kNf4 && model->embed.dtype == DType::kF32 && model->nf4_scales.size() == 3 * 7);
    CHECK(model->parameter_count == 127520);
    const std::vector<int32_t> ids = fixture.Ints("all_ids");
    const size_t prompt = fixture.Ints("prompt_ids").size(), vocab = static_cast<size_t>(model->config.vocab_size);
    const std::vector<float> want = fixture.Floats("logits");
    for (const BackendFactory& factory : Factories()) {
      const auto backend = Must(factory.make(model, {}));
      Decisions decisions(model->config, ids.size());
      backend->SetTrace(&decisions);
      const ChainId chain = Must(backend->NewChain());
      std::vector<Row> rows;
      for (const int32_t id : ids) rows.push_back({chain, id, true});
      std::vector<float> logits(ids.size() * vocab);
      CHECK_OK(backend->Forward(rows, logits.data()));
      CHECK(std::ranges::equal(logits, want, [](float a, float b) { return std::fabs(a - b) <= 1e-3f; }));
      for (size_t t = prompt - 1; t + 1 < ids.size(); ++t) {
        const float* row = &logits[t * vocab];
        CHECK(std::max_element(row, row + vocab) - row == ids[t + 1]);
      }
      if (model->config.policy.kind == PolicyKind::kDmsBorrowed) CHECK(decisions.evicts == fixture.Bytes("evict_decision"));
    }
  }
}

// --- Hostile directories ---------------------------------------------------------------------------------------------------------

const std::string kMatrix = "model.layers.1.self_attn.q_proj.weight";
const std::string kState = kMatrix + ".quant_state.bitsandbytes__nf4";

Status StatusWith(const char* fixture, const std::function<void(Checkpoint&)>& change) {
  TempDir dir(fixture);
  Checkpoint checkpoint(dir.path / "model.safetensors");
  change(checkpoint);
  fs::remove(dir.path / "model.safetensors");  // the copy is read-only, as its source
  checkpoint.Write(dir.path / "model.safetensors");
  return OpenModel(dir.path.string(), {}).status();
}

void SetState(Checkpoint& c, const std::string& json) { c.tensors[kState] = {"U8", json, {static_cast<int64_t>(json.size())}}; }

void Resize(Checkpoint& c, const std::string& name, int64_t count, int64_t element_bytes) {
  Checkpoint::Tensor& t = c.tensors[name];
  t.bytes.resize(static_cast<size_t>(count * element_bytes));
  t.shape = {count};
}

void BrokenPartsAreRefusedByName() {
  CHECK_OK(StatusWith("tiny_qwen3_nf4", [](Checkpoint&) {}));
  const auto refused = [](const char* fixture, const std::function<void(Checkpoint&)>& change, const std::string& words) {
    return Names(StatusWith(fixture, change), kErrModelTensor, words);
  };
  for (const char* suffix : {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"}) {
    const std::string name = kMatrix + suffix;
    CHECK(refused("tiny_qwen3_nf4", [&](Checkpoint& c) { c.tensors.erase(name); }, name + " is missing"));
    CHECK(refused("tiny_qwen3_nf4", [&](Checkpoint& c) { Resize(c, name, 0, 1); }, name + " must be"));
    CHECK(refused("tiny_qwen3_nf4", [&](Checkpoint& c) { c.tensors[name].dtype = c.tensors[name].dtype == "U8" ? "I8" : "I32"; }, name + " must be"));
    CHECK(refused("tiny_qwen3_nf4", [&](Checkpoint& c) { c.tensors[name].shape.push_back(1); }, name + " must be"));
  }
  CHECK(refused("tiny_qwen3_nf4", [](Checkpoint& c) { Resize(c, kMatrix + ".absmax", 65, 1); }, ".absmax must be U8 [64]"));
  CHECK(refused("tiny_qwen3_nf4", [](Checkpoint& c) { Resize(c, kMatrix, 2047, 1); }, "2048 bytes of NF4 codes, found 2047"));
  CHECK(refused("tiny_qwen3_nf4", [](Checkpoint& c) { Resize(c, kMatrix, 2049, 1); }, "found 2049"));
  CHECK(refused("tiny_qwen3_nf4_single", [](Checkpoint& c) { Resize(c, kMatrix + ".absmax", 63, 4); }, ".absmax must be F32 [64]"));
  CHECK(refused("tiny_qwen3_nf4", [](Checkpoint& c) { c.tensors.erase(kState); }, "has type \"U8\" but no quant_state.bitsandbytes__nf4"));
  CHECK(refused("tiny_qwen3_nf4", [](Checkpoint& c) { c.tensors[kMatrix + ".quant_state.bitsandbytes__fp4"] = c.tensors[kState]; }, "FP4"));
  // The same bytes in another container (bnb_4bit_quant_storage) are the same matrix.
  CHECK_OK(StatusWith("tiny_qwen3_nf4", [](Checkpoint& c) { c.tensors[kMatrix].dtype = "BF16", c.tensors[kMatrix].shape = {1024, 1}; }));
}

void BrokenStatesAreRefusedByName() {
  const auto state = [](const std::string& from, const std::string& to) {
    return StatusWith("tiny_qwen3_nf4", [&](Checkpoint& c) { SetState(c, Replace(c.tensors[kState].bytes, from, to)); });
  };
  CHECK_OK(state("}", " }"));
  const std::pair<std::string, std::string> fields[] = {
      {"\"quant_type\": \"nf4\"", "\"quant_type\": \"fp4\""}, {"[64, 64]", "[64, 65]"}, {"[64, 64]", "[4096]"}, {"[64, 64]", "[64, 64, 1]"},
      {"[64, 64]", "[\"64\", 64]"}, {"[64, 64]", "null"}, {"\"blocksize\": 64", "\"blocksize\": 0"}, {"\"blocksize\": 64", "\"blocksize\": -64"},
      {"\"blocksize\": 64", "\"blocksize\": 96"}, {"\"blocksize\": 64", "\"blocksize\": 9223372036854775807"},
      {"\"blocksize\": 64", "\"blocksize\": 64.0"}, {"\"nested_blocksize\": 256", "\"nested_blocksize\": 0"},
      {"\"nested_blocksize\": 256", "\"nested_blocksize\": 257"}, {"\"nested_offset\": ", "\"other\": "},
      {"\"nested_offset\": ", "\"nested_offset\": 1e39, \"o\": "}, {"\"nested_offset\": ", "\"nested_offset\": \"x\", \"o\": "},
      {"\"nested_dtype\": \"float32\"", "\"nested_dtype\": \"float16\""}, {"\"quant_type\"", "\"blocksize\": 64, \"quant_type\""}};
  for (const auto& [from, to] : fields) CHECK(Names(state(from, to), kErrModelTensor, kState));
  for (const std::string& json : {std::string(), std::string("{"), std::string("[]"), std::string("{}"), std::string("{\"a\":\xff}"),
                                  std::string(5000, ' ') + "{}", std::string(2000, '[') + std::string(2000, ']')}) {
    CHECK(Names(StatusWith("tiny_qwen3_nf4", [&](Checkpoint& c) { SetState(c, json); }), kErrModelTensor, kState));
  }
}

void ScalesThatAreNotFiniteAreRefused() {
  const auto put = [](const char* fixture, const std::string& part, size_t index, float value) {
    return StatusWith(fixture, [&](Checkpoint& c) { std::memcpy(c.tensors[kMatrix + part].bytes.data() + 4 * index, &value, 4); });
  };
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    CHECK(Names(put("tiny_qwen3_nf4_single", ".absmax", 63, bad), kErrModelWeights, kMatrix));
    CHECK(Names(put("tiny_qwen3_nf4", ".quant_map", 15, bad), kErrModelWeights, kMatrix));
    CHECK(Names(put("tiny_qwen3_nf4", ".nested_quant_map", 200, bad), kErrModelWeights, kMatrix));
    CHECK(Names(put("tiny_qwen3_nf4", ".nested_absmax", 0, bad), kErrModelWeights, kMatrix));
  }
  // Finite one by one, but their product is not.
  const auto overflow = [](Checkpoint& c) {
    const float large = 1e30f;
    std::memcpy(c.tensors[kMatrix + ".absmax"].bytes.data(), &large, 4);
    std::memcpy(c.tensors[kMatrix + ".quant_map"].bytes.data(), &large, 4);
  };
  CHECK(Names(StatusWith("tiny_qwen3_nf4_single", overflow), kErrModelWeights, kMatrix));
}

void OtherQuantisationsAreNamed() {
  const auto with = [](const std::string& value) {
    return ParseConfig({Replace(QwenConfig(), "{", "{ \"quantization_config\": " + value + ",")}, {}).status();
  };
  CHECK_OK(with("{\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}"));
  CHECK_OK(with("{\"load_in_4bit\": true}"));
  CHECK_OK(with("null"));
  for (const char* method : {"gptq", "awq", "fp8", "compressed-tensors"}) {
    CHECK(Names(with(std::string("{\"quant_method\": \"") + method + "\"}"), kErrModelConfig, std::string("\"") + method + "\""));
  }
  for (const char* value : {"7", "[]", "{\"quant_method\": 4}"}) CHECK(Names(with(value), kErrModelConfig, "quantization_config"));
}

// Whatever bytes the parts hold.
void RandomBytesAreOpenedOrRefused() {
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    const Status status = StatusWith(round % 2 == 0 ? "tiny_qwen3_nf4" : "tiny_qwen3_nf4_single", [&](Checkpoint& c) {
      const char* suffixes[] = {"", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", ".quant_state.bitsandbytes__nf4"};
      const auto found = c.tensors.find(kMatrix + suffixes[random() % 6]);
      if (found == c.tensors.end() || found->second.bytes.empty()) return;
      for (size_t n = 1 + random() % 3; n > 0; --n) {
        found->second.bytes[random() % found->second.bytes.size()] = static_cast<char>(random());
      }
    });
    CHECK(status.ok() || std::string(status.code) == kErrModelTensor || std::string(status.code) == kErrModelWeights);
  }
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"matrices have the values that bitsandbytes gives them", MatricesEqualBitsandbytes},
      {"NF4 models, also with DMS, give the oracle's logits, tokens and decisions on every backend", ModelsEqualTheOracle},
      {"a missing, short or mistyped part of a matrix is refused by name", BrokenPartsAreRefusedByName},
      {"a quant_state that disagrees or is no JSON is refused by name", BrokenStatesAreRefusedByName},
      {"a scale that is not finite is refused", ScalesThatAreNotFiniteAreRefused},
      {"a checkpoint of another quantisation is refused by its name", OtherQuantisationsAreNamed},
      {"random bytes in any part are opened or refused", RandomBytesAreOpenedOrRefused},
  });
}
