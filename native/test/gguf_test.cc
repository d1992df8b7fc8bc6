// The GGUF parser on right, wrong and mutated bytes. Goal: whatever the bytes, it says what is wrong or gives ranges inside them.
#include "model/gguf.h"

#include <cstdio>
#include <memory>
#include <random>

#include "core/limits.h"
#include "test/check.h"
#include "test/gguf_builder.h"
#include "test/model_fixtures.h"

namespace rum::test {
namespace {

// A copy of exactly the file's size on the heap, so that AddressSanitizer sees a read past its end.
struct Parsed {
  std::unique_ptr<uint8_t[]> bytes;
  Expected<GgufHeader> header;
};
Parsed Parse(std::string_view file) {
  auto bytes = std::make_unique<uint8_t[]>(file.size());
  std::memcpy(bytes.get(), file.data(), file.size());
  auto header = ParseGgufHeader({bytes.get(), file.size()}, "test.gguf");
  return {std::move(bytes), std::move(header)};
}
Status StatusOfFile(std::string_view file) { return Parse(file).header.status(); }

// One value of every type, and tensors of a plain, a block and an unknown type.
GgufBuilder Everything() {
  GgufBuilder b;
  b.Value("u8", GgufType::kU8, Raw(uint8_t{200})).Value("i8", GgufType::kI8, Raw(int8_t{-3}));
  b.Value("u16", GgufType::kU16, Raw(uint16_t{60000})).Value("i16", GgufType::kI16, Raw(int16_t{-300}));
  b.U32("u32", 4'000'000'000u).Value("i32", GgufType::kI32, Raw(int32_t{-70000}));
  b.Value("u64", GgufType::kU64, Raw(uint64_t{1} << 40)).Value("i64", GgufType::kI64, Raw(int64_t{-5}));
  b.Value("huge", GgufType::kU64, Raw(~uint64_t{0}));
  b.F32("f32", 0.5f).Value("f64", GgufType::kF64, Raw(0.25)).Bool("bool", true).String("string", "na\xc3\xafve").String("latin1", "na\xefve");
  b.Strings("strings", {"a", "", "\xe2\x96\x81 b"}).Strings("mixed", {"a", "\xff"});
  b.Array("i32s", GgufType::kI32, 2, Raw(int32_t{-1}) + Raw(int32_t{7})).Array("f32s", GgufType::kF32, 1, Raw(1.5f));
  b.Array("nested", GgufType::kArray, 2, RawType(GgufType::kU8) + Raw(uint64_t{1}) + "x" + RawType(GgufType::kString) + Raw(uint64_t{0}));
  b.Tensor("plain", {3, 2}, 0, std::string(24, 'p')).Tensor("block", {64}, 8, std::string(68, 'q')).Tensor("new", {5}, 77, "12345");
  b.Tensor("scalar", {}, 24, "s");
  return b;
}

void RightFilesAreRead() {
  for (const uint32_t version : {2u, 3u}) {
    GgufBuilder b = Everything();
    b.version = version;
    const std::string file = b.Build();
    Parsed parsed = Parse(file);
    if (!CHECK_OK(parsed.header)) return;
    GgufReader in(*parsed.header, "test.gguf");
    CHECK(in.Int("u8", 0, 255) == 200 && in.Int("i8", -9, 9) == -3 && in.Int("u16", 0, 1 << 16) == 60000 && in.Int("i16", -999, 0) == -300);
    CHECK(in.Int("u32", 0, int64_t{1} << 32) == 4'000'000'000 && in.Int("i32", -100'000, 0) == -70000);
    CHECK(in.Int("u64", 0, int64_t{1} << 40) == int64_t{1} << 40 && in.Int("i64", -5, -5) == -5 && in.Int("none", 0, 9, 4) == 4);
    CHECK(in.Number("f32", 0, 1) == 0.5 && in.Number("f64", 0, 1) == 0.25 && in.Number("u8", 0, 255) == 200.0 && in.Number("none", 0, 1, 0.5) == 0.5);
    CHECK(in.Bool("bool", false) && !in.Bool("none", false));
    CHECK(in.String("string") == "na\xc3\xafve" && in.String("none", "x") == "x");
    CHECK((in.Strings("strings") == std::vector<std::string_view>{"a", "", "\xe2\x96\x81 b"}) && in.Strings("none").empty());
    CHECK((in.Ints("i32s") == std::vector<int32_t>{-1, 7}) && in.Floats("f32s") == std::vector<float>{1.5f});
    CHECK_OK(in.status());
    const TensorEntry* plain = parsed.header->FindTensor("plain");
    const TensorEntry* block = parsed.header->FindTensor("block");
    const TensorEntry* unknown = parsed.header->FindTensor("new");
    if (!CHECK(plain && block && unknown && parsed.header->FindTensor("scalar") && !parsed.header->FindTensor("n"))) return;
    CHECK(plain->dtype == "F32" && plain->shape == (std::vector<int64_t>{2, 3}) && plain->end - plain->begin == 24);
    CHECK(file.substr(static_cast<size_t>(plain->begin), 24) == std::string(24, 'p'));
    CHECK(block->dtype == "Q8_0" && file.substr(static_cast<size_t>(block->begin), 68) == std::string(68, 'q'));
    CHECK(unknown->dtype == "type 77" && unknown->begin == unknown->end);
  }
}

void WrongReadsAreNamed() {
  const Parsed parsed = Parse(Everything().Build());
  if (!CHECK_OK(parsed.header)) return;
  const auto after = [&](auto read) {
    GgufReader in(*parsed.header, "test.gguf");
    read(in);
    return in.status();
  };
  const auto names = [&](const char* key, auto read) { CHECK(Names(after(read), kErrModelConfig, key)); };
  names("none", [](GgufReader& in) { in.Int("none", 0, 1); });
  names("string", [](GgufReader& in) { in.Int("string", 0, 1); });
  names("f32", [](GgufReader& in) { in.Int("f32", 0, 1); });
  names("i64", [](GgufReader& in) { in.Int("i64", 0, 10); });
  names("huge", [](GgufReader& in) { in.Int("huge", 0, INT64_MAX); });
  names("f32", [](GgufReader& in) { in.Number("f32", 1, 2); });
  names("strings", [](GgufReader& in) { in.Number("strings", 0, 1); });
  names("u8", [](GgufReader& in) { in.Bool("u8", true); });
  names("bool", [](GgufReader& in) { in.String("bool"); });
  names("latin1", [](GgufReader& in) { in.String("latin1"); });
  names("mixed", [](GgufReader& in) { in.Strings("mixed"); });
  names("i32s", [](GgufReader& in) { in.Strings("i32s"); });
  names("f32s", [](GgufReader& in) { in.Ints("f32s"); });
  names("nested", [](GgufReader& in) { in.Floats("nested"); });
  // The first failure sticks, and reads after it give their fallback.
  names("none", [](GgufReader& in) { CHECK(in.Int("none", 2, 3) == 2 && in.Int("u8", 0, 255, 9) == 9 && in.Strings("strings").empty()); });
}

void LyingHeadersAreRefused() {
  const auto refused = [](const std::string& word, const GgufBuilder& b) { CHECK(Names(StatusOfFile(b.Build()), kErrModelFile, word)); };
  using T = GgufType;
  CHECK(Names(StatusOfFile("GGML" + std::string(60, '\0')), kErrModelFile, "GGUF"));
  for (const uint32_t version : {0u, 1u, 4u, 0x03000000u}) {
    GgufBuilder b;
    b.version = version;
    refused(version == 0x03000000u ? "big-endian" : version == 0 ? "" : "version", b);
  }
  const auto with_counts = [](uint64_t metadata, uint64_t tensors) {
    GgufBuilder b;
    b.metadata_count = metadata, b.tensor_count = tensors;
    return b;
  };
  refused("metadata", with_counts(~uint64_t{0}, 0));
  refused("metadata", with_counts(1000, 0));
  refused("tensors", with_counts(0, ~uint64_t{0}));
  refused("tensor", with_counts(0, 1000));

  refused("twice", GgufBuilder().U32("a", 1).U32("b", 1).U32("a", 1));
  refused("empty", GgufBuilder().U32("", 1));
  refused("key", GgufBuilder().U32(std::string(kGgufKeyBytesMax + 1, 'k'), 1));
  refused("type 13", GgufBuilder().Value("k", static_cast<T>(13), ""));
  refused("\"k\"", GgufBuilder().Value("k", T::kString, Raw(~uint64_t{0}) + "text"));
  refused("\"k\"", GgufBuilder().Value("k", T::kString, Raw(uint64_t{1000}) + "text"));
  refused("\"k\"", GgufBuilder().Value("k", T::kBool, Raw(uint8_t{2})));
  refused("elements", GgufBuilder().Array("k", T::kU8, ~uint64_t{0}, "xx"));
  refused("\"k\"", GgufBuilder().Array("k", T::kU64, 1000, "xx"));
  refused("type 99", GgufBuilder().Array("k", static_cast<T>(99), 1, "xx"));
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += RawType(T::kArray) + Raw(uint64_t{1});
  refused("deep", GgufBuilder().Array("k", T::kArray, 1, deep));

  for (const uint32_t alignment : {0u, 3u, 48u, 1u << 17}) refused("alignment", GgufBuilder().U32("general.alignment", alignment));
  refused("alignment", GgufBuilder().String("general.alignment", "32"));

  const std::string data(128, 'd');
  refused("twice", GgufBuilder().Tensor("t", {32}, 0, data).Tensor("t", {32}, 0, data));
  refused("overlaps", GgufBuilder().Tensor("a", {32}, 0, data).Tensor("b", {32}, 0, data, 96));
  refused("overlaps", GgufBuilder().Tensor("a", {32}, 0, data).Tensor("b", {1}, 0, data, 0));
  refused("aligned", GgufBuilder().Tensor("a", {2}, 0, data, 8));
  refused("outside", GgufBuilder().Tensor("a", {64}, 0, data));
  refused("outside", GgufBuilder().Tensor("a", {1}, 0, data, uint64_t{1} << 62));
  refused("outside", GgufBuilder().Tensor("a", {1}, 0, data, ~uint64_t{31}));
  refused("outside", GgufBuilder().Tensor("a", {uint64_t{1} << 40}, 0, data, 0x7fffffffffffffe0u));
  refused("shape", GgufBuilder().Tensor("a", {~uint64_t{0}}, 0, data));
  refused("shape", GgufBuilder().Tensor("a", {uint64_t{1} << 32, uint64_t{1} << 32}, 0, data));
  refused("shape", GgufBuilder().Tensor("a", {uint64_t{1} << 62}, 0, data));
  refused("5 dimensions", GgufBuilder().Tensor("a", {1, 1, 1, 1, 1}, 0, data));
  refused("blocks", GgufBuilder().Tensor("a", {33}, 8, data));
  refused("name", GgufBuilder().Tensor("", {1}, 0, data));
  refused("name", GgufBuilder().Tensor(std::string(65, 'n'), {1}, 0, data));
}

void EveryTruncationIsRefused() {
  const std::string file = Everything().Build();
  // The last tensor is one byte, padded to 32.
  for (size_t size = 0; size <= file.size() - 32; ++size) {
    if (!CHECK(Names(StatusOfFile(std::string_view(file).substr(0, size)), kErrModelFile, "test.gguf"))) return;
  }
  CHECK_OK(StatusOfFile(std::string_view(file).substr(0, file.size() - 31)));
}

void AlignmentIsRespected() {
  for (const uint32_t alignment : {1u, 8u, 64u, 4096u}) {
    GgufBuilder b;
    b.alignment = alignment;
    b.U32("general.alignment", alignment).Tensor("a", {3}, 24, "abc").Tensor("b", {2}, 24, "de");
    const std::string file = b.Build();
    Parsed parsed = Parse(file);
    if (!CHECK_OK(parsed.header)) return;
    const TensorEntry* t = parsed.header->FindTensor("b");
    CHECK(t && t->begin % alignment == 0 && file.substr(static_cast<size_t>(t->begin), 2) == "de");
  }
}

void MutatedFilesNeverCrash() {
  const std::string file = Everything().Build();
  int accepted = 0;
  for (uint32_t seed = 1; seed <= 20000; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
    std::string mutated = file;
    for (size_t edits = 1 + below(4); edits > 0 && !mutated.empty(); --edits) {
      const size_t at = below(mutated.size());
      switch (below(5)) {
        case 0: mutated[at] = static_cast<char>(below(256)); break;
        case 1: mutated[at] = static_cast<char>(mutated[at] ^ (1 << below(8))); break;
        case 2: mutated.erase(at, 1 + below(16)); break;
        case 3: mutated.insert(at, mutated, at, below(64)); break;
        default: mutated.replace(at, std::min<size_t>(8, mutated.size() - at), Raw(uint64_t{1} << below(64)), 0, std::min<size_t>(8, mutated.size() - at));
      }
    }
    Parsed parsed = Parse(mutated);
    if (!parsed.header.ok()) {
      if (!CHECK(std::string(parsed.header.status().code) == kErrModelFile)) std::printf("    seed %u\n", seed);
      continue;
    }
    ++accepted;
    for (const TensorEntry& tensor : parsed.header->tensors) {
      const bool inside = tensor.begin >= 24 && tensor.begin <= tensor.end && tensor.end <= std::ssize(mutated);
      if (!CHECK(inside)) std::printf("    seed %u\n", seed);
    }
    for (const GgufValue& value : parsed.header->metadata) {
      GgufReader in(*parsed.header, "mutated");
      const std::string key(value.key);
      in.Int(key, INT64_MIN, INT64_MAX), in.Number(key, -1e300, 1e300), in.Bool(key, false), in.String(key);
      for (auto read : {+[](GgufReader& r, const std::string& k) { r.Strings(k); }, +[](GgufReader& r, const std::string& k) { r.Ints(k); },
                        +[](GgufReader& r, const std::string& k) { r.Floats(k); }}) {
        GgufReader array(*parsed.header, "mutated");
        read(array, key);
      }
    }
  }
  CHECK(accepted > 0 && accepted < 15000);
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"values and tensors of every type are read, in versions 2 and 3", RightFilesAreRead},
      {"a metadata value that is missing, of another type or out of range is refused by name", WrongReadsAreNamed},
      {"a header that lies about a count, length, type, shape or offset is refused", LyingHeadersAreRefused},
      {"a file cut at any byte is refused", EveryTruncationIsRefused},
      {"tensors lie where general.alignment puts them", AlignmentIsRespected},
      {"20000 mutated files never crash the parser", MutatedFilesNeverCrash},
  });
}
