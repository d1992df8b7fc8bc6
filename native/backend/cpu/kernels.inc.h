// The kernels themselves, written once over vec.h and compiled once per level (kernels_*.cc). No include guard: one level per file.
// Nothing here may call an inline function with external linkage (see vec.h).
#include "backend/cpu/kernels.h"
#include "backend/cpu/vec.h"

namespace rum {
namespace {

// Register budget of the level: columns of a linear tile for one and for two Vecs of rows, query heads and key blocks of a score
// tile, Vecs of a value tile; for a block format, panels at once with one column, and columns that fit without a tile.
#if defined(RUM_LEVEL_AVX512)
constexpr int kColumnsMax = 12, kWideColumnsMax = 12, kKeyBlocks = 4, kHeadsMax = 4, kValueVecs = 4, kQuantPanels = 2, kQuantColumns = 8;
#elif defined(RUM_LEVEL_AVX2)
constexpr int kColumnsMax = 6, kWideColumnsMax = 2, kKeyBlocks = 2, kHeadsMax = 2, kValueVecs = 2, kQuantPanels = 1, kQuantColumns = 2;
#else
constexpr int kColumnsMax = 4, kWideColumnsMax = 2, kKeyBlocks = 1, kHeadsMax = 2, kValueVecs = 1, kQuantPanels = 1, kQuantColumns = 1;
#endif

template <int N>
struct Int {
  static constexpr int value = N;
};

// Calls f(Int<n>) for a run-time n in [1, Max].
template <int Max, class F>
RUM_INLINE void WithInt(int n, F&& f) {
  if constexpr (Max == 1) {
    f(Int<1>{});
  } else {
    if (n == Max) {
      f(Int<Max>{});
    } else {
      WithInt<Max - 1>(n, f);
    }
  }
}

RUM_INLINE int64_t MinOf(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace
}  // namespace rum

#include "backend/cpu/double.inc.h"
#include "backend/cpu/linear.inc.h"

namespace rum {
namespace {

// ---------------------------------------------------------------- elementwise

// f(offset, lanes) over [0, n) in steps of 16; lanes is 16 but for the last step.
template <class F>
RUM_INLINE void ForVecs(int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) f(i, 16);
  if (i < n) f(i, n - i);
}
RUM_INLINE Vec LoadUpTo(const float* p, int64_t n) { return n == 16 ? Load(p) : LoadN(p, n); }
RUM_INLINE void StoreUpTo(float* p, Vec v, int64_t n) {
  if (n == 16) {
    Store(p, v);
  } else {
    StoreN(p, v, n);
  }
}

// ExpF of core/exact_math.h, operation by operation.
RUM_INLINE Vec Exp(Vec x) {
  Vec c = Min(Set1(88.0f), x);
  c = Max(Set1(-87.0f), c);
  const Vec round = Set1(12582912.0f);
  const Vec n = Sub(Fma(c, Set1(1.44269504f), round), round);
  Vec r = Fma(n, Set1(-0.693359375f), c);
  r = Fma(n, Set1(2.12194440e-4f), r);
  Vec p = Set1(1.9875691500e-4f);
  p = Fma(p, r, Set1(1.3981999507e-3f));
  p = Fma(p, r, Set1(8.3334519073e-3f));
  p = Fma(p, r, Set1(4.1665795894e-2f));
  p = Fma(p, r, Set1(1.6666665459e-1f));
  p = Fma(p, r, Set1(5.0000001201e-1f));
  p = Add(Fma(p, Mul(r, r), r), Set1(1.0f));
  return ScaleExp(p, n, x, -87.0f);
}

void RmsNorm(const float* x, const float* w, float eps, int64_t n, float* y) {
  Vec lanes = Zero();
  ForVecs(n, [&](int64_t i, int64_t m) {
    const Vec v = LoadUpTo(x + i, m);
    lanes = Fma(v, v, lanes);
  });
  const float inverse = 1.0f / __builtin_sqrtf(SumLanes(lanes) / static_cast<float>(n) + eps);
  ForVecs(n, [&](int64_t i, int64_t m) {
    StoreUpTo(y + i, Mul(Mul(LoadUpTo(x + i, m), Set1(inverse)), LoadUpTo(w + i, m)), m);
  });
}

void Rope(float* x, const float* cos, const float* sin, int64_t half) {
  ForVecs(half, [&](int64_t i, int64_t m) {
    const Vec a = LoadUpTo(x + i, m), b = LoadUpTo(x + half + i, m), c = LoadUpTo(cos + i, m), s = LoadUpTo(sin + i, m);
    StoreUpTo(x + i, FmaSub(a, c, Mul(b, s)), m);
    StoreUpTo(x + half + i, Fma(b, c, Mul(a, s)), m);
  });
}

void SiluMul(const float* gate, const float* up, float* out, int64_t n) {
  ForVecs(n, [&](int64_t i, int64_t m) {
    const Vec g = LoadUpTo(gate + i, m);
    const Vec silu = Div(g, Add(Set1(1.0f), Exp(Sub(Set1(-0.0f), g))));
    StoreUpTo(out + i, Mul(silu, LoadUpTo(up + i, m)), m);
  });
}

bool CopyFinite(const float* from, float* to, int64_t n) {
  Vec sum = Zero();  // x * 0 is 0 for finite x and NaN otherwise
  ForVecs(n, [&](int64_t i, int64_t m) {
    const Vec v = LoadUpTo(from + i, m);
    StoreUpTo(to + i, v, m);
    sum = Add(sum, Mul(v, Zero()));
  });
  return SumLanes(sum) == 0.0f;
}

void AddInto(float* h, const float* y, int64_t n) {
  ForVecs(n, [&](int64_t i, int64_t m) { StoreUpTo(h + i, Add(LoadUpTo(h + i, m), LoadUpTo(y + i, m)), m); });
}

// ---------------------------------------------------------------- attention

// Pages lie anywhere in memory and the hardware's prefetcher starts anew at each: while one is read, the same rows of the next are asked for.
template <int Bytes>
RUM_INLINE void PrefetchRow(const void* p) {
#pragma GCC unroll 8
  for (int at = 0; at < Bytes; at += 64) __builtin_prefetch(static_cast<const char*>(p) + at);
}

struct F32Kv {
  using T = float;
  static RUM_INLINE Vec Read(const T* p) { return Load(p); }
};
struct Bf16Kv {
  using T = uint16_t;
  static RUM_INLINE Vec Read(const T* p) { return LoadBf16(p); }
};

// scores[h][slot] = chain over d of (q[h][d], K[d][slot]) for G heads and NB blocks of 16 slots. next: the tile read after this one.
template <class Kv, int G, int NB>
void ScoreTile(const typename Kv::T* k, int64_t k_stride, const typename Kv::T* next, const float* q, int32_t head_dim, float* scores,
               int64_t score_stride) {
  Vec acc[G][NB];
#pragma GCC unroll 4
  for (int h = 0; h < G; ++h) {
#pragma GCC unroll 4
    for (int b = 0; b < NB; ++b) acc[h][b] = Zero();
  }
  for (int32_t d = 0; d < head_dim; ++d) {
    PrefetchRow<NB * 16 * sizeof(typename Kv::T)>(next + d * k_stride);
    Vec keys[NB];
#pragma GCC unroll 4
    for (int b = 0; b < NB; ++b) keys[b] = Kv::Read(k + d * k_stride + 16 * b);
#pragma GCC unroll 4
    for (int h = 0; h < G; ++h) {
      const Vec qd = Set1(q[h * head_dim + d]);
#pragma GCC unroll 4
      for (int b = 0; b < NB; ++b) acc[h][b] = Fma(qd, keys[b], acc[h][b]);
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < G; ++h) {
#pragma GCC unroll 4
    for (int b = 0; b < NB; ++b) Store(scores + h * score_stride + 16 * b, acc[h][b]);
  }
}

// Scores of slots [0, count) rounded up to 16 of one K array; may write up to 15 values past count. next: the array read after it.
template <class Kv, int G>
void ScoreSlots(const typename Kv::T* k, int64_t k_stride, int32_t count, const typename Kv::T* next, const float* q, int32_t head_dim,
                float* scores, int64_t score_stride) {
  for (int32_t s = 0; s < count; s += 16 * kKeyBlocks) {
    const int blocks = static_cast<int>(MinOf(kKeyBlocks, (count - s + 15) / 16));
    WithInt<kKeyBlocks>(blocks, [&](auto nb) {
      ScoreTile<Kv, G, decltype(nb)::value>(k + s, k_stride, next + s, q, head_dim, scores + s, score_stride);
    });
  }
}

// scores [n] -> probabilities before division [n]; returns 1 / sum.
RUM_INLINE float Softmax(float* scores, int64_t n, float scale) {
  Vec top = Set1(-__builtin_inff());
  const Vec s = Set1(scale);
  ForVecs(n, [&](int64_t i, int64_t m) {
    const Vec v = Mul(LoadUpTo(scores + i, m), s);
    StoreUpTo(scores + i, v, m);
    // A short last step would bring zeros of its own into the maximum.
    if (m == 16) top = Max(v, top);
  });
  float lanes[16];
  Store(lanes, top);
  float max = lanes[0];
  for (int i = 1; i < 16; ++i) max = lanes[i] > max ? lanes[i] : max;
  for (int64_t i = n / 16 * 16; i < n; ++i) max = scores[i] > max ? scores[i] : max;
  Vec sum = Zero();
  ForVecs(n, [&](int64_t i, int64_t m) {
    const Vec p = Exp(Sub(LoadUpTo(scores + i, m), Set1(max)));
    StoreUpTo(scores + i, p, m);
    sum = Add(sum, m == 16 ? p : ZeroFrom(p, m));
  });
  return 1.0f / SumLanes(sum);
}

// acc[h][c] continues the chain over slots of (p[h][slot], V[slot][c]).
template <class Kv, int G, int NV>
RUM_INLINE void ValueSlots(const typename Kv::T* v, int64_t v_stride, int32_t count, const typename Kv::T* next, const float* p,
                           int64_t p_stride, Vec (*acc)[NV]) {
  for (int32_t s = 0; s < count; ++s) {
    PrefetchRow<NV * 16 * sizeof(typename Kv::T)>(next + s * v_stride);
    Vec row[NV];
#pragma GCC unroll 4
    for (int i = 0; i < NV; ++i) row[i] = Kv::Read(v + s * v_stride + 16 * i);
#pragma GCC unroll 4
    for (int h = 0; h < G; ++h) {
      const Vec ph = Set1(p[h * p_stride + s]);
#pragma GCC unroll 4
      for (int i = 0; i < NV; ++i) acc[h][i] = Fma(ph, row[i], acc[h][i]);
    }
  }
}

// Channels [c, c + 16 NV) of the output of G heads.
template <class Kv, int G, int NV>
void ValueTile(const CacheLayout& l, const HeadView& view, int32_t c, const float* p, int64_t p_stride, const float* inverse,
               float* out) {
  Vec acc[G][NV];
#pragma GCC unroll 4
  for (int h = 0; h < G; ++h) {
#pragma GCC unroll 4
    for (int i = 0; i < NV; ++i) acc[h][i] = Zero();
  }
  const auto* ring = reinterpret_cast<const typename Kv::T*>(view.ring + l.ring_v_offset) + c;
  const auto page_v = [&](int32_t page) { return reinterpret_cast<const typename Kv::T*>(view.pages[page] + l.page_v_offset) + c; };
  for (int32_t at = 0, page = 0; at < view.log_count; at += l.page_slots, ++page) {
    const auto* next = at + l.page_slots < view.log_count ? page_v(page + 1) : ring;
    ValueSlots<Kv, G, NV>(page_v(page), l.v_stride, static_cast<int32_t>(MinOf(l.page_slots, view.log_count - at)), next, p + at,
                          p_stride, acc);
  }
  const int32_t old = view.ring_live - view.ring_oldest;  // slots [oldest, live), then [0, oldest)
  p += view.log_count;
  ValueSlots<Kv, G, NV>(ring + view.ring_oldest * int64_t{l.v_stride}, l.v_stride, old, ring, p, p_stride, acc);
  ValueSlots<Kv, G, NV>(ring, l.v_stride, view.ring_oldest, ring, p + old, p_stride, acc);
#pragma GCC unroll 4
  for (int h = 0; h < G; ++h) {
#pragma GCC unroll 4
    for (int i = 0; i < NV; ++i) {
      const int64_t n = MinOf(16, l.head_dim - c - 16 * i);
      StoreUpTo(out + h * l.head_dim + c + 16 * i, Mul(acc[h][i], Set1(inverse[h])), n);
    }
  }
}

template <class Kv, int G>
void AttendHeads(const CacheLayout& l, const HeadView& view, const float* q, float scale, float* scratch, float* out) {
  using T = typename Kv::T;
  const int64_t live = view.log_count + view.ring_live;
  const int64_t stride = RoundUp(live, kLanes) + l.page_k_slots + 64;
  float* scores = scratch;                  // [G][stride], by rank
  float* ring_scores = scratch + G * stride;  // [G][ring_k_slots], by slot
  const auto* ring = reinterpret_cast<const T*>(view.ring);
  for (int32_t at = 0, page = 0; at < view.log_count; at += l.page_slots, ++page) {
    const int32_t count = static_cast<int32_t>(MinOf(l.page_slots, view.log_count - at));
    const auto* k = reinterpret_cast<const T*>(view.pages[page]);
    const auto* next = at + l.page_slots < view.log_count ? reinterpret_cast<const T*>(view.pages[page + 1]) : ring;
    ScoreSlots<Kv, G>(k, l.page_k_slots, count, next, q, l.head_dim, scores + at, stride);
  }
  const auto* first_v = reinterpret_cast<const T*>(view.log_count > 0 ? view.pages[0] + l.page_v_offset : view.ring + l.ring_v_offset);
  ScoreSlots<Kv, G>(ring, l.ring_k_slots, view.ring_live, first_v, q, l.head_dim, ring_scores, l.ring_k_slots);
  float inverse[G];
  for (int h = 0; h < G; ++h) {
    float* to = scores + h * stride + view.log_count;
    const float* from = ring_scores + h * l.ring_k_slots;
    const int32_t old = view.ring_live - view.ring_oldest;
    for (int32_t i = 0; i < old; ++i) to[i] = from[view.ring_oldest + i];
    for (int32_t i = 0; i < view.ring_oldest; ++i) to[old + i] = from[i];
    inverse[h] = Softmax(scores + h * stride, live, scale);
  }
  for (int32_t c = 0; c < l.head_dim; c += 16 * kValueVecs) {
    const int vecs = static_cast<int>(MinOf(kValueVecs, (l.head_dim - c + 15) / 16));
    WithInt<kValueVecs>(vecs, [&](auto nv) {
      ValueTile<Kv, G, decltype(nv)::value>(l, view, c, scores, stride, inverse, out);
    });
  }
}

void Attend(const CacheLayout& l, const HeadView& view, const float* q, int32_t group, float scale, float* scratch, float* out) {
  for (int32_t h = 0; h < group; h += kHeadsMax) {
    const int heads = static_cast<int>(MinOf(kHeadsMax, group - h));
    const float* qh = q + int64_t{h} * l.head_dim;
    float* oh = out + int64_t{h} * l.head_dim;
    WithInt<kHeadsMax>(heads, [&](auto g) {
      if (l.element_bytes == 4) {
        AttendHeads<F32Kv, decltype(g)::value>(l, view, qh, scale, scratch, oh);
      } else {
        AttendHeads<Bf16Kv, decltype(g)::value>(l, view, qh, scale, scratch, oh);
      }
    });
  }
}

}  // namespace

const Kernels* RUM_KERNELS() {
  static constexpr Kernels kTable = {RUM_ISA,    Linear,  RmsNorm, Rope,        RopeAngles,    SiluMul,
                                       CopyFinite, AddInto, Attend,  BlockMaxima, SelectAtLeast, WeightSums, WeightBlock};
  return &kTable;
}

}  // namespace rum
