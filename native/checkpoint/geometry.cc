#include "checkpoint/geometry.h"

#include <cstring>
#include <string>

#include "checkpoint/digest.h"

namespace rum {

CacheGeometry GeometryOf(const ModelConfig& config, const BackendOptions& options) {
  const int32_t element_bytes = options.kv == KvType::kF32 ? 4 : 2;
  return {config.num_layers, config.num_kv_heads, CacheLayout::Make(config.head_dim, element_bytes, options.page_slots, config.policy.window)};
}

LayoutId LayoutIdOf(const CacheGeometry& geometry) {
  const CacheLayout& l = geometry.layout;
  const std::string text = "dmskv/1;layers=" + std::to_string(geometry.layers) + ";kv_heads=" + std::to_string(geometry.kv_heads) +
                           ";head_dim=" + std::to_string(l.head_dim) + ";element_bytes=" + std::to_string(l.element_bytes) +
                           ";page_slots=" + std::to_string(l.page_slots) + ";ring_slots=" + std::to_string(l.ring_slots) +
                           ";K=[head_dim][slots] after norm and RoPE;V=[slots][head_dim]";
  Hasher hasher(nullptr);
  hasher.Update({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  LayoutId id;
  hasher.Finish(id);
  return id;
}

void CopyRows(const uint8_t* from, int64_t from_stride, uint8_t* to, int64_t to_stride, int64_t row_bytes, int64_t rows) {
  if (from_stride == row_bytes && to_stride == row_bytes) {
    std::memcpy(to, from, static_cast<size_t>(row_bytes * rows));
    return;
  }
  for (int64_t r = 0; r < rows; ++r) std::memcpy(to + r * to_stride, from + r * from_stride, static_cast<size_t>(row_bytes));
}

bool Ascending(std::span<const int32_t> positions, int32_t after, int32_t end) {
  for (const int32_t position : positions) {
    if (position <= after || position >= end) return false;
    after = position;
  }
  return true;
}

}  // namespace rum
