// Time to sample one token from a vocabulary of a large model, for each filter and level.
//
//   sampler_bench [--vocab 151936] [--rounds 200]
//
// Logits are normal with deviation 2.5. "peaked": 20 of them are raised by 12 to 18, so that nearly all of the mass lies on them, as in a
// trained model; "flat": none is, so that top-p keeps tens of thousands. A time is the median of the rounds, each with another random
// number. Prints a table and, as the last line, one JSON object.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "run/sampler.h"

namespace rum::bench {
namespace {

double NowMicroseconds() { return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::vector<float> Logits(size_t vocab, bool peaked) {
  std::mt19937 random(1);
  const auto uniform = [&random] { return static_cast<double>(random()) / 4294967296.0; };
  std::vector<float> logits(vocab);
  for (float& x : logits) {
    x = static_cast<float>(2.5 * std::sqrt(-2.0 * std::log(1.0 - uniform())) * std::cos(6.283185307179586 * uniform()));
  }
  for (int i = 0; peaked && i < 20; ++i) logits[random() % vocab] += static_cast<float>(12.0 + 6.0 * uniform());
  return logits;
}

double MedianMicroseconds(const Sampling& sampling, std::vector<float>& logits, int32_t rounds, SampleScratch& scratch) {
  std::vector<double> times;
  for (int32_t i = 0; i < rounds; ++i) {
    const double start = NowMicroseconds();
    volatile int32_t token = SampleToken(sampling, logits, {}, 1, 0, i, scratch);
    (void)token;
    times.push_back(NowMicroseconds() - start);
  }
  std::ranges::nth_element(times, times.begin() + rounds / 2);
  return times[static_cast<size_t>(rounds / 2)];
}

}  // namespace
}  // namespace rum::bench

int main(int argc, char** argv) {
  using namespace rum;
  using namespace rum::bench;
  int32_t vocab = 151936, rounds = 200;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i];
    if (key == "--vocab") vocab = std::atoi(argv[i + 1]);
    if (key == "--rounds") rounds = std::atoi(argv[i + 1]);
  }
  if (vocab < 1 || rounds < 1) return 2;
  const struct {
    const char* name;
    Sampling sampling;
  } kCases[] = {{"greedy", {.temperature = 0.0f}}, {"no filter", {}}, {"top-k 50", {.top_k = 50}}, {"top-p 0.95", {.top_p = 0.95f}},
                {"top-k 50, top-p 0.95, min-p 0.05", {.temperature = 0.6f, .top_k = 50, .top_p = 0.95f, .min_p = 0.05f}}};
  std::printf("vocabulary %d, median of %d tokens, one thread\n", vocab, rounds);
  std::string json = "{\"vocab\":" + std::to_string(vocab) + ",\"rounds\":" + std::to_string(rounds) + ",\"cases\":[";
  bool first = true;
  for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512}) {
    if (!ResolveIsa(isa).ok()) continue;
    SampleScratch scratch(vocab, isa);
    for (const bool peaked : {true, false}) {
      std::vector<float> logits = Logits(static_cast<size_t>(vocab), peaked);
      for (const auto& [name, sampling] : kCases) {
        const double time = MedianMicroseconds(sampling, logits, rounds, scratch);
        std::printf("%-9s %-7s %-34s %9.1f us\n", IsaName(isa), peaked ? "peaked" : "flat", name, time);
        char line[256];
        std::snprintf(line, sizeof line, "%s{\"isa\":\"%s\",\"logits\":\"%s\",\"filter\":\"%s\",\"microseconds\":%.1f}", first ? "" : ",",
                      IsaName(isa), peaked ? "peaked" : "flat", name, time);
        json += line;
        first = false;
      }
    }
  }
  std::printf("%s]}\n", json.c_str());
  return 0;
}
