// The kernels in binary64: angles of RoPE and weights of sampling. Part of kernels.inc.h, once per level.
// Written over one register D of kDLanes doubles; kDRegs of them are the 16 lanes of docs/NUMERICS.md.
namespace rum {
namespace {

#if defined(RUM_LEVEL_AVX512)

using D = __m512d;
constexpr int kDLanes = 8;
RUM_INLINE D SetD(double x) { return _mm512_set1_pd(x); }
RUM_INLINE D WidenD(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
RUM_INLINE void NarrowD(float* p, D x) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(x)); }
RUM_INLINE void StoreD(double* p, D x) { _mm512_storeu_pd(p, x); }
RUM_INLINE D AddD(D a, D b) { return _mm512_add_pd(a, b); }
RUM_INLINE D SubD(D a, D b) { return _mm512_sub_pd(a, b); }
RUM_INLINE D MulD(D a, D b) { return _mm512_mul_pd(a, b); }
RUM_INLINE D FmaD(D a, D b, D c) { return _mm512_fmadd_pd(a, b, c); }
RUM_INLINE D MaxD(D a, D b) { return _mm512_max_pd(a, b); }
RUM_INLINE D ZeroUnderD(D v, D x, D limit) { return _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(x, limit, _CMP_NLT_UQ), v); }
RUM_INLINE bool AllUnderD(D x, D limit) { return _mm512_cmp_pd_mask(x, limit, _CMP_LT_OQ) == 0xff; }
RUM_INLINE D Pow2D(D t) {
  return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_add_epi64(_mm512_castpd_si512(t), _mm512_set1_epi64(1023)), 52));
}
RUM_INLINE void QuadrantD(D t, D s, D k, D* sin, D* cos) {
  const __m512i n = _mm512_castpd_si512(t), one = _mm512_set1_epi64(1), two = _mm512_set1_epi64(2);
  const __mmask8 odd = _mm512_test_epi64_mask(n, one);
  const __m512i sin_sign = _mm512_slli_epi64(_mm512_and_si512(n, two), 62);
  const __m512i cos_sign = _mm512_slli_epi64(_mm512_and_si512(_mm512_add_epi64(n, one), two), 62);
  *sin = _mm512_xor_pd(_mm512_mask_mov_pd(s, odd, k), _mm512_castsi512_pd(sin_sign));
  *cos = _mm512_xor_pd(_mm512_mask_mov_pd(k, odd, s), _mm512_castsi512_pd(cos_sign));
}

#elif defined(RUM_LEVEL_AVX2)

using D = __m256d;
constexpr int kDLanes = 4;
RUM_INLINE D SetD(double x) { return _mm256_set1_pd(x); }
RUM_INLINE D WidenD(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
RUM_INLINE void NarrowD(float* p, D x) { _mm_storeu_ps(p, _mm256_cvtpd_ps(x)); }
RUM_INLINE void StoreD(double* p, D x) { _mm256_storeu_pd(p, x); }
RUM_INLINE D AddD(D a, D b) { return _mm256_add_pd(a, b); }
RUM_INLINE D SubD(D a, D b) { return _mm256_sub_pd(a, b); }
RUM_INLINE D MulD(D a, D b) { return _mm256_mul_pd(a, b); }
RUM_INLINE D FmaD(D a, D b, D c) { return _mm256_fmadd_pd(a, b, c); }
RUM_INLINE D MaxD(D a, D b) { return _mm256_max_pd(a, b); }
RUM_INLINE D ZeroUnderD(D v, D x, D limit) { return _mm256_and_pd(v, _mm256_cmp_pd(x, limit, _CMP_NLT_UQ)); }
RUM_INLINE bool AllUnderD(D x, D limit) { return _mm256_movemask_pd(_mm256_cmp_pd(x, limit, _CMP_LT_OQ)) == 0xf; }
RUM_INLINE D Pow2D(D t) {
  return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_add_epi64(_mm256_castpd_si256(t), _mm256_set1_epi64x(1023)), 52));
}
RUM_INLINE void QuadrantD(D t, D s, D k, D* sin, D* cos) {
  const __m256i n = _mm256_castpd_si256(t), one = _mm256_set1_epi64x(1), two = _mm256_set1_epi64x(2);
  const D odd = _mm256_castsi256_pd(_mm256_slli_epi64(n, 63));  // a blend looks at the sign
  const __m256i sin_sign = _mm256_slli_epi64(_mm256_and_si256(n, two), 62);
  const __m256i cos_sign = _mm256_slli_epi64(_mm256_and_si256(_mm256_add_epi64(n, one), two), 62);
  *sin = _mm256_xor_pd(_mm256_blendv_pd(s, k, odd), _mm256_castsi256_pd(sin_sign));
  *cos = _mm256_xor_pd(_mm256_blendv_pd(k, s, odd), _mm256_castsi256_pd(cos_sign));
}

#else  // portable: one double; a compiler makes vectors of the loops over kDRegs

using D = double;
constexpr int kDLanes = 1;
RUM_INLINE D SetD(double x) { return x; }
RUM_INLINE D WidenD(const float* p) { return static_cast<double>(*p); }
RUM_INLINE void NarrowD(float* p, D x) { *p = static_cast<float>(x); }
RUM_INLINE void StoreD(double* p, D x) { *p = x; }
RUM_INLINE D AddD(D a, D b) { return a + b; }
RUM_INLINE D SubD(D a, D b) { return a - b; }
RUM_INLINE D MulD(D a, D b) { return a * b; }
RUM_INLINE D FmaD(D a, D b, D c) { return __builtin_fma(a, b, c); }
RUM_INLINE D MaxD(D a, D b) { return a > b ? a : b; }
RUM_INLINE D ZeroUnderD(D v, D x, D limit) { return x < limit ? 0.0 : v; }
RUM_INLINE bool AllUnderD(D x, D limit) { return x < limit; }
RUM_INLINE uint64_t BitsOfD(D x) {
  uint64_t u;
  __builtin_memcpy(&u, &x, 8);
  return u;
}
RUM_INLINE D FromBitsD(uint64_t u) {
  D x;
  __builtin_memcpy(&x, &u, 8);
  return x;
}
RUM_INLINE D Pow2D(D t) { return FromBitsD((BitsOfD(t) + 1023) << 52); }
RUM_INLINE void QuadrantD(D t, D s, D k, D* sin, D* cos) {
  const uint64_t n = BitsOfD(t);
  const bool odd = (n & 1) != 0;
  *sin = FromBitsD(BitsOfD(odd ? k : s) ^ ((n & 2) << 62));
  *cos = FromBitsD(BitsOfD(odd ? s : k) ^ (((n + 1) & 2) << 62));
}

#endif

constexpr int kDRegs = 16 / kDLanes;
// x + kRoundD has the nearest whole number n of x in its low bits: Pow2D (2^n) and QuadrantD (sin and cos of r + n pi/2) read it there.
constexpr double kRoundD = 6755399441055744.0;

template <int N>
RUM_INLINE D HornerD(D x, const double (&c)[N]) {  // c[0] is the highest coefficient
  D p = SetD(c[0]);
#pragma GCC unroll 16
  for (int i = 1; i < N; ++i) p = FmaD(p, x, SetD(c[i]));
  return p;
}

// ExpD of core/exact_math.h, operation by operation, for x in [-708, 709].
RUM_INLINE D ExpOfD(D x) {
  constexpr double kTaylor[] = {1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0,
                                1.0 / 40320.0,      1.0 / 5040.0,      1.0 / 720.0,      1.0 / 120.0,     1.0 / 24.0,
                                1.0 / 6.0,          0.5,               1.0,              1.0};
  const D t = FmaD(x, SetD(1.4426950408889634074), SetD(kRoundD));
  const D n = SubD(t, SetD(kRoundD));
  D r = FmaD(n, SetD(-6.93147180369123816490e-01), x);
  r = FmaD(n, SetD(-1.90821492927058770002e-10), r);
  return MulD(HornerD(r, kTaylor), Pow2D(t));
}

// SinCos of core/exact_math.h, operation by operation.
RUM_INLINE void SinCosOfD(D x, D* sin, D* cos) {
  constexpr double kSin[] = {1.58969099521155010221e-10,  -2.50507602534068634195e-08, 2.75573137070700676789e-06,
                             -1.98412698298579493134e-04, 8.33333333332248946124e-03,  -1.66666666666666324348e-01};
  constexpr double kCos[] = {-1.13596475577881948265e-11, 2.08757232129817482790e-09,  -2.75573143513906633035e-07, 2.48015872894767294178e-05,
                             -1.38888888888741095749e-03, 4.16666666666666019037e-02,  -0.5, 1.0};
  const D t = FmaD(x, SetD(0.63661977236758134308), SetD(kRoundD));
  const D n = SubD(t, SetD(kRoundD));
  D r = FmaD(n, SetD(-1.57079632679489655800e+00), x);
  r = FmaD(n, SetD(-6.12323399573676603587e-17), r);
  r = FmaD(n, SetD(1.49738490485916983e-33), r);
  const D z = MulD(r, r);
  const D s = FmaD(MulD(HornerD(z, kSin), z), r, r);
  QuadrantD(t, s, HornerD(z, kCos), sin, cos);
}

void RopeAngles(int32_t position, const float* inv_freq, double attention_factor, int64_t half, float* cos, float* sin) {
  const D at = SetD(static_cast<double>(position)), factor = SetD(attention_factor);
  const auto angles = [&](const float* from, float* c, float* s) {
    D sin_d, cos_d;
    SinCosOfD(MulD(at, WidenD(from)), &sin_d, &cos_d);
    NarrowD(c, MulD(cos_d, factor));
    NarrowD(s, MulD(sin_d, factor));
  };
  int64_t i = 0;
  for (; i + kDLanes <= half; i += kDLanes) angles(inv_freq + i, cos + i, sin + i);
  if (i == half) return;
  float from[kDLanes] = {}, c[kDLanes], s[kDLanes];
  for (int64_t j = i; j < half; ++j) from[j - i] = inv_freq[j];
  angles(from, c, s);
  for (int64_t j = i; j < half; ++j) {
    cos[j] = c[j - i];
    sin[j] = s[j - i];
  }
}

// ---------------------------------------------------------------- sampling

// f(offset, 16 logits) over [0, n); after the last one come logits of weight 0.
template <class F>
RUM_INLINE void ForLogits(const float* logits, int64_t n, F&& f) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) f(i, logits + i);
  if (i == n) return;
  float last[16];
  for (int64_t j = 0; j < 16; ++j) last[j] = i + j < n ? logits[i + j] : -__builtin_inff();
  f(i, static_cast<const float*>(last));
}

// The weights of 16 logits. False: all are +0 and none has been written; so it is with most of a peaked vocabulary.
RUM_INLINE bool Weights16(const float* logits, const WeightRule& rule, D* w) {
  const D least_x = SetD(kWeightExponentMin);
  bool all_under = true;
#pragma GCC unroll 16
  for (int i = 0; i < kDRegs; ++i) {
    w[i] = MulD(SubD(WidenD(logits + i * kDLanes), SetD(rule.top)), SetD(rule.scale));
    all_under &= AllUnderD(w[i], least_x);
  }
  if (all_under) return false;
#pragma GCC unroll 16
  for (int i = 0; i < kDRegs; ++i) {
    const D weight = ZeroUnderD(ExpOfD(MaxD(w[i], least_x)), w[i], least_x);
    w[i] = ZeroUnderD(weight, weight, SetD(rule.least));
  }
  return true;
}

void WeightBlock(const float* logits, int64_t n, const WeightRule& rule, double* weights) {
  ForLogits(logits, n, [&](int64_t i, const float* x) {
    D w[kDRegs];
    double out[16] = {};
    if (Weights16(x, rule, w)) {
      for (int r = 0; r < kDRegs; ++r) StoreD(out + r * kDLanes, w[r]);
    }
    for (int64_t j = i; j < MinOf(i + 16, n); ++j) weights[j] = out[j - i];
  });
}

void WeightSums(const float* logits, int64_t n, const WeightRule& rule, double* sums) {
  for (int64_t b = 0; b < n; b += kWeightBlock) {
    D lanes[kDRegs];
    for (int r = 0; r < kDRegs; ++r) lanes[r] = SetD(0.0);
    ForLogits(logits + b, MinOf(kWeightBlock, n - b), [&](int64_t, const float* x) {
      D w[kDRegs];
      if (!Weights16(x, rule, w)) return;
      for (int r = 0; r < kDRegs; ++r) lanes[r] = AddD(lanes[r], w[r]);
    });
    double s[16];
    for (int r = 0; r < kDRegs; ++r) StoreD(s + r * kDLanes, lanes[r]);
    sums[b / kWeightBlock] = FoldLanes(s);
  }
}

void BlockMaxima(const float* x, int64_t n, float* maxima) {
  for (int64_t b = 0; b < n; b += kWeightBlock) {
    Vec top = Set1(-__builtin_inff());
    ForLogits(x + b, MinOf(kWeightBlock, n - b), [&](int64_t, const float* p) { top = Max(Load(p), top); });
    float lanes[16];
    Store(lanes, top);
    float max = lanes[0];
    for (int i = 1; i < 16; ++i) max = lanes[i] > max ? lanes[i] : max;
    maxima[b / kWeightBlock] = max;
  }
}

int64_t SelectAtLeast(const float* x, int64_t n, float least, int32_t first, int32_t* ids) {
  int64_t count = 0;
  ForLogits(x, n, [&](int64_t i, const float* p) {
    for (uint32_t bits = AtLeastBits(Load(p), least); bits != 0; bits &= bits - 1) {
      ids[count++] = first + static_cast<int32_t>(i) + __builtin_ctz(bits);
    }
  });
  return count;
}

}  // namespace
}  // namespace rum
