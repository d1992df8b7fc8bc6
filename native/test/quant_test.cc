// Block formats: what the blocks mean (fixtures of the gguf package and of bitsandbytes), the law of bits for every format, and that
// packed weights stay as small as the format. Usage: quant_test FIXTURES_DIR MODELS_DIR
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/packed.h"
#include "model/quant.h"
#include "test/check.h"
#include "test/fixture.h"
#include "test/pass.h"
#include "test/synthetic.h"

namespace rum::test {
namespace {


constexpr DType kGgufTypes[] = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1, DType::kQ4_K, DType::kQ6_K};

std::vector<float> Dequantise(const TensorView& view) {
  std::vector<float> out(static_cast<size_t>(view.rows * view.cols));
  for (int64_t r = 0; r < view.rows; ++r) DequantiseRow(view, r, out.data() + r * view.cols);
  return out;
}

void GgufBlocksMeanWhatTheGgufPackageSays() {
  const Fixture fixture(fixtures + "-own/gguf_quants.safetensors");
  for (const DType type : kGgufTypes) {
    const std::string name = DTypeName(type);
    const auto blocks = fixture.Bytes(name + ".blocks");
    const auto want = fixture.Floats(name + ".dequantised");
    const TensorView view{type, 6, 512, blocks.data()};
    CHECK(FormatBytes(view) == static_cast<int64_t>(blocks.size()));
    CHECK(AllFinite(view));
    const auto got = Dequantise(view);
    CHECK(got.size() == want.size() && std::memcmp(got.data(), want.data(), want.size() * sizeof(float)) == 0);
  }
}

void ABlockWithAnInfiniteScaleIsFound() {
  const Fixture fixture(fixtures + "-own/gguf_quants.safetensors");
  for (const DType type : kGgufTypes) {
    auto blocks = fixture.Bytes(std::string(DTypeName(type)) + ".blocks");
    const size_t bytes = static_cast<size_t>(BlockOf(type).bytes), last = blocks.size() - bytes;
    std::vector<size_t> scales = {type == DType::kQ6_K ? size_t{208} : 0};
    if (type == DType::kQ4_1 || type == DType::kQ4_K) scales.push_back(2);
    for (const size_t at : scales) {
      for (const uint16_t bad : {uint16_t{0x7C00}, uint16_t{0xFC00}, uint16_t{0x7E01}}) {
        auto damaged = blocks;
        std::memcpy(&damaged[last + at], &bad, 2);
        CHECK(!AllFinite({type, 6, 512, damaged.data()}));
      }
    }
  }
}

// Halves of a kernel's work (16 rows, 32 rows, 64 columns) are left over: rows that fill no panel, columns that fill no tile.
const Shape kGgufSmall = {"rows and columns to spare", 61, 96, 160, 2, 4, 1, 24, 5, PolicyKind::kDmsBorrowed, false, true, DType::kF32, KvType::kF32};
const Shape kGguf256 = {"whole super-blocks", 50, 256, 256, 1, 4, 2, 64, 4, PolicyKind::kDmsSeparate, false, true, DType::kF32, KvType::kBF16};
const Shape kNf4 = {"whole blocks", 61, 128, 320, 2, 4, 2, 32, 3, PolicyKind::kDmsSeparate, true, true, DType::kF32, KvType::kF32};

std::vector<Shape> BitShapes() {
  std::vector<Shape> shapes;
  const auto add = [&shapes](Shape shape, const SyntheticTypes& types) {
    shape.types = types;
    shapes.push_back(shape);
  };
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_1}) add(kGgufSmall, type);
  add(kGguf256, DType::kQ4_K);
  add(kGguf256, DType::kQ6_K);
  add(kGguf256, {DType::kQ4_K, DType::kQ6_K});
  add(kGguf256, {DType::kQ8_0, DType::kF16});
  SyntheticTypes nf4 = DType::kNf4;
  add(kNf4, nf4);
  add(kGgufSmall, nf4);  // 96 columns: blocks cross rows
  nf4.nf4_double = false;
  add(kNf4, nf4);
  nf4.nf4_block = 128;
  add(kGguf256, nf4);
  nf4.nf4_double = true;
  nf4.nf4_block = 256;
  nf4.nested_block = 128;
  add(kGguf256, nf4);
  return shapes;
}

void CpuGivesTheBytesOfTheReference() {
  for (const Shape& shape : BitShapes()) {
    const ModelConfig config = ConfigOf(shape);
    const auto model = MakeSynthetic(config, shape.types, 7);
    const auto ids = Tokens(90, config.vocab_size, 3);
    BackendOptions options;
    options.kv = shape.kv;
    const Outcome want = ReferencePass(model, ids, shape.kv);
    CHECK(want.live < int64_t{90} * config.num_layers * config.num_kv_heads);
    struct {
      int32_t threads, chunk, company;
    } const kWays[] = {{1, 1, 0}, {1, 1, 1}, {1, 4, 1}, {1, 7, 3}, {1, 90, 0}, {3, 1, 6}, {3, 7, 1}};
    for (const Isa isa : Levels()) {
      for (const auto& way : kWays) {
        options.isa = isa;
        options.threads = way.threads;
        auto cpu = MakeCpuBackend(model, options);
        CHECK_OK(cpu.status());
        if (!CHECK(Pass(**cpu, config, ids, way.chunk, way.company) == want)) {
          std::printf("    %s, %s: %s, %d threads, chunk %d, company %d\n", DTypeName(shape.types.dtype), shape.name, IsaName(isa),
                      way.threads, way.chunk, way.company);
        }
      }
    }
  }
}

// --- Size ------------------------------------------------------------------------------------------------------------------------

void PackedWeightsAreAsSmallAsTheFormat() {
  const Shape shape = {"", 512, 1024, 2048, 1, 8, 2, 128, 0, PolicyKind::kDense, false, true, DType::kF32, KvType::kF32};
  const ModelConfig config = ConfigOf(shape);
  std::vector<SyntheticTypes> all(std::begin(kGgufTypes), std::end(kGgufTypes));
  all.push_back({DType::kQ4_K, DType::kQ6_K});
  SyntheticTypes nf4 = DType::kNf4;
  nf4.nested_block = 256;
  all.push_back(nf4);
  nf4.nf4_double = false;
  all.push_back(nf4);
  for (const SyntheticTypes& types : all) {
    const auto model = MakeSynthetic(config, types, 3);
    const LayerWeights& w = model->layers[0];
    int64_t format = 0, weights = 0;
    for (const TensorView* t : {&w.q_proj, &w.k_proj, &w.v_proj, &w.o_proj, &w.gate_proj, &w.up_proj, &w.down_proj, &model->lm_head}) {
      format += FormatBytes(*t);
      weights += t->rows * t->cols;
    }
    auto cpu = MakeCpuBackend(model, {});
    CHECK_OK(cpu.status());
    const int64_t packed = (*cpu)->Memory().weight_bytes;
    std::printf("  %s%s: %.4f bytes a weight, format %.4f (%+.2f %%)\n", DTypeName(types.dtype),
                types.v_down != types.dtype ? " and q6_k" : types.dtype == DType::kNf4 ? types.nf4_double ? " double" : " single" : "",
                static_cast<double>(packed) / static_cast<double>(weights), static_cast<double>(format) / static_cast<double>(weights),
                100.0 * static_cast<double>(packed - format) / static_cast<double>(format));
    CHECK(packed >= format && packed * 100 <= format * 103);
  }
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"GGUF blocks mean, bit for bit, what the gguf package says", GgufBlocksMeanWhatTheGgufPackageSays},
      {"a block with an infinite or NaN scale is found", ABlockWithAnInfiniteScaleIsFound},
      {"cpu gives the bytes of the reference for every block format, level, chunk and company", CpuGivesTheBytesOfTheReference},
      {"packed weights take at most 3 % more than the format", PackedWeightsAreAsSmallAsTheFormat},
  });
}
