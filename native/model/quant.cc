#include "model/quant.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/exact_math.h"

namespace rum {
namespace {

template <class T>
T Load(const void* base, int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const uint8_t*>(base) + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return value;
}

float Half(const uint8_t* p) { return FromF16(Load<uint16_t>(p, 0)); }
float Code(int code) { return static_cast<float>(code); }

// --- One block [weights] of each GGUF type, in the order of operations of ggml's dequantize_row_* ----------------------------------

void Q8_0(const uint8_t* b, float* y) {  // d, 32 signed codes
  const float d = Half(b);
  for (int i = 0; i < 32; ++i) y[i] = Code(static_cast<int8_t>(b[2 + i])) * d;
}

void Q4_0(const uint8_t* b, float* y) {  // d, 16 bytes: weight i low, i + 16 high
  const float d = Half(b);
  for (int i = 0; i < 16; ++i) {
    y[i] = Code((b[2 + i] & 15) - 8) * d;
    y[i + 16] = Code((b[2 + i] >> 4) - 8) * d;
  }
}

void Q4_1(const uint8_t* b, float* y) {  // d, m, then as Q4_0
  const float d = Half(b), m = Half(b + 2);
  for (int i = 0; i < 16; ++i) {
    y[i] = Code(b[4 + i] & 15) * d + m;
    y[i + 16] = Code(b[4 + i] >> 4) * d + m;
  }
}

void Q4_K(const uint8_t* b, float* y) {  // d, dmin, 12 bytes of 6-bit scales and mins, 128 bytes: 32 weights low, the next 32 high
  const float d = Half(b), dmin = Half(b + 2);
  for (int s = 0; s < 8; ++s) {
    const ScaleAndMin c = Q4KScale(b + 4, s);
    const float scale = d * Code(c.scale), min = dmin * Code(c.min);
    const uint8_t* q = b + 16 + s / 2 * 32;
    for (int i = 0; i < 32; ++i) y[32 * s + i] = scale * Code(s % 2 == 0 ? q[i] & 15 : q[i] >> 4) - min;
  }
}

void Q6_K(const uint8_t* b, float* y) {  // 128 bytes of low 4 bits, 64 of high 2 bits, 16 signed scales, d
  const float d = Half(b + 208);
  for (int i = 0; i < 256; ++i) y[i] = d * Code(static_cast<int8_t>(b[192 + i / 16])) * Code(Q6KCode(b, i));
}

using DequantiseBlock = void (*)(const uint8_t*, float*);
DequantiseBlock BlockFunction(DType type) {
  switch (type) {
    case DType::kQ8_0: return Q8_0;
    case DType::kQ4_0: return Q4_0;
    case DType::kQ4_1: return Q4_1;
    case DType::kQ4_K: return Q4_K;
    case DType::kQ6_K: return Q6_K;
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kNf4: break;
  }
  return nullptr;
}

// --- Finiteness ----------------------------------------------------------------------------------

// NaN and infinity are exactly the values whose exponent bits are all ones. The inner loop has a fixed length
// and no exit, so that the compiler vectorises it; the copy gives it aligned words.
template <class Word>
bool WordsFinite(const void* data, int64_t count, Word exponent_mask) {
  constexpr int64_t kChunk = 1024;
  std::array<Word, kChunk> words{};  // zeros are finite: they pad the last chunk
  for (int64_t start = 0; start < count; start += kChunk) {
    const int64_t n = std::min(kChunk, count - start);
    std::memcpy(words.data(), static_cast<const uint8_t*>(data) + start * static_cast<int64_t>(sizeof(Word)),
                static_cast<size_t>(n) * sizeof(Word));
    Word bad = 0;
    for (Word word : words) bad = static_cast<Word>(bad | static_cast<Word>((word & exponent_mask) == exponent_mask));
    if (bad) return false;
  }
  return true;
}

bool FloatsFinite(const void* data, int64_t count) { return WordsFinite<uint32_t>(data, count, 0x7F800000u); }

// A finite F16 scale times any code is far from overflow, so the scales say it all.
bool BlocksFinite(const TensorView& view, std::initializer_list<int64_t> half_offsets) {
  const BlockShape shape = BlockOf(view.dtype);
  const auto* data = static_cast<const uint8_t*>(view.data);
  for (int64_t b = 0; b < view.rows * view.cols / shape.weights; ++b) {
    for (const int64_t offset : half_offsets) {
      if ((Load<uint16_t>(data + b * shape.bytes + offset, 0) & 0x7C00) == 0x7C00) return false;
    }
  }
  return true;
}

bool Nf4Finite(const TensorView& view) {
  const Nf4Scales& s = *view.nf4;
  float largest = 0.0f;
  for (const float t : s.table) largest = std::max(largest, std::fabs(t));  // NaN is caught by FloatsFinite
  if (!FloatsFinite(s.table, 16) || !FloatsFinite(s.nested_table, 256) || !std::isfinite(s.nested_offset)) return false;
  for (int64_t i = 0; i < Nf4BlockCount(view); ++i) {
    if (!std::isfinite(Nf4AbsMax(s, i) * largest)) return false;
  }
  return true;
}

}  // namespace

ScaleAndMin Q4KScale(const uint8_t* packed, int s) {
  if (s < 4) return {static_cast<uint8_t>(packed[s] & 63), static_cast<uint8_t>(packed[s + 4] & 63)};
  return {static_cast<uint8_t>((packed[s + 4] & 15) | (packed[s - 4] >> 6) << 4),
          static_cast<uint8_t>((packed[s + 4] >> 4) | (packed[s] >> 6) << 4)};
}

int32_t Q6KCode(const uint8_t* block, int i) {
  const int half = i / 128, j = i % 128;  // of a half: 64 bytes low, 32 high
  const int low = block[64 * half + j % 64] >> (j / 64 * 4) & 15;
  const int high = block[128 + 32 * half + j % 32] >> (j / 32 * 2) & 3;
  return (low | high << 4) - 32;
}

BlockShape BlockOf(DType type) {
  switch (type) {
    case DType::kQ8_0: return {32, 34};
    case DType::kQ4_0: return {32, 18};
    case DType::kQ4_1: return {32, 20};
    case DType::kQ4_K: return {256, 144};
    case DType::kQ6_K: return {256, 210};
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kNf4: break;
  }
  return {};
}

const char* DTypeName(DType type) {
  switch (type) {
    case DType::kF32: return "f32";
    case DType::kF16: return "f16";
    case DType::kBF16: return "bf16";
    case DType::kNf4: return "nf4";
    case DType::kQ8_0: return "q8_0";
    case DType::kQ4_0: return "q4_0";
    case DType::kQ4_1: return "q4_1";
    case DType::kQ4_K: return "q4_k";
    case DType::kQ6_K: return "q6_k";
  }
  return "?";
}

float Nf4AbsMax(const Nf4Scales& s, int64_t i) {
  if (s.absmax_codes == nullptr) return Load<float>(s.absmax, i);
  return s.nested_table[s.absmax_codes[i]] * Load<float>(s.nested_absmax, i / s.nested_block) + s.nested_offset;
}

int64_t Nf4BlockCount(const TensorView& view) { return (view.rows * view.cols + view.nf4->block - 1) / view.nf4->block; }

void DequantiseRow(const TensorView& view, int64_t row, float* out) {
  const auto* data = static_cast<const uint8_t*>(view.data);
  const int64_t first = row * view.cols;
  switch (view.dtype) {
    case DType::kF32: std::memcpy(out, data + 4 * first, static_cast<size_t>(4 * view.cols)); return;
    case DType::kF16:
      for (int64_t i = 0; i < view.cols; ++i) out[i] = FromF16(Load<uint16_t>(data, first + i));
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < view.cols; ++i) out[i] = FromBf16(Load<uint16_t>(data, first + i));
      return;
    case DType::kNf4:
      for (int64_t i = first; i < first + view.cols; ++i) {
        const int code = i % 2 == 0 ? data[i / 2] >> 4 : data[i / 2] & 15;
        out[i - first] = view.nf4->table[code] * Nf4AbsMax(*view.nf4, i / view.nf4->block);
      }
      return;
    case DType::kQ8_0:
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ4_K:
    case DType::kQ6_K: break;
  }
  const BlockShape shape = BlockOf(view.dtype);
  const DequantiseBlock block = BlockFunction(view.dtype);
  for (int64_t i = 0; i < view.cols; i += shape.weights) block(data + (first + i) / shape.weights * shape.bytes, out + i);
}

bool AllFinite(const TensorView& view) {
  const int64_t count = view.rows * view.cols;
  switch (view.dtype) {
    case DType::kF32: return FloatsFinite(view.data, count);
    case DType::kF16: return WordsFinite<uint16_t>(view.data, count, uint16_t{0x7C00});
    case DType::kBF16: return WordsFinite<uint16_t>(view.data, count, uint16_t{0x7F80});
    case DType::kNf4: return Nf4Finite(view);
    case DType::kQ8_0:
    case DType::kQ4_0: return BlocksFinite(view, {0});
    case DType::kQ4_1:
    case DType::kQ4_K: return BlocksFinite(view, {0, 2});
    case DType::kQ6_K: return BlocksFinite(view, {208});
  }
  return false;
}

int64_t FormatBytes(const TensorView& view) {
  const int64_t count = view.rows * view.cols;
  if (IsPlain(view.dtype)) return count * ElementBytes(view.dtype);
  if (view.dtype != DType::kNf4) return count / BlockOf(view.dtype).weights * BlockOf(view.dtype).bytes;
  const int64_t blocks = Nf4BlockCount(view), codes = (count + 1) / 2;
  if (view.nf4->absmax_codes == nullptr) return codes + 4 * blocks;
  return codes + blocks + 4 * ((blocks + view.nf4->nested_block - 1) / view.nf4->nested_block);
}

}  // namespace rum
