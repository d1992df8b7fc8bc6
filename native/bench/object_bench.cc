// Speed of stored objects against what this machine can copy, check and hash in the same run.
//
//   object_bench [--mib 256] [--frame-kib 1024] [--threads 1] [--rounds 7]
//
// Verifying reads every frame; reading also copies it to where it belongs, memory that is there already; writing copies from
// such memory into a fresh object. Each thread has frames (reading) or an object (writing) of its own. All cases run in turn in each round, and the best
// round of each counts, as what disturbs a machine only ever slows it; a thread's time is the processor's. Prints its conditions, a table
// and, as the last line, one JSON object; bytes are raw bytes, GB are 1e9.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <list>
#include <string>
#include <thread>
#include <vector>

#include <time.h>

#include "checkpoint/crc32c.h"
#include "checkpoint/digest.h"
#include "checkpoint/object_reader.h"
#include "checkpoint/object_writer.h"
#include "test/object_fixtures.h"

namespace rum::bench {
namespace {

using test::kDataKey;
using test::kDigestKey;

struct Options {
  int64_t mib = 256, frame_kib = 1024, threads = 1, rounds = 7;
};

Options Parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i];
    const int64_t value = std::max<int64_t>(std::atoll(argv[i + 1]), 1);
    if (key == "--mib") o.mib = value;
    else if (key == "--frame-kib") o.frame_kib = value;
    else if (key == "--threads") o.threads = value;
    else if (key == "--rounds") o.rounds = value;
    else {
      std::fprintf(stderr, "unknown option %s\n", key.c_str());
      std::exit(2);
    }
  }
  return o;
}

void Must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", status.code, status.message.c_str());
  std::exit(1);
}

void Parallel(int64_t threads, int64_t items, const std::function<void(int64_t)>& f) {
  std::vector<std::thread> others;
  const auto work = [&](int64_t thread) {
    for (int64_t i = items * thread / threads; i < items * (thread + 1) / threads; ++i) f(i);
  };
  for (int64_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
  work(0);
  for (std::thread& other : others) other.join();
}

// Of all threads: what waits for a processor that others use is not counted.
double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

struct Case {
  const char* name;
  std::function<void()> run;
  double seconds_min = INFINITY;
};

class Bench {
 public:
  explicit Bench(const Options& o) : o_(o), frame_bytes_(o.frame_kib << 10), frames_((o.mib << 20) / frame_bytes_ / o.threads * o.threads) {
    source_ = test::Floats(static_cast<size_t>(frames_ * frame_bytes_ / 4), 1);
    target_.assign(source_.size(), 1);
    sink_.resize(static_cast<size_t>(frames_));
  }

  int Run() {
    Add("memcpy", [this] { Frames([this](int64_t i) { std::memcpy(Target(i), Source(i).data(), Source(i).size()); }); });
    Add("memcpy_to_fresh", [this] {
      MappedBuffer fresh;
      if (!fresh.Allocate(frames_ * frame_bytes_)) std::exit(1);
      Frames([&](int64_t i) { std::memcpy(fresh.data() + i * frame_bytes_, Source(i).data(), Source(i).size()); });
    });
    Add("crc32c", [this] { Frames([this](int64_t i) { sink_[static_cast<size_t>(i)] = Crc32c(Source(i)); }); });
    Add("blake3", [this] {
      Frames([this](int64_t i) {
        Hasher hasher(&kDigestKey);
        hasher.Update(Source(i));
        std::array<uint8_t, 4> out;
        hasher.Finish(out);
        sink_[static_cast<size_t>(i)] = out[0];
      });
    });
    AddPair("raw", Codec::kRaw, false);
    AddPair("encrypted", Codec::kRaw, true);
    AddPair("planes_zstd", Codec::kPlanesZstd, false);
    for (int64_t round = 0; round < o_.rounds; ++round) {
      for (Case& c : cases_) {
        const double start = CpuSeconds();
        c.run();
        c.seconds_min = std::min(c.seconds_min, (CpuSeconds() - start) / static_cast<double>(o_.threads));
      }
    }
    Report();
    return 0;
  }

 private:
  std::span<const uint8_t> Source(int64_t frame) const {
    return std::span(source_).subspan(static_cast<size_t>(frame * frame_bytes_), static_cast<size_t>(frame_bytes_));
  }
  uint8_t* Target(int64_t frame) { return target_.data() + frame * frame_bytes_; }
  void Frames(const std::function<void(int64_t)>& f) const { Parallel(o_.threads, frames_, f); }
  void Add(const char* name, std::function<void()> run) { cases_.push_back({name, std::move(run)}); }

  static ObjectHeader Header(int64_t frames) {
    ObjectHeader header;
    header.frames = static_cast<uint32_t>(frames);
    return header;
  }
  SavedObject Write(Codec codec, const Seal& seal, int64_t begin, int64_t end) const {
    ObjectWriter writer(Header(end - begin), seal, codec, 4, (end - begin) * (frame_bytes_ + 4096));
    for (int64_t i = begin; i < end; ++i) {
      Must(writer.AddFrame(frame_bytes_, [&](uint8_t* to) { std::memcpy(to, Source(i).data(), Source(i).size()); }));
    }
    Expected<SavedObject> object = writer.Finish();
    Must(object.status());
    return std::move(*object);
  }

  // Writing; verifying and reading, with the digests checked and without.
  void AddPair(const char* name, Codec codec, bool encrypted) {
    const Seal seal{&kDigestKey, encrypted ? &kDataKey : nullptr, "bench"};
    objects_.push_back(Write(codec, seal, 0, frames_));
    const size_t at = objects_.size() - 1;
    stored_.push_back({name, static_cast<double>(objects_[at].size) / static_cast<double>(source_.size())});
    names_.push_back(std::string("write_") + name);
    Add(names_.back().c_str(), [=, this] {
      Parallel(o_.threads, o_.threads, [&](int64_t thread) {
        (void)Write(codec, seal, frames_ * thread / o_.threads, frames_ * (thread + 1) / o_.threads);
      });
    });
    for (const bool digests : {false, true}) {
      for (const bool copy : {false, true}) {
        names_.push_back(std::string(copy ? "read_" : "verify_") + name + (digests ? "_crc_digest" : "_crc"));
        Add(names_.back().c_str(), [=, this] { Read(objects_[at], seal, digests, copy); });
      }
    }
  }
  void Read(const SavedObject& object, const Seal& seal, bool digests, bool copy) {
    const std::span<const uint8_t> chunk(object.bytes.data(), static_cast<size_t>(object.size));
    Expect expect;
    expect.bytes = object.size, expect.digest = &object.digest, expect.check_digests = digests;
    Expected<ObjectReader> reader = ObjectReader::Open({&chunk, 1}, expect, seal);
    Must(reader.status());
    Must(reader->ReadFrames([this](int64_t items, const std::function<void(int64_t)>& f) { Parallel(o_.threads, items, f); },
                            [&](int32_t i, FrameStream& bytes) {
                              if (copy) bytes.Read(Target(i), frame_bytes_);
                              return Status::Ok();
                            }));
  }

  double Rate(const Case& c) const {
    return static_cast<double>(source_.size()) / c.seconds_min / 1e9;
  }
  double Rate(const std::string& name) const {
    return Rate(*std::find_if(cases_.begin(), cases_.end(), [&](const Case& c) { return name == c.name; }));
  }
  void Report() const {
    const char* way = "";
    for (const Crc32cWay& w : Crc32cWays()) {
      if (*way == '\0' && w.runs_here()) way = w.name;
    }
    std::printf("%lld frames of %lld KiB, %lld thread(s), best of %lld rounds; CRC by %s, BLAKE3 %s\n\n", static_cast<long long>(frames_),
                static_cast<long long>(o_.frame_kib), static_cast<long long>(o_.threads), static_cast<long long>(o_.rounds), way, blake3_version());
    std::string json = "{\"bench\":\"object\",\"threads\":" + std::to_string(o_.threads) + ",\"frameKib\":" + std::to_string(o_.frame_kib) +
                       ",\"mib\":" + std::to_string(source_.size() >> 20) + ",\"gbPerS\":{";
    for (const Case& c : cases_) {
      std::printf("%-32s %7.2f GB/s   %5.2f of memcpy   %5.2f of blake3\n", c.name, Rate(c), Rate(c) / Rate("memcpy"), Rate(c) / Rate("blake3"));
      char number[64];
      std::snprintf(number, sizeof number, "%s\"%s\":%.3f", &c == cases_.data() ? "" : ",", c.name, Rate(c));
      json += number;
    }
    json += "},\"storedPerRaw\":{";
    for (const auto& [name, share] : stored_) {
      std::printf("stored per raw byte, %-11s %7.4f\n", name, share);
      char number[64];
      std::snprintf(number, sizeof number, "%s\"%s\":%.4f", name == stored_[0].first ? "" : ",", name, share);
      json += number;
    }
    std::printf("\nread, CRC: %.2f of memcpy (wanted 0.6); CRC and keyed digest: verify %.2f, read %.2f of BLAKE3 (wanted 0.8)\n",
                Rate("read_raw_crc") / Rate("memcpy"), Rate("verify_raw_crc_digest") / Rate("blake3"), Rate("read_raw_crc_digest") / Rate("blake3"));
    std::printf("%s}}\n", json.c_str());
  }

  const Options o_;
  const int64_t frame_bytes_, frames_;
  test::Bytes source_, target_;
  std::vector<uint32_t> sink_;
  std::vector<SavedObject> objects_;
  std::vector<std::pair<const char*, double>> stored_;
  std::list<std::string> names_;
  std::vector<Case> cases_;
};

}  // namespace
}  // namespace rum::bench

int main(int argc, char** argv) { return rum::bench::Bench(rum::bench::Parse(argc, argv)).Run(); }
