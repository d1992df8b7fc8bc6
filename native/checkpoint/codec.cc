#include "checkpoint/codec.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/little_endian.h"
#include "zstd/zstd.h"

namespace rum {
namespace {

constexpr int kLevel = 1;
constexpr int64_t kBlockNumbers = 4096;  // of one pass: what is read again for the next plane is still in L1

template <class T>
void SplitPlanes(const uint8_t* raw, int64_t numbers, uint8_t* planes) {
  for (int64_t begin = 0; begin < numbers; begin += kBlockNumbers) {
    const int64_t end = std::min(begin + kBlockNumbers, numbers);
    for (size_t plane = 0; plane < sizeof(T); ++plane) {
      const auto shift = static_cast<int>(8 * (sizeof(T) - 1 - plane));
      uint8_t* const to = planes + static_cast<int64_t>(plane) * numbers;
      for (int64_t i = begin; i < end; ++i) {
        to[i] = static_cast<uint8_t>(std::rotl(LoadAs<T>(raw + i * static_cast<int64_t>(sizeof(T))), 1) >> shift);
      }
    }
  }
}

template <class T>
void JoinPlanes(const uint8_t* planes, int64_t numbers, uint8_t* raw) {
  for (int64_t i = 0; i < numbers; ++i) {
    T value = 0;
    for (size_t plane = 0; plane < sizeof(T); ++plane) value = static_cast<T>((value << 8) | planes[static_cast<int64_t>(plane) * numbers + i]);
    StoreAs(raw + i * static_cast<int64_t>(sizeof(T)), std::rotr(value, 1));
  }
}

// What follows the last whole number.
void CopyRest(const uint8_t* from, int64_t bytes, int element_bytes, uint8_t* to) {
  const int64_t rest = bytes % element_bytes;
  std::memcpy(to + bytes - rest, from + bytes - rest, static_cast<size_t>(rest));
}

}  // namespace

bool IsElementBytes(int element_bytes) { return element_bytes == 1 || element_bytes == 2 || element_bytes == 4; }

int64_t PlanesZstdBound(int64_t raw_bytes) { return 1 + static_cast<int64_t>(ZSTD_compressBound(static_cast<size_t>(raw_bytes))); }

bool PlanesZstdPlausible(int64_t stored_bytes, int64_t raw_bytes) {
  constexpr int64_t kBlockBytesMin = 4, kBlockBytesMax = ZSTD_BLOCKSIZE_MAX;  // a block header and the byte that it repeats
  return raw_bytes > 0 && stored_bytes > 1 && raw_bytes <= stored_bytes / kBlockBytesMin * kBlockBytesMax;
}

Expected<int64_t> EncodePlanesZstd(std::span<const uint8_t> raw, int element_bytes, uint8_t* planes, uint8_t* to) {
  const auto raw_bytes = static_cast<int64_t>(raw.size());
  switch (element_bytes) {
    case 2: SplitPlanes<uint16_t>(raw.data(), raw_bytes / 2, planes); break;
    case 4: SplitPlanes<uint32_t>(raw.data(), raw_bytes / 4, planes); break;
    default: std::memcpy(planes, raw.data(), raw.size());
  }
  CopyRest(raw.data(), raw_bytes, element_bytes, planes);
  to[0] = static_cast<uint8_t>(element_bytes);
  const size_t bytes = ZSTD_compress(to + 1, static_cast<size_t>(PlanesZstdBound(raw_bytes) - 1), planes, raw.size(), kLevel);
  if (ZSTD_isError(bytes)) return Error(kErrMemory, std::string("zstd could not compress a frame: ") + ZSTD_getErrorName(bytes) + '.');
  return 1 + static_cast<int64_t>(bytes);
}

bool DecodePlanesZstd(std::span<const uint8_t> stored, int64_t raw_bytes, uint8_t* planes, uint8_t* to) {
  if (stored.size() < 2 || !IsElementBytes(stored[0])) return false;
  const int element_bytes = stored[0];
  const std::span<const uint8_t> frame = stored.subspan(1);
  const auto size = static_cast<size_t>(raw_bytes);
  // One frame, nothing after it, and it says how long its content is.
  if (ZSTD_findFrameCompressedSize(frame.data(), frame.size()) != frame.size()) return false;
  if (ZSTD_getFrameContentSize(frame.data(), frame.size()) != static_cast<unsigned long long>(raw_bytes)) return false;
  uint8_t* const decoded = element_bytes == 1 ? to : planes;
  if (ZSTD_decompress(decoded, size, frame.data(), frame.size()) != size) return false;
  if (element_bytes == 1) return true;
  if (element_bytes == 2) {
    JoinPlanes<uint16_t>(planes, raw_bytes / 2, to);
  } else {
    JoinPlanes<uint32_t>(planes, raw_bytes / 4, to);
  }
  CopyRest(planes, raw_bytes, element_bytes, to);
  return true;
}

}  // namespace rum
