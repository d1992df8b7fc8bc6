#include "bind/sources.h"

#include <algorithm>
#include <utility>

namespace rum::bind {
namespace {

constexpr size_t kChunksMax = 1 << 20;
constexpr size_t kContextBytesMax = 1024;

std::optional<Key> ReadKey(Reader& reader, const char* name) {
  if (reader.IsNull(name)) return std::nullopt;
  const std::vector<uint8_t> bytes = reader.Uint8Array(name, 32);
  if (bytes.size() != 32) {
    reader.Fail(kErrKey, name, "must have 32 bytes.");
    return std::nullopt;
  }
  // What an owner leaves of a key that it has disposed of: everyone knows this one.
  if (std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; })) {
    reader.Fail(kErrKey, name, "is all zeros: it was disposed of.");
    return std::nullopt;
  }
  Key key;
  std::copy(bytes.begin(), bytes.end(), key.begin());
  return key;
}

}  // namespace

std::string Hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (const uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

void ReadHex(Reader& reader, const char* name, std::span<uint8_t> bytes) {
  const std::string text = reader.String(name, 2 * bytes.size());
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  bool whole = text.size() == 2 * bytes.size();
  for (size_t i = 0; i < bytes.size() && whole; ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    whole = high >= 0 && low >= 0;
    bytes[i] = static_cast<uint8_t>(high * 16 + low);
  }
  if (!whole) reader.Fail(kErrOption, name, "must be " + std::to_string(2 * bytes.size()) + " lower-case hexadecimal digits.");
}

OwnedSeal ReadSeal(Reader& reader) {
  OwnedSeal seal;
  seal.digest_key = ReadKey(reader, "digestKey");
  seal.data_key = ReadKey(reader, "dataKey");
  seal.context = reader.String("context", kContextBytesMax);
  return seal;
}

std::vector<Seal> Borrow(const std::vector<OwnedSeal>& seals) {
  std::vector<Seal> out;
  for (const OwnedSeal& seal : seals) out.push_back(seal.Borrow());
  return out;
}

void ReadChunks(Reader& reader, std::vector<std::span<const uint8_t>>* chunks, Napi::Array& kept) {
  const Napi::Value value = reader.Object("chunks");
  if (!reader.status().ok()) return;
  if (!value.IsArray() || value.As<Napi::Array>().Length() > kChunksMax) return reader.Fail(kErrInternal, "chunks", "must be an array within bounds.");
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value chunk = array.Get(i);
    if (!chunk.IsTypedArray() || chunk.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
      return reader.Fail(kErrInternal, "chunks", "must hold Uint8Arrays.");
    }
    const auto bytes = chunk.As<Napi::Uint8Array>();
    if (bytes.ByteLength() == 0) continue;
    chunks->emplace_back(bytes.Data(), bytes.ByteLength());
    kept.Set(kept.Length(), bytes);
  }
}

StoredObject ReadStoredObject(Reader& reader, Napi::Array& kept) {
  StoredObject object;
  object.bytes = reader.Int("bytes", 0, int64_t{1} << 50);
  object.digest = FromHex<32>(reader, "digest");
  ReadChunks(reader, &object.chunks, kept);
  return object;
}

void ReadSources(Napi::Env env, Reader& reader, Sources* sources) {
  Napi::Array kept = Napi::Array::New(env);
  EachObject(reader, "seals", kObjectsMax, [&](Reader& seal) { sources->seals.push_back(ReadSeal(seal)); });
  EachObject(reader, "objects", kObjectsMax, [&](Reader& item) {
    StoredObject object = ReadStoredObject(item, kept);
    object.seal = static_cast<size_t>(item.Int("seal", 0, kObjectsMax));
    sources->objects.push_back(std::move(object));
  });
  if (reader.status().ok()) sources->keep = Napi::Persistent(kept.As<Napi::Object>());
}

}  // namespace rum::bind
