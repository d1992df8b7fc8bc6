// Speed of saving and restoring one chain of a model's shape, against what this machine can copy and hash in the same run.
//
//   restore_bench [--survivors 2048] [--layers 36] [--kv-heads 8] [--head-dim 128] [--window 256] [--page 64] [--threads 1] [--rounds 15]
//
// bf16. Every head has that many survivors, sealed in pages, and a full ring. Saving encodes a segment of all pages and a tail into fresh
// memory; restoring reads both into a fresh cache, with CRCs alone and with digests. memcpy is of as many bytes into memory that is there
// (warm) and that is not (fresh: what a restore has to fill). `prepare` makes the memory of a restore present, as a resume does while its
// bytes are on their way, and the prepared restores are what is left then: the sum of both is what a restore costs the processor. All
// cases run in turn in each round and the median round of each counts: a processor that is shared also makes rounds look short. Time is the
// processor's, of all threads, over their number. The last line is one JSON object; GB are 1e9.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <time.h>

#include "cache/chain_cache.h"
#include "checkpoint/digest.h"
#include "checkpoint/prepared_memory.h"
#include "checkpoint/segment.h"
#include "checkpoint/tail.h"

namespace rum::bench {
namespace {

struct Options {
  int64_t survivors = 2048, layers = 36, kv_heads = 8, head_dim = 128, window = 256, page = 64, threads = 1, rounds = 15;
};

Options Parse(int argc, char** argv) {
  Options o;
  const std::vector<std::pair<std::string, int64_t*>> known = {{"--survivors", &o.survivors}, {"--layers", &o.layers}, {"--kv-heads", &o.kv_heads},
                                                               {"--head-dim", &o.head_dim}, {"--window", &o.window}, {"--page", &o.page},
                                                               {"--threads", &o.threads}, {"--rounds", &o.rounds}};
  for (int i = 1; i + 1 < argc; i += 2) {
    bool found = false;
    for (const auto& [name, value] : known) {
      if (name != argv[i]) continue;
      *value = std::max<int64_t>(std::atoll(argv[i + 1]), 1);
      found = true;
    }
    if (found) continue;
    std::fprintf(stderr, "unknown option %s\n", argv[i]);
    std::exit(2);
  }
  return o;
}

template <class T>
T Must(Expected<T> value) {
  if (value.ok()) return std::move(*value);
  std::fprintf(stderr, "%s: %s\n", value.status().code, value.status().message.c_str());
  std::exit(1);
}
void Must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s: %s\n", status.code, status.message.c_str());
  std::exit(1);
}

double CpuSeconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

class Bench {
 public:
  explicit Bench(const Options& o)
      : o_(o), geometry_{static_cast<int32_t>(o.layers), static_cast<int32_t>(o.kv_heads),
                         CacheLayout::Make(static_cast<int32_t>(o.head_dim), 2, static_cast<int32_t>(o.page), static_cast<int32_t>(o.window))},
        pool_(geometry_.layout.page_bytes), kv_heads_(geometry_.kv_heads) {
    cache_ = ChainCache::Make(geometry_.layout, &pool_, geometry_.heads());
    if (cache_ == nullptr) std::exit(1);
    Fill();
    state_.report.fed = cache_->length();
    state_.pages = SealedPages(*cache_);
    Save();
    bytes_ = segment_.size + tail_.size;
    // As what a restore reads and fills: with the system's large pages.
    if (!source_.Allocate(bytes_) || !target_.Allocate(bytes_)) std::exit(1);
    std::memset(source_.data(), 3, static_cast<size_t>(bytes_));
    std::memset(target_.data(), 1, static_cast<size_t>(bytes_));
  }

  int Run() {
    struct Case {
      const char* name;
      std::function<void()> run;
      std::function<void()> before = [] {};  // not timed
      std::vector<double> seconds = {};
    };
    std::vector<Case> cases = {
        {"memcpyWarm", [this] { Chunks([this](int64_t at, int64_t n) { std::memcpy(target_.data() + at, source_.data() + at, static_cast<size_t>(n)); }); }},
        {"memcpyFresh", [this] {
           MappedBuffer fresh;
           if (!fresh.Allocate(bytes_)) std::exit(1);
           Chunks([&](int64_t at, int64_t n) { std::memcpy(fresh.data() + at, source_.data() + at, static_cast<size_t>(n)); });
         }},
        {"blake3", [this] {
           Chunks([this](int64_t at, int64_t n) {
             Hasher hasher(nullptr);
             hasher.Update({source_.data() + at, static_cast<size_t>(n)});
             std::array<uint8_t, 16> out;
             hasher.Finish(out);
             target_.data()[at] = out[0];
           });
         }},
        {"save", [this] { Save(); }},
        {"restoreCrc", [this] { Restore(false); }},
        {"restoreDigest", [this] { Restore(true); }},
        {"prepare", [this] { Prepare(); }, [this] { prepared_.reset(); }},
        {"preparedCrc", [this] { Restore(false); }, [this] { Prepare(); }},
        {"preparedDigest", [this] { Restore(true); }, [this] { Prepare(); }},
    };
    for (int64_t round = 0; round < o_.rounds; ++round) {
      for (Case& c : cases) {
        c.before();
        const double start = CpuSeconds();
        c.run();
        c.seconds.push_back((CpuSeconds() - start) / static_cast<double>(o_.threads));
        prepared_.reset();
      }
    }
    for (Case& c : cases) std::ranges::nth_element(c.seconds, c.seconds.begin() + o_.rounds / 2);
    const auto seconds = [&](size_t i) { return cases[i].seconds[static_cast<size_t>(o_.rounds / 2)]; };
    const auto rate = [&](size_t i) { return static_cast<double>(bytes_) / seconds(i) / 1e9; };
    std::printf("%lld layers x %lld KV heads x %lld, bf16, window %lld, pages of %lld, %lld survivors: %.1f MB; %lld thread(s), median of %lld rounds\n",
                static_cast<long long>(o_.layers), static_cast<long long>(o_.kv_heads), static_cast<long long>(o_.head_dim),
                static_cast<long long>(o_.window), static_cast<long long>(o_.page), static_cast<long long>(o_.survivors), static_cast<double>(bytes_) / 1e6,
                static_cast<long long>(o_.threads), static_cast<long long>(o_.rounds));
    std::string json = "{\"bench\":\"restore\",\"survivors\":" + std::to_string(o_.survivors) + ",\"threads\":" + std::to_string(o_.threads) +
                       ",\"bytes\":" + std::to_string(bytes_) + ",\"gbPerS\":{";
    char text[160];
    for (size_t i = 0; i < cases.size(); ++i) {
      std::printf("%-14s %7.2f GB/s\n", cases[i].name, rate(i));
      std::snprintf(text, sizeof text, "%s\"%s\":%.3f", i == 0 ? "" : ",", cases[i].name, rate(i));
      json += text;
    }
    // What a delta every 2,048 tokens costs a chain at 60 tokens a second, if all of it were new.
    const double share = seconds(3) / (2048.0 / 60.0);
    std::printf("restore, CRC: %.2f of memcpy into memory that is there, %.2f of memcpy into fresh memory (wanted 0.6); with digests: %.2f of BLAKE3\n",
                rate(4) / rate(0), rate(4) / rate(1), rate(5) / rate(2));
    std::printf("into memory made present before, CRC: %.2f of memcpy into memory that is there; with digests: %.2f of BLAKE3 (wanted 0.8)\n", rate(7) / rate(0),
                rate(8) / rate(2));
    std::printf("a delta of all of it every 2,048 tokens at 60 tok/s: %.3f %% of the time\n", 100 * share);
    std::snprintf(text, sizeof text, "},\"crcOfMemcpy\":%.3f,\"crcOfFreshMemcpy\":%.3f,\"digestOfBlake3\":%.3f,\"preparedDigestOfBlake3\":%.3f,\"deltaShare\":%.5f}", rate(4) / rate(0),
                  rate(4) / rate(1), rate(5) / rate(2), rate(8) / rate(2), share);
    std::printf("%s%s\n", json.c_str(), text);
    return 0;
  }

 private:
  void Fill() {
    std::vector<float> k(static_cast<size_t>(o_.head_dim)), v(k.size());
    uint32_t seed = 1;
    const auto tokens = static_cast<int32_t>(o_.survivors + o_.window + 1);
    for (int32_t h = 0; h < geometry_.heads(); ++h) {
      for (int32_t t = 0; t < tokens; ++t) {
        for (size_t d = 0; d < k.size(); ++d) {
          seed = seed * 1664525u + 1013904223u;
          k[d] = static_cast<float>(seed >> 8) / 16777216.0f - 0.5f;
          v[d] = 0.5f - k[d];
        }
        if (!cache_->Append(h, t, k.data(), v.data(), {})) std::exit(1);
      }
    }
  }
  void Chunks(const std::function<void(int64_t, int64_t)>& f) const {
    constexpr int64_t kChunk = 1 << 20;
    Parallel((bytes_ + kChunk - 1) / kChunk, [&](int64_t i) { f(i * kChunk, std::min(kChunk, bytes_ - i * kChunk)); });
  }
  void Parallel(int64_t items, const std::function<void(int64_t)>& f) const {
    std::vector<std::thread> others;
    const auto work = [&](int64_t thread) {
      for (int64_t i = items * thread / o_.threads; i < items * (thread + 1) / o_.threads; ++i) f(i);
    };
    for (int64_t thread = 1; thread < o_.threads; ++thread) others.emplace_back(work, thread);
    work(0);
    for (std::thread& other : others) other.join();
  }
  void Save() {
    ObjectHeader header;
    header.layout_id = LayoutIdOf(geometry_);
    segment_ = Must(SaveSegment(*cache_, PageMarks(state_.pages.size(), 0), state_.pages, kv_heads_, header, Seal{}, Codec::kRaw));
    tail_ = Must(SaveTail(*cache_, state_, kv_heads_, header, Seal{}, Codec::kRaw));
  }
  void Prepare() {
    prepared_ = std::make_unique<PreparedMemory>(geometry_, &pool_, PreparedMemory::Need{segment_.size, cache_->length(), 1, INT64_MAX});
    while (prepared_->Advance()) {
    }
  }
  void Restore(bool digests) {
    const ParallelFor parallel = [this](int64_t items, const std::function<void(int64_t)>& f) { Parallel(items, f); };
    const auto open = [&](const SavedObject& object, ObjectKind kind, const std::span<const uint8_t>* chunk) {
      return Must(ObjectReader::Open({chunk, 1}, {kind, LayoutIdOf(geometry_), object.size, &object.digest, digests}, Seal{}));
    };
    const std::span<const uint8_t> segment_chunk(segment_.bytes.data(), static_cast<size_t>(segment_.size));
    const std::span<const uint8_t> tail_chunk(tail_.bytes.data(), static_cast<size_t>(tail_.size));
    std::unique_ptr<ChainCache> cache = prepared_ == nullptr ? nullptr : prepared_->TakeCache();
    if (cache == nullptr) cache = ChainCache::Make(geometry_.layout, &pool_, geometry_.heads());
    if (cache == nullptr) std::exit(1);
    const ObjectReader tail = open(tail_, ObjectKind::kTail, &tail_chunk);
    const TailState state = Must(LoadTailState(tail, geometry_, 1));
    const PageSet set = Must(LoadSegment(open(segment_, ObjectKind::kSegment, &segment_chunk), geometry_, &pool_, parallel, prepared_.get()));
    Must(AttachPages(set, state.pages, cache.get()));
    Must(LoadTail(tail, geometry_, state.report.fed, parallel, cache.get()));
  }

  const Options o_;
  const CacheGeometry geometry_;
  PagePool pool_;
  const int32_t kv_heads_;
  std::unique_ptr<ChainCache> cache_;
  TailState state_;
  SavedObject segment_, tail_;
  std::unique_ptr<PreparedMemory> prepared_;
  int64_t bytes_ = 0;
  MappedBuffer source_, target_;
};

}  // namespace
}  // namespace rum::bench

int main(int argc, char** argv) { return rum::bench::Bench(rum::bench::Parse(argc, argv)).Run(); }
