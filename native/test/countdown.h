// Small sampled jobs on the bundled countdown models, on each backend that is linked.
#pragma once
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "run/run.h"
#include "test/backends.h"
#include "test/check.h"
#include "test/fixture.h"

namespace rum::test {


inline const std::vector<int32_t> kPrompt = {1, 6, 28, 39, 38, 28, 8, 56, 4};  // "<s> user 7 18 17 7 target 35 <think>"

// What the tests vary; the rest is a small sampled job.
inline RunOptions Job(int32_t width, int32_t length) {
  RunOptions o;
  o.prompt = kPrompt;
  o.width = width;
  for (int32_t i = 0; i < width; ++i) o.lengths.push_back(length + 3 * i);
  o.seed = 11;
  o.sampling.temperature = 1.2f;
  o.sampling.top_p = 0.98f;
  o.sampling.frequency_penalty = 0.02f;
  o.eos_ids = {2};
  return o;
}

inline bool Same(const ChainReport& a, const ChainReport& b) {
  return a.tokens == b.tokens && a.finish == b.finish && a.stop_bytes == b.stop_bytes && a.live_sum == b.live_sum &&
         a.peak_sum == b.peak_sum && a.read_sum == b.read_sum && a.dense_read_sum == b.dense_read_sum && a.fed == b.fed;
}
inline bool Same(const RunReport& a, const RunReport& b) {
  return a.step == b.step && a.prefilled == b.prefilled && a.prefill_read_sum == b.prefill_read_sum &&
         a.shared_sum == b.shared_sum && a.head_count == b.head_count && a.running == b.running &&
         std::ranges::equal(a.chains, b.chains, [](const ChainReport& x, const ChainReport& y) { return Same(x, y); });
}

inline std::unique_ptr<Run> Start(const std::shared_ptr<Backend>& backend, const std::shared_ptr<const Model>& model,
                           const RunOptions& options) {
  auto run = Must(Run::Create(backend, model, options));
  CHECK_OK(run->Prefill());
  return run;
}

inline RunReport Finished(Run& run, int32_t steps_at_once = 1000) {
  while (run.Report().running > 0) {
    if (!CHECK_OK(run.Step(steps_at_once))) break;
  }
  return run.Report();
}

inline RunReport RunJob(const std::shared_ptr<Backend>& backend, const std::shared_ptr<const Model>& model, const RunOptions& options) {
  return Finished(*Start(backend, model, options));
}

using Body = std::function<void(const std::shared_ptr<const Model>&, const std::shared_ptr<Backend>&)>;

inline void OnEach(const std::string& variant, const Body& body) {
  const auto model = Open(models + "/countdown/" + variant);
  for (const BackendFactory& factory : Factories()) {
    const int failed_before = failed_checks;
    body(model, Must(factory.make(model, {})));
    if (failed_checks > failed_before) std::printf("    on %s with %s\n", variant.c_str(), factory.name);
  }
}

}  // namespace rum::test
