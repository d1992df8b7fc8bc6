// Sixteen float lanes at three levels. Included once by each kernels_*.cc, which is compiled for its level: everything has internal
// linkage, so that no function compiled for one level can be picked by the linker for another.
// Every operation is one IEEE operation per lane, so all levels agree bit for bit.
#pragma once
#include <cstdint>

#if defined(RUM_LEVEL_AVX512) || defined(RUM_LEVEL_AVX2)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12's own _mm512_undefined_epi32 (bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#endif

namespace rum {
namespace {

#define RUM_INLINE inline __attribute__((always_inline))

#if defined(RUM_LEVEL_AVX512)

struct Vec {
  __m512 r;
};
RUM_INLINE __mmask16 LaneMask(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
RUM_INLINE Vec Zero() { return {_mm512_setzero_ps()}; }
RUM_INLINE Vec Set1(float f) { return {_mm512_set1_ps(f)}; }
RUM_INLINE Vec Load(const float* p) { return {_mm512_loadu_ps(p)}; }
RUM_INLINE Vec LoadN(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(LaneMask(n), p)}; }
RUM_INLINE void Store(float* p, Vec a) { _mm512_storeu_ps(p, a.r); }
RUM_INLINE void StoreN(float* p, Vec a, int64_t n) { _mm512_mask_storeu_ps(p, LaneMask(n), a.r); }
RUM_INLINE Vec ZeroFrom(Vec a, int64_t n) { return {_mm512_maskz_mov_ps(LaneMask(n), a.r)}; }
RUM_INLINE Vec Add(Vec a, Vec b) { return {_mm512_add_ps(a.r, b.r)}; }
RUM_INLINE Vec Sub(Vec a, Vec b) { return {_mm512_sub_ps(a.r, b.r)}; }
RUM_INLINE Vec Mul(Vec a, Vec b) { return {_mm512_mul_ps(a.r, b.r)}; }
RUM_INLINE Vec Div(Vec a, Vec b) { return {_mm512_div_ps(a.r, b.r)}; }
RUM_INLINE Vec Fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.r, b.r, c.r)}; }
RUM_INLINE Vec FmaSub(Vec a, Vec b, Vec c) { return {_mm512_fmsub_ps(a.r, b.r, c.r)}; }
// a < b ? a : b and a > b ? a : b per lane: the second operand where either is NaN.
RUM_INLINE Vec Min(Vec a, Vec b) { return {_mm512_min_ps(a.r, b.r)}; }
RUM_INLINE Vec Max(Vec a, Vec b) { return {_mm512_max_ps(a.r, b.r)}; }
// Bit i: lane i >= least.
RUM_INLINE uint32_t AtLeastBits(Vec a, float least) { return _mm512_cmp_ps_mask(a.r, _mm512_set1_ps(least), _CMP_GE_OQ); }
// p * 2^n for whole n in [-126, 127]; zero where x < limit; x where x is NaN.
RUM_INLINE Vec ScaleExp(Vec p, Vec n, Vec x, float limit) {
  const __m512i bits = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.r), _mm512_set1_epi32(127)), 23);
  const __m512 y = _mm512_mul_ps(p.r, _mm512_castsi512_ps(bits));
  const __mmask16 keep = _mm512_cmp_ps_mask(x.r, _mm512_set1_ps(limit), _CMP_NLT_UQ);
  const __mmask16 nan = _mm512_cmp_ps_mask(x.r, x.r, _CMP_UNORD_Q);
  return {_mm512_mask_mov_ps(_mm512_maskz_mov_ps(keep, y), nan, x.r)};
}
RUM_INLINE Vec LoadBf16(const uint16_t* p) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
RUM_INLINE Vec LoadF16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
// 16 pairs of BF16: the first and the second of each pair.
RUM_INLINE void LoadBf16Pairs(const uint16_t* p, Vec* first, Vec* second) {
  const __m512i v = _mm512_loadu_si512(p);
  first->r = _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
  second->r = _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
// 16 bytes as whole numbers, and tables of 16 floats that the low 4 bits of such a number select from.
struct IntVec {
  __m512i r;
};
struct Table {
  __m512 r;
};
RUM_INLINE __m128i Load16Bytes(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
RUM_INLINE IntVec LoadU8(const uint8_t* p) { return {_mm512_cvtepu8_epi32(Load16Bytes(p))}; }
RUM_INLINE Vec LoadI8(const int8_t* p) { return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(Load16Bytes(p)))}; }
RUM_INLINE Vec ToFloat(IntVec v) { return {_mm512_cvtepi32_ps(v.r)}; }
template <int N>
RUM_INLINE IntVec ShiftRight(IntVec v) {
  return {_mm512_srli_epi32(v.r, N)};
}
RUM_INLINE Table LoadTable(const float* p) { return {_mm512_loadu_ps(p)}; }
RUM_INLINE Vec Lookup(Table t, IntVec v) { return {_mm512_permutexvar_ps(v.r, t.r)}; }

#elif defined(RUM_LEVEL_AVX2)

struct Vec {
  __m256 a, b;
};
RUM_INLINE Vec Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
RUM_INLINE Vec Set1(float f) { return {_mm256_set1_ps(f), _mm256_set1_ps(f)}; }
RUM_INLINE Vec Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
RUM_INLINE __m256i LaneMask(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
RUM_INLINE Vec LoadN(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, LaneMask(n)), n > 8 ? _mm256_maskload_ps(p + 8, LaneMask(n - 8)) : _mm256_setzero_ps()};
}
RUM_INLINE void Store(float* p, Vec v) {
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
}
RUM_INLINE void StoreN(float* p, Vec v, int64_t n) {
  _mm256_maskstore_ps(p, LaneMask(n), v.a);
  if (n > 8) _mm256_maskstore_ps(p + 8, LaneMask(n - 8), v.b);
}
RUM_INLINE Vec ZeroFrom(Vec v, int64_t n) {
  return {_mm256_and_ps(v.a, _mm256_castsi256_ps(LaneMask(n))), _mm256_and_ps(v.b, _mm256_castsi256_ps(LaneMask(n - 8)))};
}
RUM_INLINE Vec Add(Vec x, Vec y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
RUM_INLINE Vec Sub(Vec x, Vec y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
RUM_INLINE Vec Mul(Vec x, Vec y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
RUM_INLINE Vec Div(Vec x, Vec y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
RUM_INLINE Vec Fma(Vec x, Vec y, Vec z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
RUM_INLINE Vec FmaSub(Vec x, Vec y, Vec z) { return {_mm256_fmsub_ps(x.a, y.a, z.a), _mm256_fmsub_ps(x.b, y.b, z.b)}; }
RUM_INLINE Vec Min(Vec x, Vec y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
RUM_INLINE Vec Max(Vec x, Vec y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
RUM_INLINE uint32_t AtLeastBits(Vec v, float least) {
  const __m256 l = _mm256_set1_ps(least);
  const int low = _mm256_movemask_ps(_mm256_cmp_ps(v.a, l, _CMP_GE_OQ)), high = _mm256_movemask_ps(_mm256_cmp_ps(v.b, l, _CMP_GE_OQ));
  return static_cast<uint32_t>(low | high << 8);
}
RUM_INLINE __m256 ScaleExpHalf(__m256 p, __m256 n, __m256 x, float limit) {
  const __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  const __m256 y = _mm256_mul_ps(p, _mm256_castsi256_ps(bits));
  const __m256 keep = _mm256_cmp_ps(x, _mm256_set1_ps(limit), _CMP_NLT_UQ);
  return _mm256_blendv_ps(_mm256_and_ps(y, keep), x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
}
RUM_INLINE Vec ScaleExp(Vec p, Vec n, Vec x, float limit) {
  return {ScaleExpHalf(p.a, n.a, x.a, limit), ScaleExpHalf(p.b, n.b, x.b, limit)};
}
RUM_INLINE __m256 WidenBf16(const uint16_t* p) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16));
}
RUM_INLINE Vec LoadBf16(const uint16_t* p) { return {WidenBf16(p), WidenBf16(p + 8)}; }
RUM_INLINE Vec LoadF16(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
RUM_INLINE void LoadBf16Pairs(const uint16_t* p, Vec* first, Vec* second) {
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i y = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16));
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  *first = {_mm256_castsi256_ps(_mm256_slli_epi32(x, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(y, 16))};
  *second = {_mm256_castsi256_ps(_mm256_and_si256(x, high)), _mm256_castsi256_ps(_mm256_and_si256(y, high))};
}
struct IntVec {
  __m256i a, b;
};
struct Table {
  __m256 low, high;
};
RUM_INLINE __m128i Load8Bytes(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
RUM_INLINE IntVec LoadU8(const uint8_t* p) { return {_mm256_cvtepu8_epi32(Load8Bytes(p)), _mm256_cvtepu8_epi32(Load8Bytes(p + 8))}; }
RUM_INLINE Vec LoadI8(const int8_t* p) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(Load8Bytes(p))), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(Load8Bytes(p + 8)))};
}
RUM_INLINE Vec ToFloat(IntVec v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }
template <int N>
RUM_INLINE IntVec ShiftRight(IntVec v) {
  return {_mm256_srli_epi32(v.a, N), _mm256_srli_epi32(v.b, N)};
}
RUM_INLINE Table LoadTable(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
RUM_INLINE __m256 LookupHalf(Table t, __m256i v) {  // each half by the low 3 bits, then bit 3, moved to the sign, chooses
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(t.low, v), _mm256_permutevar8x32_ps(t.high, v),
                          _mm256_castsi256_ps(_mm256_slli_epi32(v, 28)));
}
RUM_INLINE Vec Lookup(Table t, IntVec v) { return {LookupHalf(t, v.a), LookupHalf(t, v.b)}; }

#else  // portable: plain loops; a compiler for arm64 turns them into NEON, fma included

struct Vec {
  float r[16];
};
#define RUM_LANES(i) for (int i = 0; i < 16; ++i)
RUM_INLINE Vec Zero() { return Vec{}; }
RUM_INLINE Vec Set1(float f) {
  Vec o;
  RUM_LANES(i) o.r[i] = f;
  return o;
}
RUM_INLINE Vec LoadN(const float* p, int64_t n) {
  Vec o;
  RUM_LANES(i) o.r[i] = i < n ? p[i] : 0.0f;
  return o;
}
RUM_INLINE Vec Load(const float* p) {
  Vec o;
  RUM_LANES(i) o.r[i] = p[i];
  return o;
}
RUM_INLINE void StoreN(float* p, const Vec& a, int64_t n) { RUM_LANES(i) if (i < n) p[i] = a.r[i]; }
RUM_INLINE void Store(float* p, const Vec& a) { RUM_LANES(i) p[i] = a.r[i]; }
RUM_INLINE Vec ZeroFrom(Vec a, int64_t n) {
  RUM_LANES(i) if (i >= n) a.r[i] = 0.0f;
  return a;
}
RUM_INLINE Vec Add(Vec a, const Vec& b) {
  RUM_LANES(i) a.r[i] = a.r[i] + b.r[i];
  return a;
}
RUM_INLINE Vec Sub(Vec a, const Vec& b) {
  RUM_LANES(i) a.r[i] = a.r[i] - b.r[i];
  return a;
}
RUM_INLINE Vec Mul(Vec a, const Vec& b) {
  RUM_LANES(i) a.r[i] = a.r[i] * b.r[i];
  return a;
}
RUM_INLINE Vec Div(Vec a, const Vec& b) {
  RUM_LANES(i) a.r[i] = a.r[i] / b.r[i];
  return a;
}
RUM_INLINE Vec Fma(const Vec& a, const Vec& b, Vec c) {
  RUM_LANES(i) c.r[i] = __builtin_fmaf(a.r[i], b.r[i], c.r[i]);
  return c;
}
RUM_INLINE Vec FmaSub(const Vec& a, const Vec& b, Vec c) {
  RUM_LANES(i) c.r[i] = __builtin_fmaf(a.r[i], b.r[i], -c.r[i]);
  return c;
}
RUM_INLINE Vec Min(Vec a, const Vec& b) {
  RUM_LANES(i) a.r[i] = a.r[i] < b.r[i] ? a.r[i] : b.r[i];
  return a;
}
RUM_INLINE Vec Max(Vec a, const Vec& b) {
  RUM_LANES(i) a.r[i] = a.r[i] > b.r[i] ? a.r[i] : b.r[i];
  return a;
}
RUM_INLINE uint32_t AtLeastBits(const Vec& a, float least) {
  uint32_t bits = 0;
  RUM_LANES(i) bits |= static_cast<uint32_t>(a.r[i] >= least) << i;
  return bits;
}
RUM_INLINE float BitsToFloat(uint32_t u) {
  float f;
  __builtin_memcpy(&f, &u, 4);
  return f;
}
RUM_INLINE Vec ScaleExp(Vec p, const Vec& n, const Vec& x, float limit) {
  RUM_LANES(i) {
    if (x.r[i] != x.r[i]) {
      p.r[i] = x.r[i];
    } else {
      const float y = p.r[i] * BitsToFloat(static_cast<uint32_t>(static_cast<int32_t>(n.r[i]) + 127) << 23);
      p.r[i] = x.r[i] < limit ? 0.0f : y;
    }
  }
  return p;
}
RUM_INLINE Vec LoadBf16(const uint16_t* p) {
  Vec o;
  RUM_LANES(i) o.r[i] = BitsToFloat(static_cast<uint32_t>(p[i]) << 16);
  return o;
}
RUM_INLINE float HalfToFloat(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16, e = (h >> 10) & 0x1fu, m = h & 0x3ffu;
  if (e == 0x1f) return BitsToFloat(sign | 0x7f800000u | (m << 13));
  const float subnormal = static_cast<float>(m) * 5.9604644775390625e-08f;
  if (e == 0) return sign != 0 ? -subnormal : subnormal;
  return BitsToFloat(sign | ((e + 112u) << 23) | (m << 13));
}
RUM_INLINE Vec LoadF16(const uint16_t* p) {
  Vec o;
  RUM_LANES(i) o.r[i] = HalfToFloat(p[i]);
  return o;
}
RUM_INLINE void LoadBf16Pairs(const uint16_t* p, Vec* first, Vec* second) {
  RUM_LANES(i) {
    first->r[i] = BitsToFloat(static_cast<uint32_t>(p[2 * i]) << 16);
    second->r[i] = BitsToFloat(static_cast<uint32_t>(p[2 * i + 1]) << 16);
  }
}
struct IntVec {
  uint32_t r[16];
};
struct Table {
  const float* r;
};
RUM_INLINE IntVec LoadU8(const uint8_t* p) {
  IntVec o;
  RUM_LANES(i) o.r[i] = p[i];
  return o;
}
RUM_INLINE Vec LoadI8(const int8_t* p) {
  Vec o;
  RUM_LANES(i) o.r[i] = static_cast<float>(p[i]);
  return o;
}
RUM_INLINE Vec ToFloat(const IntVec& v) {
  Vec o;
  RUM_LANES(i) o.r[i] = static_cast<float>(v.r[i]);
  return o;
}
template <int N>
RUM_INLINE IntVec ShiftRight(IntVec v) {
  RUM_LANES(i) v.r[i] >>= N;
  return v;
}
RUM_INLINE Table LoadTable(const float* p) { return {p}; }
RUM_INLINE Vec Lookup(const Table& t, const IntVec& v) {
  Vec o;
  RUM_LANES(i) o.r[i] = t.r[v.r[i] & 15u];
  return o;
}
#undef RUM_LANES

#endif

// The Lanes sum of docs/NUMERICS.md: halves folded onto each other.
template <class T>
RUM_INLINE T FoldLanes(T (&s)[16]) {
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) s[i] = s[i] + s[i + width];
  }
  return s[0];
}
RUM_INLINE float SumLanes(Vec v) {
  float s[16];
  Store(s, v);
  return FoldLanes(s);
}

}  // namespace
}  // namespace rum
