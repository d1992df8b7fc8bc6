#include "model/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>

#include "core/limits.h"
#include "model/json.h"

namespace rum {

static_assert(std::endian::native == std::endian::little, "safetensors is little-endian and tensors are used in place");

namespace dom = simdjson::dom;

namespace {

constexpr int64_t kLengthBytes = 8;

struct DTypeBits {
  std::string_view name;
  int64_t bits;
};
// All types the format knows, whether or not the engine computes with them.
constexpr DTypeBits kDTypeBits[] = {
    {"F32", 32}, {"F16", 16}, {"BF16", 16}, {"F64", 64}, {"I8", 8}, {"U8", 8}, {"I16", 16}, {"U16", 16}, {"I32", 32}, {"U32", 32},
    {"I64", 64}, {"U64", 64}, {"BOOL", 8}, {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
    {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4}, {"C64", 64},
};

// nullopt: a type newer than this engine; its tensors can be walked over but their length cannot be verified.
std::optional<int64_t> BitsOf(std::string_view dtype) {
  for (const DTypeBits& known : kDTypeBits) {
    if (known.name == dtype) return known.bits;
  }
  return std::nullopt;
}

Status Refuse(std::string_view where, const std::string& problem) {
  return Error(kErrModelFile, std::string(where) + ": " + problem + "; the file is damaged, download it again");
}

// A JSON array of at most `count_max` whole numbers >= 0. Doubles are refused, even 4.0.
std::optional<std::vector<int64_t>> Counts(dom::element value, int64_t count_max) {
  dom::array array;
  if (value.get_array().get(array)) return std::nullopt;
  std::vector<int64_t> counts;
  for (dom::element item : array) {
    int64_t count = 0;
    if (static_cast<int64_t>(counts.size()) == count_max || item.get_int64().get(count) || count < 0) return std::nullopt;
    counts.push_back(count);
  }
  return counts;
}

// The bytes a tensor of this shape takes; nullopt if a product overflows or the bits do not fill whole bytes.
std::optional<int64_t> ShapeBytes(const std::vector<int64_t>& shape, int64_t bits) {
  int64_t total_bits = bits;
  for (int64_t dim : shape) {
    if (!CheckedMul(total_bits, dim, &total_bits)) return std::nullopt;
  }
  return total_bits % 8 == 0 ? std::optional(total_bits / 8) : std::nullopt;
}

// One header entry; offsets are made relative to the file. data_bytes is the length of the data section.
Expected<TensorEntry> ParseEntry(dom::key_value_pair field, int64_t data_begin, int64_t data_bytes, std::string_view where) {
  auto refuse = [&](const std::string& problem) { return Refuse(where, "tensor " + Quote(field.key) + " " + problem); };
  dom::object object;
  if (field.value.get_object().get(object)) return refuse("is not described by an object");

  std::string_view dtype;
  std::optional<std::vector<int64_t>> shape, offsets;
  int64_t field_count = 0;
  for (dom::key_value_pair part : object) {
    ++field_count;
    if (part.key == "dtype") {
      if (part.value.get_string().get(dtype)) return refuse("has a dtype that is not a string");
    } else if (part.key == "shape") {
      shape = Counts(part.value, kTensorRankMax);
      if (!shape) return refuse("has a shape that is not a list of at most 8 whole numbers");
    } else if (part.key == "data_offsets") {
      offsets = Counts(part.value, 2);
      if (!offsets || offsets->size() != 2) return refuse("has data_offsets that are not two whole numbers");
    } else {
      return refuse("has an unknown field " + Quote(part.key));
    }
  }
  // Three fields seen and each of the three set: none was missing and none came twice.
  if (field_count != 3 || dtype.empty() || !shape || !offsets) return refuse("needs dtype, shape and data_offsets, each once");

  const int64_t begin = (*offsets)[0], end = (*offsets)[1];
  if (begin > end || end > data_bytes) {
    return refuse("has data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) + "] outside the " +
                  std::to_string(data_bytes) + " bytes of data");
  }
  if (auto bits = BitsOf(dtype)) {
    auto bytes = ShapeBytes(*shape, *bits);
    if (!bytes) return refuse("has a shape whose size cannot be represented");
    if (*bytes != end - begin) {
      return refuse("takes " + std::to_string(*bytes) + " bytes by its shape but " + std::to_string(end - begin) +
                    " by its data_offsets");
    }
  }
  return TensorEntry{std::string(field.key), std::string(dtype), std::move(*shape), data_begin + begin, data_begin + end};
}

// The format's `__metadata__`: strings by string. Not used, but a header that breaks the rule is not a safetensors header.
Status CheckMetadata(dom::element value, std::string_view where) {
  dom::object object;
  if (value.get_object().get(object)) return Refuse(where, "__metadata__ is not an object");
  for (dom::key_value_pair field : object) {
    if (!field.value.is_string()) return Refuse(where, "__metadata__ " + Quote(field.key) + " is not a string");
  }
  return RefuseDuplicateKeys(object, kErrModelFile, std::string(where) + ": __metadata__");
}

// Every byte of the data section belongs to exactly one tensor.
Status CheckCoverage(const std::vector<TensorEntry>& tensors, int64_t data_begin, int64_t file_bytes, std::string_view where) {
  std::vector<const TensorEntry*> by_offset;
  by_offset.reserve(tensors.size());
  for (const TensorEntry& tensor : tensors) by_offset.push_back(&tensor);
  std::sort(by_offset.begin(), by_offset.end(), [](const TensorEntry* a, const TensorEntry* b) {
    return a->begin != b->begin ? a->begin < b->begin : a->end < b->end;
  });
  int64_t covered = data_begin;
  for (const TensorEntry* tensor : by_offset) {
    if (tensor->begin < covered) return Refuse(where, "tensor " + Quote(tensor->name) + " overlaps another one");
    if (tensor->begin > covered) return Refuse(where, "there is a hole before tensor " + Quote(tensor->name));
    covered = tensor->end;
  }
  if (covered != file_bytes) {
    return Refuse(where, std::to_string(file_bytes - covered) + " bytes at the end belong to no tensor");
  }
  return Status::Ok();
}

}  // namespace

Expected<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path, int64_t bytes_max) {
  auto refuse = [&](const std::string& problem) { return Error(kErrModelFile, path + ": " + problem); };
  // O_NONBLOCK: opening a FIFO must not wait for a writer; it is refused below.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return refuse(std::string("cannot be opened: ") + std::strerror(errno));

  struct stat info {};
  const int stat_errno = fstat(fd, &info) == 0 ? 0 : errno;
  std::string problem;
  if (stat_errno != 0) problem = std::string("cannot be read: ") + std::strerror(stat_errno);
  else if (!S_ISREG(info.st_mode)) problem = "is not a regular file";
  else if (info.st_size == 0) problem = "is empty";
  else if (info.st_size > bytes_max) problem = "has more than the allowed " + std::to_string(bytes_max) + " bytes";
  if (!problem.empty()) {
    close(fd);
    return refuse(problem);
  }

  const size_t size = static_cast<size_t>(info.st_size);
  void* data = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  const int map_errno = errno;
  close(fd);  // the mapping keeps the file
  if (data == MAP_FAILED) return refuse(std::string("cannot be mapped: ") + std::strerror(map_errno));
  return std::shared_ptr<const MappedFile>(std::make_shared<MappedFile>(static_cast<const uint8_t*>(data), size));
}

MappedFile::~MappedFile() { munmap(const_cast<uint8_t*>(data_), size_); }

const TensorEntry* SafetensorsHeader::Find(std::string_view name) const {
  auto it = std::lower_bound(tensors.begin(), tensors.end(), name,
                             [](const TensorEntry& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return it != tensors.end() && it->name == name ? &*it : nullptr;
}

Expected<SafetensorsHeader> ParseSafetensorsHeader(std::span<const uint8_t> file, std::string_view where) {
  const int64_t file_bytes = static_cast<int64_t>(file.size());
  if (file_bytes < kLengthBytes) return Refuse(where, "shorter than a safetensors header");
  uint64_t stated = 0;
  std::memcpy(&stated, file.data(), sizeof(stated));
  if (stated > static_cast<uint64_t>(kSafetensorsHeaderBytesMax)) {
    return Refuse(where, "states a header of " + std::to_string(stated) + " bytes, more than the format allows");
  }
  const int64_t header_bytes = static_cast<int64_t>(stated);
  if (header_bytes > file_bytes - kLengthBytes) {
    return Refuse(where, "states a header of " + std::to_string(stated) + " bytes but is shorter than that");
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, static_cast<size_t>(header_bytes));
  if (!text.starts_with('{')) return Refuse(where, "the header does not start with '{'");

  // Duplicate tensor names are duplicate keys, refused here.
  auto document = JsonDocument::Parse(text, kTensorJsonDepthMax, kErrModelFile, where);
  if (!document.ok()) return document.status();

  SafetensorsHeader header;
  const int64_t data_begin = kLengthBytes + header_bytes;
  for (dom::key_value_pair field : document->root()) {
    if (field.key == "__metadata__") {
      if (Status status = CheckMetadata(field.value, where); !status.ok()) return status;
      continue;
    }
    if (static_cast<int64_t>(header.tensors.size()) == kTensorsPerFileMax) return Refuse(where, "has too many tensors");
    auto entry = ParseEntry(field, data_begin, file_bytes - data_begin, where);
    if (!entry.ok()) return entry.status();
    header.tensors.push_back(std::move(*entry));
  }
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; });
  if (Status status = CheckCoverage(header.tensors, data_begin, file_bytes, where); !status.ok()) return status;
  return header;
}

}  // namespace rum
