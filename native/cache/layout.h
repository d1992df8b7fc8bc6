// Byte layout of the KV cache of one (chain, layer, KV head): a ring of the last window+1 tokens and pages of survivors.
// K is kept transposed, [head_dim][slots], so that 16 keys are 16 lanes of one sum over head_dim (docs/NUMERICS.md);
// V is [slots][v_stride], so that a row is a vector. The layout never changes a bit of a result.
#pragma once
#include <cstdint>

namespace rum {

inline constexpr int32_t kLanes = 16;
constexpr int64_t RoundUp(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

struct CacheLayout {
  int32_t head_dim = 0;
  int32_t element_bytes = 4;   // 4: F32, 2: BF16
  int32_t v_stride = 0;        // elements from one V row to the next: head_dim rounded up to kLanes
  int32_t page_slots = 0;      // survivors per page
  int32_t page_k_slots = 0;    // elements from one K channel to the next in a page: page_slots rounded up to kLanes
  int32_t ring_slots = 0;      // window + 1
  int32_t ring_k_slots = 0;
  // A page: K [head_dim][page_k_slots] | V [page_slots][v_stride] | positions i32 [page_slots]
  int64_t page_v_offset = 0, page_positions_offset = 0, page_bytes = 0;
  // A ring: K [head_dim][ring_k_slots] | V [ring_slots][v_stride] | evict flags u8 [ring_slots]; token t lives in slot t mod ring_slots
  int64_t ring_v_offset = 0, ring_flags_offset = 0, ring_bytes = 0;

  static CacheLayout Make(int32_t head_dim, int32_t element_bytes, int32_t page_slots, int32_t window) {
    CacheLayout l;
    l.head_dim = head_dim;
    l.element_bytes = element_bytes;
    l.v_stride = static_cast<int32_t>(RoundUp(head_dim, kLanes));
    l.page_slots = page_slots;
    l.page_k_slots = static_cast<int32_t>(RoundUp(page_slots, kLanes));
    l.ring_slots = window + 1;
    l.ring_k_slots = static_cast<int32_t>(RoundUp(l.ring_slots, kLanes));
    l.page_v_offset = int64_t{head_dim} * l.page_k_slots * element_bytes;
    l.page_positions_offset = l.page_v_offset + int64_t{page_slots} * l.v_stride * element_bytes;
    l.page_bytes = RoundUp(l.page_positions_offset + int64_t{4} * page_slots, 64);
    l.ring_v_offset = int64_t{head_dim} * l.ring_k_slots * element_bytes;
    l.ring_flags_offset = l.ring_v_offset + int64_t{l.ring_slots} * l.v_stride * element_bytes;
    l.ring_bytes = RoundUp(l.ring_flags_offset + l.ring_slots, 64);
    return l;
  }
};

// What attention sees of one head, keys in order of position: survivors 0..log_count, then the ring from its oldest token.
struct HeadView {
  const uint8_t* const* pages = nullptr;  // [ceil(log_count / page_slots)]
  int32_t log_count = 0;
  const uint8_t* ring = nullptr;
  int32_t ring_live = 0;    // tokens in the ring
  int32_t ring_oldest = 0;  // slot of the oldest one
};

}  // namespace rum
