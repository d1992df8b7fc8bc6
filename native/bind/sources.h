// Stored objects, seals and keys as JS gives them. JS thread only.
#pragma once
#include <napi.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "bind/dto.h"
#include "checkpoint/object.h"
#include "run/run.h"

namespace rum::bind {

inline constexpr size_t kObjectsMax = 1 << 20;

std::string Hex(std::span<const uint8_t> bytes);

// Exactly bytes.size() bytes, written as lower-case hexadecimal digits.
void ReadHex(Reader& reader, const char* name, std::span<uint8_t> bytes);
template <size_t N>
std::array<uint8_t, N> FromHex(Reader& reader, const char* name) {
  std::array<uint8_t, N> bytes{};
  ReadHex(reader, name, bytes);
  return bytes;
}

// A seal with the keys it borrows.
struct OwnedSeal {
  std::optional<Key> digest_key, data_key;
  std::string context;
  Seal Borrow() const { return {digest_key ? &*digest_key : nullptr, data_key ? &*data_key : nullptr, context}; }
};
OwnedSeal ReadSeal(Reader& reader);
std::vector<Seal> Borrow(const std::vector<OwnedSeal>& seals);

// Calls read(reader) for each object of the array options[name].
template <class F>
void EachObject(Reader& reader, const char* name, size_t count_max, F&& read) {
  const Napi::Value value = reader.Object(name);
  if (!reader.status().ok()) return;
  if (!value.IsArray() || value.As<Napi::Array>().Length() > count_max) return reader.Fail(kErrInternal, name, "must be an array within bounds.");
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length() && reader.status().ok(); ++i) {
    Reader item(reader.PathOf(name) + "[" + std::to_string(i) + "]", array.Get(i));
    if (item.status().ok()) read(item);
    reader.Merge(item.status());
  }
}

// What objects are read from: chunks of JS memory, which `keep` holds until the task is gone.
struct Sources {
  std::vector<OwnedSeal> seals;
  std::vector<StoredObject> objects;
  Napi::ObjectReference keep;
};
// Views of the Uint8Arrays in the array `chunks`, which go into `kept`.
void ReadChunks(Reader& reader, std::vector<std::span<const uint8_t>>* chunks, Napi::Array& kept);
// `bytes`, `digest` and `chunks`; these go into `kept` too, an array of ours: the caller's may be changed while the object is read.
StoredObject ReadStoredObject(Reader& reader, Napi::Array& kept);
void ReadSources(Napi::Env env, Reader& reader, Sources* sources);

}  // namespace rum::bind
