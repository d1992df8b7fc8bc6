// The scalar functions of docs/NUMERICS.md. No libm: its last bits differ from system to system. Every file that includes this is
// compiled with -ffp-contract=off; std::fma is the only fused operation. The vector kernels repeat ExpF operation by operation.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>

namespace rum {

// exp in binary32: n = round(x log2 e) by the 1.5 * 2^23 trick, r = x - n ln 2 in two parts, degree-6 polynomial, scale by 2^n.
// Relative error < 2e-7. Inputs above 88 count as 88; below -87 the result is +0; NaN stays NaN.
namespace exp_f {
inline constexpr float kMax = 88.0f, kMin = -87.0f;
inline constexpr float kLog2e = 1.44269504f, kRound = 12582912.0f;
inline constexpr float kLn2Hi = 0.693359375f, kLn2Lo = -2.12194440e-4f;
inline constexpr float kC0 = 1.9875691500e-4f, kC1 = 1.3981999507e-3f, kC2 = 8.3334519073e-3f;
inline constexpr float kC3 = 4.1665795894e-2f, kC4 = 1.6666665459e-1f, kC5 = 5.0000001201e-1f;
}  // namespace exp_f

inline float ExpF(float x) {
  using namespace exp_f;
  float c = kMax < x ? kMax : x;
  c = kMin > c ? kMin : c;
  const float n = std::fma(c, kLog2e, kRound) - kRound;
  float r = std::fma(n, -kLn2Hi, c);
  r = std::fma(n, -kLn2Lo, r);
  float p = kC0;
  p = std::fma(p, r, kC1);
  p = std::fma(p, r, kC2);
  p = std::fma(p, r, kC3);
  p = std::fma(p, r, kC4);
  p = std::fma(p, r, kC5);
  p = std::fma(p, r * r, r) + 1.0f;
  // 2^n by its bits. NaN: n is NaN, the cast below would be undefined, so it is kept out of it.
  if (x != x) return x;
  const auto scale = std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
  return x < kMin ? 0.0f : p * scale;
}

inline float SiluF(float x) { return x / (1.0f + ExpF(-x)); }

// exp and log in binary64 for RoPE frequencies and sampling; relative error < 1e-15.
inline double ExpD(double x) {
  if (x != x) return x;
  if (x < -708.0) return 0.0;
  if (x > 709.0) x = 709.0;
  constexpr double kRound = 6755399441055744.0;
  const double n = std::fma(x, 1.4426950408889634074, kRound) - kRound;
  double r = std::fma(n, -6.93147180369123816490e-01, x);
  r = std::fma(n, -1.90821492927058770002e-10, r);
  double p = 1.0 / 6227020800.0;  // Taylor to degree 13: |r| < 0.347
  for (const double c : {1.0 / 479001600.0, 1.0 / 39916800.0, 1.0 / 3628800.0, 1.0 / 362880.0, 1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0,
                         1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0}) {
    p = std::fma(p, r, c);
  }
  return p * std::bit_cast<double>((static_cast<int64_t>(n) + 1023) << 52);
}

// Natural logarithm of a positive, finite, normal x: x = 2^e m, m in [sqrt(1/2), sqrt(2)), log m = 2 atanh((m - 1) / (m + 1)).
inline double LogD(double x) {
  const auto bits = std::bit_cast<int64_t>(x);
  int64_t e = ((bits >> 52) & 0x7ff) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffLL) | (int64_t{1023} << 52));
  if (m > 1.4142135623730951) {
    m *= 0.5;
    e += 1;
  }
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
  double p = 1.0 / 27.0;
  for (const double c : {1.0 / 25.0, 1.0 / 23.0, 1.0 / 21.0, 1.0 / 19.0, 1.0 / 17.0, 1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0,
                         1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0}) {
    p = std::fma(p, s2, c);
  }
  const double en = static_cast<double>(e);
  return std::fma(en, 6.93147180369123816490e-01, std::fma(en, 1.90821492927058770002e-10, 2.0 * s * p));
}

// sin and cos in binary64 for |x| < 2^30: Cody-Waite reduction by pi/2 in three parts, fdlibm's polynomials.
inline void SinCos(double x, double* sin_out, double* cos_out) {
  constexpr double kRound = 6755399441055744.0;
  const double n = std::fma(x, 0.63661977236758134308, kRound) - kRound;
  double r = std::fma(n, -1.57079632679489655800e+00, x);
  r = std::fma(n, -6.12323399573676603587e-17, r);
  r = std::fma(n, 1.49738490485916983e-33, r);
  const double z = r * r;
  double s = 1.58969099521155010221e-10;
  for (const double c : {-2.50507602534068634195e-08, 2.75573137070700676789e-06, -1.98412698298579493134e-04, 8.33333333332248946124e-03,
                         -1.66666666666666324348e-01}) {
    s = std::fma(s, z, c);
  }
  s = std::fma(s * z, r, r);
  double k = -1.13596475577881948265e-11;
  for (const double c : {2.08757232129817482790e-09, -2.75573143513906633035e-07, 2.48015872894767294178e-05, -1.38888888888741095749e-03,
                         4.16666666666666019037e-02, -0.5, 1.0}) {
    k = std::fma(k, z, c);
  }
  switch (static_cast<int64_t>(n) & 3) {
    case 0: *sin_out = s; *cos_out = k; break;
    case 1: *sin_out = k; *cos_out = -s; break;
    case 2: *sin_out = -s; *cos_out = -k; break;
    default: *sin_out = -k; *cos_out = s; break;
  }
}

// cos and sin of position * inv_freq, times the RoPE type's attention factor (1 but for yarn), rounded to float once.
inline void RopeAngle(int32_t position, float inv_freq, double attention_factor, float* cos_out, float* sin_out) {
  double s, c;
  SinCos(static_cast<double>(position) * static_cast<double>(inv_freq), &s, &c);
  *cos_out = static_cast<float>(c * attention_factor);
  *sin_out = static_cast<float>(s * attention_factor);
}

// BF16: upper half of a float. Round to nearest even; NaN stays NaN.
inline uint16_t ToBf16(float f) {
  auto u = std::bit_cast<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((u >> 16) | 0x40u);
  u += 0x7fffu + ((u >> 16) & 1u);
  return static_cast<uint16_t>(u >> 16);
}
inline float FromBf16(uint16_t h) { return std::bit_cast<float>(static_cast<uint32_t>(h) << 16); }

// F16 -> F32, exact (subnormals, infinities and NaN included).
inline float FromF16(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16, e = (h >> 10) & 0x1fu, m = h & 0x3ffu;
  if (e == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (m << 13));
  if (e == 0) {
    const float v = static_cast<float>(m) * 5.9604644775390625e-08f;  // m * 2^-24, exact
    return std::bit_cast<float>(std::bit_cast<uint32_t>(v) | sign);
  }
  return std::bit_cast<float>(sign | ((e + 112u) << 23) | (m << 13));
}

}  // namespace rum
