// Planes + zstd: the lossless codec of parked state. Of numbers like K and V only the exponents compress, so they are put together.
#pragma once
#include <cstdint>
#include <span>

#include "core/status.h"

namespace rum {

// Stored: element bytes u8 | one zstd frame (level 1) of the planes. Each number of 2 or 4 bytes is rotated left by one bit, which makes
// the exponent of a bf16 or f32 its first byte and the sign the last bit; then all first bytes, all second ones, ... from the most
// significant; bytes after the last whole number follow as they are. Numbers of 1 byte: no rotation.
bool IsElementBytes(int element_bytes);  // 1, 2 or 4

// Of the stored form of raw_bytes, at most.
int64_t PlanesZstdBound(int64_t raw_bytes);
// Whether stored_bytes could decode to raw_bytes: what a reader asks before it allocates them.
bool PlanesZstdPlausible(int64_t stored_bytes, int64_t raw_bytes);

// planes: scratch of raw.size() bytes. Gives the stored bytes, at most PlanesZstdBound at `to`; ERR_MEMORY.
Expected<int64_t> EncodePlanesZstd(std::span<const uint8_t> raw, int element_bytes, uint8_t* planes, uint8_t* to);
// false: `stored` is not a stored form of exactly raw_bytes. planes: scratch of raw_bytes; `to` must not overlap `stored` or `planes`.
bool DecodePlanesZstd(std::span<const uint8_t> stored, int64_t raw_bytes, uint8_t* planes, uint8_t* to);

}  // namespace rum
