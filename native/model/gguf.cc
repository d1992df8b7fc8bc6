#include "model/gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/limits.h"
#include "model/json.h"

namespace rum {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr int64_t kDefaultAlignment = 32;

// ggml's types by number: `bytes` for each block of `block` elements along a row.
struct GgmlType {
  uint32_t number;
  const char* name;
  int64_t block, bytes;
};
constexpr GgmlType kGgmlTypes[] = {
    {0, "F32", 1, 4},        {1, "F16", 1, 2},        {2, "Q4_0", 32, 18},     {3, "Q4_1", 32, 20},      {6, "Q5_0", 32, 22},
    {7, "Q5_1", 32, 24},     {8, "Q8_0", 32, 34},     {9, "Q8_1", 32, 40},     {10, "Q2_K", 256, 84},    {11, "Q3_K", 256, 110},
    {12, "Q4_K", 256, 144},  {13, "Q5_K", 256, 176},  {14, "Q6_K", 256, 210},  {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74}, {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50}, {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},  {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},       {25, "I16", 1, 2},        {26, "I32", 1, 4},
    {27, "I64", 1, 8},       {28, "F64", 1, 8},       {29, "IQ1_M", 256, 56},  {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},  {39, "MXFP4", 32, 17},
};

// Bytes of one value of a fixed size; 0: string, array or no type of the format.
int64_t SizeOf(GgufType type) {
  switch (type) {
    case GgufType::kU8: case GgufType::kI8: case GgufType::kBool: return 1;
    case GgufType::kU16: case GgufType::kI16: return 2;
    case GgufType::kU32: case GgufType::kI32: case GgufType::kF32: return 4;
    case GgufType::kU64: case GgufType::kI64: case GgufType::kF64: return 8;
    case GgufType::kString: case GgufType::kArray: return 0;
  }
  return 0;
}

Status Refuse(std::string_view where, const std::string& problem) {
  return Error(kErrModelFile, std::string(where) + ": " + problem + "; the file is damaged, download it again");
}

template <class T>
T Load(const uint8_t* data) {
  T value;
  std::memcpy(&value, data, sizeof(T));
  return value;
}

// Reads from the front; false, and nothing taken, when less is left.
class Cursor {
 public:
  explicit Cursor(std::span<const uint8_t> file) : file_(file) {}

  template <class T>
  bool Read(T* value) {
    std::span<const uint8_t> bytes;
    if (!Take(sizeof(T), &bytes)) return false;
    *value = Load<T>(bytes.data());
    return true;
  }
  bool Take(uint64_t count, std::span<const uint8_t>* bytes) {
    if (count > file_.size() - at_) return false;
    *bytes = file_.subspan(at_, static_cast<size_t>(count));
    at_ += static_cast<size_t>(count);
    return true;
  }
  // u64 length, then as many bytes.
  bool String(int64_t bytes_max, std::string_view* text) {
    uint64_t length = 0;
    std::span<const uint8_t> bytes;
    if (!Read(&length) || length > static_cast<uint64_t>(bytes_max) || !Take(length, &bytes)) return false;
    *text = {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    return true;
  }
  int64_t at() const { return static_cast<int64_t>(at_); }

 private:
  std::span<const uint8_t> file_;
  size_t at_ = 0;
};

// Moves over one value of `type`; "" or what is wrong with it. `value` (optional) takes an array's element type and count.
std::string SkipValue(Cursor& in, GgufType type, int64_t depth, GgufValue* value) {
  if (type == GgufType::kString) {
    std::string_view text;
    return in.String(kGgufStringBytesMax, &text) ? "" : "has a string that is too long or ends outside the file";
  }
  if (type != GgufType::kArray) {
    const int64_t size = SizeOf(type);
    std::span<const uint8_t> bytes;
    if (size == 0) return "has the unknown type " + std::to_string(static_cast<uint32_t>(type));
    if (!in.Take(static_cast<uint64_t>(size), &bytes)) return "ends outside the file";
    if (type == GgufType::kBool && bytes[0] > 1) return "is a boolean that is neither 0 nor 1";
    return "";
  }
  if (depth == kGgufArrayDepthMax) return "nests arrays too deep";
  uint32_t element_number = 0;
  uint64_t count = 0;
  if (!in.Read(&element_number) || !in.Read(&count)) return "ends outside the file";
  if (count > static_cast<uint64_t>(kGgufArrayMax)) return "has " + std::to_string(count) + " elements";
  const GgufType element = static_cast<GgufType>(element_number);
  if (value) {
    value->element = element;
    value->count = static_cast<int64_t>(count);
  }
  for (uint64_t i = 0; i < count; ++i) {
    if (std::string problem = SkipValue(in, element, depth + 1, nullptr); !problem.empty()) return problem;
  }
  return "";
}

Expected<GgufValue> ParseValue(Cursor& in, std::span<const uint8_t> file, std::string_view where) {
  GgufValue value;
  uint32_t number = 0;
  if (!in.String(kGgufKeyBytesMax, &value.key) || value.key.empty()) return Refuse(where, "a metadata key is too long, empty or cut off");
  if (!in.Read(&number)) return Refuse(where, "metadata " + Quote(value.key) + " ends outside the file");
  value.type = static_cast<GgufType>(number);
  const int64_t begin = in.at();
  if (std::string problem = SkipValue(in, value.type, 0, &value); !problem.empty()) {
    return Refuse(where, "metadata " + Quote(value.key) + " " + problem);
  }
  // Before the payload: a string's length (u64), an array's element type and count (u32, u64).
  const int64_t prefix = value.type == GgufType::kString ? 8 : value.type == GgufType::kArray ? 12 : 0;
  value.payload = file.subspan(static_cast<size_t>(begin + prefix), static_cast<size_t>(in.at() - begin - prefix));
  return value;
}

const GgmlType* FindType(uint32_t number) {
  const auto known = std::ranges::find(kGgmlTypes, number, &GgmlType::number);
  return known == std::end(kGgmlTypes) ? nullptr : known;
}

// One tensor; begin is relative to the data section until that is known.
Expected<TensorEntry> ParseTensor(Cursor& in, std::string_view where) {
  std::string_view name;
  if (!in.String(kGgufTensorNameBytesMax, &name) || name.empty()) return Refuse(where, "a tensor's name is too long, empty or cut off");
  const auto refuse = [&](const std::string& problem) { return Refuse(where, "tensor " + Quote(name) + " " + problem); };
  uint32_t rank = 0, type_number = 0;
  uint64_t offset = 0;
  if (!in.Read(&rank)) return refuse("ends outside the file");
  if (rank > static_cast<uint32_t>(kGgufTensorRankMax)) return refuse("has " + std::to_string(rank) + " dimensions");
  TensorEntry entry;
  entry.name = name;
  int64_t elements = 1;
  for (uint32_t i = 0; i < rank; ++i) {
    uint64_t dim = 0;
    if (!in.Read(&dim)) return refuse("ends outside the file");
    if (dim > static_cast<uint64_t>(INT64_MAX) || !CheckedMul(elements, static_cast<int64_t>(dim), &elements)) {
      return refuse("has a shape whose size cannot be represented");
    }
    entry.shape.push_back(static_cast<int64_t>(dim));
  }
  if (!in.Read(&type_number) || !in.Read(&offset)) return refuse("ends outside the file");
  const int64_t row = entry.shape.empty() ? 1 : entry.shape.front();  // ggml counts dimensions from the innermost
  std::ranges::reverse(entry.shape);
  int64_t bytes = 0;
  if (const GgmlType* type = FindType(type_number)) {
    entry.dtype = type->name;
    if (row % type->block != 0) return refuse("has rows that are not whole blocks of " + std::string(type->name));
    if (!CheckedMul(elements / type->block, type->bytes, &bytes)) return refuse("has a shape whose size cannot be represented");
  } else {
    entry.dtype = "type " + std::to_string(type_number);
  }
  if (offset > static_cast<uint64_t>(INT64_MAX)) return refuse("has an offset outside the file");
  entry.begin = static_cast<int64_t>(offset);
  if (!CheckedAdd(entry.begin, bytes, &entry.end)) return refuse("ends outside the file");
  return entry;
}

// Makes the offsets relative to the file and checks that tensors lie in it, aligned and apart.
Status PlaceTensors(std::vector<TensorEntry>& tensors, int64_t data_begin, int64_t alignment, int64_t file_bytes, std::string_view where) {
  for (TensorEntry& tensor : tensors) {
    if (tensor.begin % alignment != 0) return Refuse(where, "tensor " + Quote(tensor.name) + " is not aligned");
    if (!CheckedAdd(tensor.begin, data_begin, &tensor.begin) || !CheckedAdd(tensor.end, data_begin, &tensor.end) ||
        tensor.end > file_bytes) {
      return Refuse(where, "tensor " + Quote(tensor.name) + " lies outside the " + std::to_string(file_bytes) + " bytes of the file");
    }
  }
  std::vector<const TensorEntry*> by_offset;
  by_offset.reserve(tensors.size());
  for (const TensorEntry& tensor : tensors) by_offset.push_back(&tensor);
  std::ranges::sort(by_offset, {}, [](const TensorEntry* t) { return std::pair(t->begin, t->end); });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    if (by_offset[i]->begin < by_offset[i - 1]->end) return Refuse(where, "tensor " + Quote(by_offset[i]->name) + " overlaps another one");
  }
  return Status::Ok();
}

// Sorted by `name`; the name that comes twice, or "".
template <class T, class Name>
std::string SortAndFindTwice(std::vector<T>& items, Name name) {
  std::ranges::sort(items, {}, name);
  const auto twice = std::ranges::adjacent_find(items, {}, name);
  return twice == items.end() ? "" : Quote(std::string_view((*twice).*name));
}

std::optional<int64_t> IntegerOf(const GgufValue& value) {
  const uint8_t* data = value.payload.data();
  switch (value.type) {
    case GgufType::kU8: return Load<uint8_t>(data);
    case GgufType::kI8: return Load<int8_t>(data);
    case GgufType::kU16: return Load<uint16_t>(data);
    case GgufType::kI16: return Load<int16_t>(data);
    case GgufType::kU32: return Load<uint32_t>(data);
    case GgufType::kI32: return Load<int32_t>(data);
    case GgufType::kI64: return Load<int64_t>(data);
    case GgufType::kU64: {
      const uint64_t number = Load<uint64_t>(data);
      return number <= static_cast<uint64_t>(INT64_MAX) ? std::optional(static_cast<int64_t>(number)) : std::nullopt;
    }
    default: return std::nullopt;
  }
}

bool IsUtf8(std::string_view text) { return simdjson::validate_utf8(text.data(), text.size()); }

}  // namespace

const GgufValue* GgufHeader::Find(std::string_view key) const {
  const auto it = std::ranges::lower_bound(metadata, key, {}, &GgufValue::key);
  return it != metadata.end() && it->key == key ? &*it : nullptr;
}

const TensorEntry* GgufHeader::FindTensor(std::string_view name) const {
  const auto it = std::ranges::lower_bound(tensors, name, {}, [](const TensorEntry& t) { return std::string_view(t.name); });
  return it != tensors.end() && it->name == name ? &*it : nullptr;
}

Expected<GgufHeader> ParseGgufHeader(std::span<const uint8_t> file, std::string_view where) {
  Cursor in(file);
  uint32_t magic = 0, version = 0;
  uint64_t tensor_count = 0, metadata_count = 0;
  if (!in.Read(&magic) || magic != kMagic) return Refuse(where, "does not begin as a GGUF file");
  if (!in.Read(&version) || !in.Read(&tensor_count) || !in.Read(&metadata_count)) return Refuse(where, "shorter than a GGUF header");
  if (version != 2 && version != 3) {
    const bool swapped = (version & 0xFFFF) == 0;
    return Error(kErrModelFile, std::string(where) + (swapped ? ": is a big-endian GGUF file" : ": has GGUF version " + std::to_string(version)) +
                                    "; supported: versions 2 and 3, little-endian; convert the model again");
  }
  if (metadata_count > static_cast<uint64_t>(kGgufMetadataMax)) return Refuse(where, "has too many metadata keys");
  if (tensor_count > static_cast<uint64_t>(kTensorsPerFileMax)) return Refuse(where, "has too many tensors");

  GgufHeader header;
  for (uint64_t i = 0; i < metadata_count; ++i) {
    auto value = ParseValue(in, file, where);
    if (!value.ok()) return value.status();
    header.metadata.push_back(*value);
  }
  for (uint64_t i = 0; i < tensor_count; ++i) {
    auto tensor = ParseTensor(in, where);
    if (!tensor.ok()) return tensor.status();
    header.tensors.push_back(std::move(*tensor));
  }
  if (std::string twice = SortAndFindTwice(header.metadata, &GgufValue::key); !twice.empty()) {
    return Refuse(where, "metadata key " + twice + " comes twice");
  }
  if (std::string twice = SortAndFindTwice(header.tensors, &TensorEntry::name); !twice.empty()) {
    return Refuse(where, "tensor " + twice + " comes twice");
  }

  int64_t alignment = kDefaultAlignment;
  if (const GgufValue* stated = header.Find("general.alignment")) alignment = IntegerOf(*stated).value_or(0);
  if (alignment < 1 || alignment > kGgufAlignmentMax || (alignment & (alignment - 1)) != 0) {
    return Refuse(where, "general.alignment is not a power of two up to " + std::to_string(kGgufAlignmentMax));
  }
  const int64_t data_begin = (in.at() + alignment - 1) / alignment * alignment;
  if (Status status = PlaceTensors(header.tensors, data_begin, alignment, static_cast<int64_t>(file.size()), where); !status.ok()) {
    return status;
  }
  return header;
}

void GgufReader::Fail(const std::string& key, const std::string& problem) {
  if (status_.ok()) status_ = Error(kErrModelConfig, where_ + ": " + key + " " + problem);
}

const GgufValue* GgufReader::Get(const std::string& key, bool required) {
  if (!status_.ok()) return nullptr;
  const GgufValue* value = header_.Find(key);
  if (!value && required) Fail(key, "is missing");
  return value;
}

int64_t GgufReader::Int(const std::string& key, int64_t min, int64_t max, std::optional<int64_t> fallback) {
  const GgufValue* value = Get(key, !fallback);
  if (!value) return fallback.value_or(min);
  const auto number = IntegerOf(*value);
  if (number && *number >= min && *number <= max) return *number;
  Fail(key, "must be an integer from " + std::to_string(min) + " to " + std::to_string(max) +
                (number ? ", found " + std::to_string(*number) : ""));
  return fallback.value_or(min);
}

double GgufReader::Number(const std::string& key, double min, double max, std::optional<double> fallback) {
  const GgufValue* value = Get(key, !fallback);
  if (!value) return fallback.value_or(min);
  double number = std::nan("");
  if (value->type == GgufType::kF32) number = static_cast<double>(Load<float>(value->payload.data()));
  if (value->type == GgufType::kF64) number = Load<double>(value->payload.data());
  if (const auto integer = IntegerOf(*value)) number = static_cast<double>(*integer);
  if (number >= min && number <= max) return number;
  Fail(key, "must be a number from " + std::to_string(min) + " to " + std::to_string(max) + ", found " + std::to_string(number));
  return fallback.value_or(min);
}

bool GgufReader::Bool(const std::string& key, bool fallback) {
  const GgufValue* value = Get(key, false);
  if (!value) return fallback;
  if (value->type != GgufType::kBool) Fail(key, "must be a boolean");
  return value->type == GgufType::kBool ? value->payload[0] == 1 : fallback;
}

std::string GgufReader::String(const std::string& key, std::optional<std::string> fallback) {
  const GgufValue* value = Get(key, !fallback);
  if (!value) return fallback.value_or("");
  const std::string_view text(reinterpret_cast<const char*>(value->payload.data()), value->payload.size());
  if (value->type == GgufType::kString && IsUtf8(text)) return std::string(text);
  Fail(key, "must be a string of UTF-8");
  return fallback.value_or("");
}

const GgufValue* GgufReader::GetArray(const std::string& key, GgufType element, const char* what) {
  const GgufValue* value = Get(key, false);
  if (!value || (value->type == GgufType::kArray && value->element == element)) return value;
  Fail(key, std::string("must be a list of ") + what);
  return nullptr;
}

std::vector<std::string_view> GgufReader::Strings(const std::string& key) {
  std::vector<std::string_view> texts;
  const GgufValue* value = GetArray(key, GgufType::kString, "strings");
  if (!value) return texts;
  Cursor in(value->payload);
  for (int64_t i = 0; i < value->count; ++i) {
    std::string_view text;
    if (!in.String(kGgufStringBytesMax, &text) || !IsUtf8(text)) {
      Fail(key, "must be strings of UTF-8; number " + std::to_string(i) + " is not");
      return {};
    }
    texts.push_back(text);
  }
  return texts;
}

std::vector<int32_t> GgufReader::Ints(const std::string& key) {
  const GgufValue* value = GetArray(key, GgufType::kI32, "32-bit integers");
  if (!value || value->count == 0) return {};
  std::vector<int32_t> numbers(static_cast<size_t>(value->count));
  std::memcpy(numbers.data(), value->payload.data(), value->payload.size());
  return numbers;
}

std::vector<float> GgufReader::Floats(const std::string& key) {
  const GgufValue* value = GetArray(key, GgufType::kF32, "32-bit floats");
  if (!value || value->count == 0) return {};
  std::vector<float> numbers(static_cast<size_t>(value->count));
  std::memcpy(numbers.data(), value->payload.data(), value->payload.size());
  return numbers;
}

}  // namespace rum
