// kvpress's scorers (METHOD.md 3.2): functions of one dense prompt pass.
#pragma once
#include <cstddef>
#include <span>
#include <vector>

#include "baseline/history.h"
#include "baseline/spec.h"

namespace rum::baseline {

// One layer after the prompt.
struct PromptPass {
  std::span<const History> heads;                // [kv_heads], the whole prompt each
  std::span<const float> queries;                // [tokens, query heads, head_dim], after RoPE
  std::span<const float> inverse_frequencies;    // [head_dim / 2]
  size_t head_dim = 0;

  size_t tokens() const { return heads[0].size(); }
  size_t query_heads() const { return queries.size() / (tokens() * head_dim); }
  size_t group() const { return query_heads() / heads.size(); }
  const float* query(size_t token, size_t head) const { return &queries[(token * query_heads() + head) * head_dim]; }
};

// The prompt tokens that stay in each KV head: the int(tokens * (1 - ratio)) with the highest scores.
inline size_t KeptCount(const BaselineSpec& spec, size_t tokens) {
  return static_cast<size_t>(static_cast<double>(tokens) * (1.0 - spec.ratio));
}

// [kv_heads][tokens], higher stays. Empty where the scorer is not defined: a prompt of no more than SnapKV's window or the sinks.
std::vector<std::vector<float>> Score(const BaselineSpec& spec, const PromptPass& pass);

}  // namespace rum::baseline
