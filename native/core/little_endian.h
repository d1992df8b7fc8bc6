// Numbers in stored bytes: little-endian, at any address.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>

namespace rum {

static_assert(std::endian::native == std::endian::little, "stored numbers are copied as they lie in memory");

template <class T>
T LoadAs(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
void StoreAs(uint8_t* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

}  // namespace rum
