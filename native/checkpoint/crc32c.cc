#include "checkpoint/crc32c.h"

#include <array>
#include <cstddef>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "core/little_endian.h"

namespace rum {
namespace {

// Polynomials over GF(2) modulo P, reflected: bit 31 is the coefficient of x^0.
constexpr uint32_t kPolynomial = 0x82F63B78u;

constexpr uint32_t TimesX(uint32_t p) { return (p >> 1) ^ ((p & 1) != 0 ? kPolynomial : 0); }

// --- Portable: slicing by 8 ----------------------------------------------------------------------

// [k][b]: what byte b does to the register when k more bytes follow.
constexpr auto kTable = [] {
  std::array<std::array<uint32_t, 256>, 8> table{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t p = b;
    for (int i = 0; i < 8; ++i) p = TimesX(p);
    table[0][b] = p;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t b = 0; b < 256; ++b) table[k][b] = (table[k - 1][b] >> 8) ^ table[0][table[k - 1][b] & 0xFF];
  }
  return table;
}();

uint32_t UpdatePortable(uint32_t state, const uint8_t* data, int64_t bytes) {
  for (; bytes >= 8; data += 8, bytes -= 8) {
    const uint64_t v = LoadAs<uint64_t>(data) ^ state;
    state = 0;
    for (size_t k = 0; k < 8; ++k) state ^= kTable[7 - k][(v >> (8 * k)) & 0xFF];
  }
  for (; bytes > 0; ++data, --bytes) state = (state >> 8) ^ kTable[0][(state ^ *data) & 0xFF];
  return state;
}

bool Always() { return true; }

#if defined(__x86_64__)

// --- SSE4.2: three streams hide the latency of the instruction -----------------------------------

constexpr uint32_t PowerOfX(int n) {
  uint32_t p = uint32_t{1} << 31;
  for (int i = 0; i < n; ++i) p = TimesX(p);
  return p;
}

// A carry-less product of reflected 64-bit halves stands for the product times x, and a 32-bit constant in a 64-bit half for itself
// times x^32. So moving a register over `bits` takes x^(bits - 33), with the 33 made up by the crc32 instruction or the half.
constexpr int64_t kStreamBytes = 1024;
constexpr uint32_t kOverOneStream = PowerOfX(8 * kStreamBytes - 33);
constexpr uint32_t kOverTwoStreams = PowerOfX(2 * 8 * kStreamBytes - 33);

__attribute__((target("sse4.2,pclmul"))) uint32_t MoveOver(uint64_t state, uint32_t power) {
  const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128(static_cast<int64_t>(state)), _mm_cvtsi64_si128(power), 0);
  return static_cast<uint32_t>(_mm_crc32_u64(0, static_cast<uint64_t>(_mm_cvtsi128_si64(product))));
}

__attribute__((target("sse4.2,pclmul"))) uint32_t UpdateSse42(uint32_t state, const uint8_t* data, int64_t bytes) {
  for (; bytes >= 3 * kStreamBytes; data += 3 * kStreamBytes, bytes -= 3 * kStreamBytes) {
    uint64_t a = state, b = 0, c = 0;
    for (int64_t i = 0; i < kStreamBytes; i += 8) {
      a = _mm_crc32_u64(a, LoadAs<uint64_t>(data + i));
      b = _mm_crc32_u64(b, LoadAs<uint64_t>(data + kStreamBytes + i));
      c = _mm_crc32_u64(c, LoadAs<uint64_t>(data + 2 * kStreamBytes + i));
    }
    state = MoveOver(a, kOverTwoStreams) ^ MoveOver(b, kOverOneStream) ^ static_cast<uint32_t>(c);
  }
  uint64_t wide = state;
  for (; bytes >= 8; data += 8, bytes -= 8) wide = _mm_crc32_u64(wide, LoadAs<uint64_t>(data));
  state = static_cast<uint32_t>(wide);
  for (; bytes > 0; ++data, --bytes) state = _mm_crc32_u8(state, *data);
  return state;
}

bool HasSse42() { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul"); }

// --- AVX-512: 256 bytes at a time are folded onto the next 256 -----------------------------------

#define RUM_AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,vpclmulqdq,pclmul,sse4.2")))

// What moves a 128-bit lane over some bits: its first half stands 64 bits further from the end than its second.
struct Powers {
  int64_t first, second;
};
consteval Powers Over(int bits) { return {PowerOfX(bits + 64 - 33), PowerOfX(bits - 33)}; }

RUM_AVX512 inline __m512i InAllLanes(Powers p) {
  return _mm512_set_epi64(p.second, p.first, p.second, p.first, p.second, p.first, p.second, p.first);
}

RUM_AVX512 inline __m512i Fold(__m512i lanes, __m512i powers, __m512i onto) {
  const __m512i first = _mm512_clmulepi64_epi128(lanes, powers, 0x00);
  const __m512i second = _mm512_clmulepi64_epi128(lanes, powers, 0x11);
  return _mm512_ternarylogic_epi64(first, second, onto, 0x96);  // a ^ b ^ c
}

RUM_AVX512 uint32_t UpdateAvx512(uint32_t state, const uint8_t* data, int64_t bytes) {
  if (bytes >= 512) {
    constexpr Powers kOver1 = Over(128), kOver2 = Over(2 * 128), kOver3 = Over(3 * 128);
    const __m512i over4 = InAllLanes(Over(4 * 128)), over16 = InAllLanes(Over(16 * 128));
    __m512i a = _mm512_loadu_si512(data), b = _mm512_loadu_si512(data + 64), c = _mm512_loadu_si512(data + 128), d = _mm512_loadu_si512(data + 192);
    a = _mm512_xor_si512(a, _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(state))));
    for (data += 256, bytes -= 256; bytes >= 256; data += 256, bytes -= 256) {
      a = Fold(a, over16, _mm512_loadu_si512(data));
      b = Fold(b, over16, _mm512_loadu_si512(data + 64));
      c = Fold(c, over16, _mm512_loadu_si512(data + 128));
      d = Fold(d, over16, _mm512_loadu_si512(data + 192));
    }
    d = Fold(Fold(Fold(a, over4, b), over4, c), over4, d);
    // The first three of the four lanes onto the last.
    const __m512i to_last = _mm512_set_epi64(0, 0, kOver1.second, kOver1.first, kOver2.second, kOver2.first, kOver3.second, kOver3.first);
    alignas(64) uint64_t moved[8], last[8];
    _mm512_store_si512(moved, Fold(d, to_last, _mm512_setzero_si512()));
    _mm512_store_si512(last, d);
    const uint64_t first = _mm_crc32_u64(0, moved[0] ^ moved[2] ^ moved[4] ^ last[6]);
    state = static_cast<uint32_t>(_mm_crc32_u64(first, moved[1] ^ moved[3] ^ moved[5] ^ last[7]));
  }
  return UpdateSse42(state, data, bytes);
}

bool HasAvx512() {
  return HasSse42() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("vpclmulqdq");
}

constexpr Crc32cWay kWays[] = {{"avx512", HasAvx512, UpdateAvx512}, {"sse4.2", HasSse42, UpdateSse42}, {"portable", Always, UpdatePortable}};

#elif defined(__aarch64__)

// --- ARM: the instruction by name, as compilers disagree on how a function may ask for it ---------

uint32_t UpdateArm(uint32_t state, const uint8_t* data, int64_t bytes) {
  for (; bytes >= 8; data += 8, bytes -= 8) {
    const auto eight = LoadAs<uint64_t>(data);
    asm(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(state) : "r"(eight));
  }
  for (; bytes > 0; ++data, --bytes) asm(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(state) : "r"(uint32_t{*data}));
  return state;
}

bool HasArmCrc() {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#else
  return true;  // Apple's have it since the first
#endif
}

constexpr Crc32cWay kWays[] = {{"arm crc", HasArmCrc, UpdateArm}, {"portable", Always, UpdatePortable}};

#else

constexpr Crc32cWay kWays[] = {{"portable", Always, UpdatePortable}};

#endif

}  // namespace

std::span<const Crc32cWay> Crc32cWays() { return kWays; }

uint32_t Crc32c(std::span<const uint8_t> data, uint32_t crc) {
  static const auto update = [] {
    const Crc32cWay* way = kWays;
    while (!way->runs_here()) ++way;
    return way->update;
  }();
  return ~update(~crc, data.data(), static_cast<int64_t>(data.size()));
}

}  // namespace rum
