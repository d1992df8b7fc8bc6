// Quest (METHOD.md 3.1): pages of tokens with the least and the greatest value of every key channel, and a bound on q . k from them.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "baseline/spec.h"

namespace rum::baseline {

// The metadata of one KV head: grows with its keys.
class QuestPages {
 public:
  // Token number `index` of the head. k [head_dim], as stored.
  void Append(const BaselineSpec& spec, size_t index, std::span<const float> k);
  // [pages], for one query head: sum over channels of max(q * least, q * greatest).
  std::vector<float> Scores(std::span<const float> q) const;

 private:
  std::vector<float> least_, greatest_;  // [pages, head_dim]
};

// How many pages a query head selects, the newest one included.
inline int32_t PagesSelected(const BaselineSpec& spec) { return spec.budget / spec.page; }
inline int32_t PageCount(const BaselineSpec& spec, int32_t tokens) { return (tokens + spec.page - 1) / spec.page; }
// Whether a layer's query selects at all; else it reads everything.
inline bool Selects(const BaselineSpec& spec, int32_t layer, int32_t tokens) {
  return layer >= spec.dense_layers && PageCount(spec, tokens) > PagesSelected(spec);
}

// Tokens a query head reads of `tokens` in a layer that selects: the selected pages, of which the newest may be short, and one for
// each page's metadata, two vectors as a token's K and V are.
inline int32_t TokensRead(const BaselineSpec& spec, int32_t tokens) {
  const int32_t pages = PageCount(spec, tokens), newest = tokens - (pages - 1) * spec.page;
  return (PagesSelected(spec) - 1) * spec.page + newest + pages;
}

// The newest page and the best of the others, ascending.
std::vector<int32_t> SelectPages(const BaselineSpec& spec, std::span<const float> scores);

}  // namespace rum::baseline
