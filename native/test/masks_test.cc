// Masks of allowed tokens, and log-probabilities, in runs on the bundled countdown models, on each backend that is linked.
// Usage: masks_test FIXTURES_DIR MODELS_DIR
#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "test/countdown.h"

namespace rum::test {
namespace {

// What a mask does to a run: only its own chain's next token, which is among those it allows; the others stay as they were.
void MasksBindTheirChainsAndNoOther() {
  OnEach("cr4", [](const auto& model, const auto& backend) {
    const auto vocab = static_cast<size_t>(model->config.vocab_size);
    const RunReport free = RunJob(backend, model, Job(3, 24));
    auto run = Start(backend, model, Job(3, 24));
    std::vector<TokenMask> masks(3);
    masks[1].assign((vocab + 31) / 32, 0);
    for (const int32_t token : {5, 9, 33, 64}) masks[1][static_cast<size_t>(token) / 32] |= uint32_t{1} << (token % 32);
    while (run->Report().running > 0 && CHECK_OK(run->Step(1, masks))) {
    }
    const RunReport bound = run->Report();
    CHECK(Same(bound.chains[0], free.chains[0]) && Same(bound.chains[2], free.chains[2]));
    CHECK(bound.chains[1].tokens.size() == 27);
    CHECK(std::ranges::all_of(bound.chains[1].tokens, [](int32_t t) { return t == 5 || t == 9 || t == 33 || t == 64; }));
  });
}

void BadMasksAreRefusedAndChangeNothing() {
  OnEach("dense", [](const auto& model, const auto& backend) {
    const auto words = (static_cast<size_t>(model->config.vocab_size) + 31) / 32;
    auto run = Start(backend, model, Job(2, 10));
    const auto refused = [&](int32_t steps, const std::vector<TokenMask>& masks) { CHECK(Has(run->Step(steps, masks), kErrOption)); };
    refused(2, {{}, {}});
    refused(1, {{}});
    refused(1, {{}, TokenMask(words - 1, 1)});
    refused(1, {TokenMask(words, 1), TokenMask(words, 0)});
    CHECK(run->Report().step == 0);
    CHECK(Same(Finished(*run), RunJob(backend, model, Job(2, 10))));
  });
}

// A teacher-forced pass over the same tokens gives the logits of each step.
void LogprobsAreThoseOfTheLogitsBeforeSampling() {
  OnEach("cr8", [](const auto& model, const auto& backend) {
    RunOptions job = Job(2, 20);
    job.logprobs = 5;
    job.sampling.logit_bias = {{7, 20.0f}};
    const RunReport with = RunJob(backend, model, job);
    job.logprobs = -1;
    const RunReport without = RunJob(backend, model, job);
    CHECK(Same(with, without) && !without.chains[0].logprobs.kept());
    const auto vocab = static_cast<size_t>(model->config.vocab_size);
    for (const ChainReport& chain : with.chains) {
      const ChainId id = Must(backend->NewChain());
      std::vector<int32_t> tokens = kPrompt;
      tokens.insert(tokens.end(), chain.tokens.begin(), chain.tokens.end() - 1);
      std::vector<float> logits(vocab);
      double worst = 0.0;
      for (size_t t = 0; t < tokens.size(); ++t) {
        const Row row{id, tokens[t], true, t < kPrompt.size(), t + 1 == kPrompt.size()};
        if (!CHECK_OK(backend->Forward(std::span(&row, 1), logits.data()))) return;
        if (t + 1 < kPrompt.size()) continue;
        const size_t i = t + 1 - kPrompt.size();
        double total = 0.0;
        for (const float logit : logits) total += std::exp(static_cast<double>(logit));
        const auto want = [&](int32_t token) { return static_cast<double>(logits[static_cast<size_t>(token)]) - std::log(total); };
        worst = std::max(worst, std::fabs(static_cast<double>(chain.logprobs.tokens[i]) - want(chain.tokens[i])));
        for (size_t k = 0; k < 5; ++k) {
          worst = std::max(worst, std::fabs(static_cast<double>(chain.logprobs.top_values[5 * i + k]) - want(chain.logprobs.top_ids[5 * i + k])));
          CHECK(k == 0 || chain.logprobs.top_values[5 * i + k] <= chain.logprobs.top_values[5 * i + k - 1]);
        }
      }
      CHECK(worst < 1e-5 && chain.logprobs.tokens.size() == chain.tokens.size());
      backend->FreeChain(id);
    }
  });
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"a mask binds the next token of its chain and of no other", MasksBindTheirChainsAndNoOther},
      {"a mask of another size, or that allows nothing, is refused and changes nothing", BadMasksAreRefusedAndChangeNothing},
      {"log-probabilities are those of the model's logits, before anything of sampling, and change no token", LogprobsAreThoseOfTheLogitsBeforeSampling},
  });
}
