// What every segment, tail and journal of one engine is shaped by, and the id that says so (KV.md 3, layoutId).
#pragma once
#include <cstdint>
#include <span>

#include "backend/backend.h"
#include "cache/layout.h"
#include "checkpoint/object.h"

namespace rum {

struct CacheGeometry {
  int32_t layers = 0;
  int32_t kv_heads = 0;
  CacheLayout layout;
  int32_t heads() const { return layers * kv_heads; }
};

// Of a cpu backend with these options.
CacheGeometry GeometryOf(const ModelConfig& config, const BackendOptions& options);

// The first 16 bytes of a digest over the geometry and over how K and V are stored. Objects of another layout are refused.
LayoutId LayoutIdOf(const CacheGeometry& geometry);

// `rows` rows of `row_bytes` from one stride to another; one copy where both are dense.
void CopyRows(const uint8_t* from, int64_t from_stride, uint8_t* to, int64_t to_stride, int64_t row_bytes, int64_t rows);

// Whether positions ascend strictly from above `after` and end below `end`.
bool Ascending(std::span<const int32_t> positions, int32_t after, int32_t end);

}  // namespace rum
