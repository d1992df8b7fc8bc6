// Version 1 as it was first written: what is stored somewhere stays readable, and what is written stays the same bytes.
//
//   object_golden_test FIXTURES_DIR [MODELS_DIR]      compares with FIXTURES_DIR/../golden/dmskv1
//   object_golden_test FIXTURES_DIR --write           first writes the files that are missing there; none is ever replaced
#include <filesystem>
#include <fstream>
#include <iterator>

#include "test/check.h"
#include "test/object_fixtures.h"

namespace rum::test {
namespace {

std::filesystem::path golden;

// Contents by integer arithmetic alone: the floats are made of their bits.
Bytes Counting(size_t size, uint32_t step) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>((i * step) >> 3);
  return bytes;
}
Bytes Numbers(size_t count) {
  Bytes bytes(4 * count);
  uint32_t state = 12345;
  for (size_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    StoreAs(&bytes[4 * i], (state & 0x807FFFFFu) | (0x3E000000u + ((state >> 8) % 5 << 23)));
  }
  return bytes;
}

struct Golden {
  const char* file;
  ObjectSpec spec;
};

std::vector<Golden> AllGolden() {
  const std::vector<Bytes> frames = {Counting(5, 1), {}, Numbers(600), Counting(4096, 7)};
  std::vector<Golden> all;
  const auto add = [&](const char* file, ObjectKind kind, Codec codec, bool keyed, bool encrypted) {
    ObjectSpec spec;
    spec.kind = kind, spec.codec = codec, spec.keyed = keyed, spec.encrypted = encrypted, spec.frames = frames;
    all.push_back({file, spec});
  };
  add("segment-raw.seg", ObjectKind::kSegment, Codec::kRaw, false, false);
  add("segment-raw-keyed.seg", ObjectKind::kSegment, Codec::kRaw, true, false);
  add("tail-planes-zstd-keyed.tail", ObjectKind::kTail, Codec::kPlanesZstd, true, false);
  add("tail-planes-zstd-keyed-encrypted.tail", ObjectKind::kTail, Codec::kPlanesZstd, true, true);
  add("journal-raw.jrn", ObjectKind::kJournal, Codec::kRaw, false, false);
  add("journal-raw-encrypted.jrn", ObjectKind::kJournal, Codec::kRaw, false, true);
  return all;
}

Bytes ReadGolden(const char* file) {
  std::ifstream in(golden / file, std::ios::binary);
  if (!CHECK(in.good())) return {};
  return {std::istreambuf_iterator<char>(in), {}};
}

void WriteMissing() {
  for (const Golden& g : AllGolden()) {
    if (std::filesystem::exists(golden / g.file)) continue;
    const Bytes bytes = BytesOf(*Write(g.spec));
    std::ofstream(golden / g.file, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }
}

void GoldenFilesAreRead() {
  for (const Golden& g : AllGolden()) {
    std::vector<Bytes> frames;
    CHECK_OK(ReadAll(ReadGolden(g.file), g.spec, &frames));
    CHECK(frames == g.spec.frames);
  }
}

void WritingGivesTheGoldenBytes() {
  for (const Golden& g : AllGolden()) CHECK(BytesOf(*Write(g.spec)) == ReadGolden(g.file));
}

void AKnownDigestNamesTheGoldenSegment() {
  const Bytes bytes = ReadGolden("segment-raw.seg");
  std::string hex;
  for (size_t i = 0; i < 32; ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", bytes[bytes.size() - 40 + i]);
    hex += two;
  }
  CHECK(hex == "1b93bbed713b8298d5dc93512b00e355199afb493873d81eece64d488539c693");
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  if (argc < 2) {
    std::fprintf(stderr, "usage: object_golden_test FIXTURES_DIR [--write]\n");
    return 2;
  }
  golden = std::filesystem::path(argv[1]) / ".." / "golden" / "dmskv1";
  if (argc > 2 && std::string(argv[2]) == "--write") WriteMissing();
  return RunAll({
      {"golden files of version 1 are read, frame by frame what they were made of", GoldenFilesAreRead},
      {"writing the same contents gives the golden bytes", WritingGivesTheGoldenBytes},
      {"the golden segment has the digest that it was given", AKnownDigestNamesTheGoldenSegment},
  });
}
