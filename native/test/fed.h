// A chain that is fed token ids as a prompt and what follows it, and comparisons of what comes out.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "test/backends.h"
#include "test/check.h"
#include "test/fixture.h"

namespace rum::test {

inline size_t Size(int32_t n) { return static_cast<size_t>(n); }

template <class T>
bool SameBytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

inline float MaxDifference(std::span<const float> a, std::span<const float> b) {
  if (!CHECK(a.size() == b.size())) return INFINITY;
  float max = 0.0f;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i]) max = std::max(max, std::fabs(a[i] - b[i]));  // equal infinities
  }
  return max;
}

// A chain on a backend of its own.
struct Fed {
  std::shared_ptr<const Model> model;
  std::unique_ptr<Backend> backend;
  ChainId chain = 0;

  Fed(const BackendFactory& factory, std::shared_ptr<const Model> m, const BackendOptions& options = {})
      : model(std::move(m)), backend(Must(factory.make(model, options))), chain(Must(backend->NewChain())) {}

  // Logits of ids [begin, end), fed in one Forward.
  std::vector<float> Feed(const std::vector<int32_t>& ids, size_t begin, size_t end, size_t prompt) {
    std::vector<Row> rows;
    for (size_t t = begin; t < end; ++t) rows.push_back({chain, ids[t], true, t < prompt, t + 1 == prompt});
    std::vector<float> logits(rows.size() * Size(model->config.vocab_size));
    CHECK_OK(backend->Forward(rows, logits.data()));
    return logits;
  }
  // All ids, in steps of `chunk` up to the end of the prompt and of `tail` after it.
  std::vector<float> FeedAll(const std::vector<int32_t>& ids, size_t prompt, size_t chunk, size_t tail = 1) {
    std::vector<float> logits;
    for (size_t begin = 0; begin < ids.size();) {
      const size_t end = begin < prompt ? std::min(prompt, begin + chunk) : std::min(ids.size(), begin + tail);
      const std::vector<float> part = Feed(ids, begin, end, prompt);
      logits.insert(logits.end(), part.begin(), part.end());
      begin = end;
    }
    return logits;
  }
  std::vector<HeadSnapshot> Snapshots() const {
    std::vector<HeadSnapshot> all;
    for (int32_t layer = 0; layer < model->config.num_layers; ++layer) {
      for (int32_t j = 0; j < model->config.num_kv_heads; ++j) all.push_back(backend->Snapshot(chain, layer, j));
    }
    return all;
  }
};

inline bool Same(const std::vector<HeadSnapshot>& a, const std::vector<HeadSnapshot>& b) {
  return std::ranges::equal(a, b, [](const HeadSnapshot& x, const HeadSnapshot& y) {
    return x.positions == y.positions && SameBytes(x.k, y.k) && SameBytes(x.v, y.v);
  });
}

inline std::vector<uint8_t> Mask(const std::vector<int32_t>& positions, size_t size) {
  std::vector<uint8_t> mask(size);
  for (const int32_t position : positions) mask[Size(position)] = 1;
  return mask;
}

}  // namespace rum::test
