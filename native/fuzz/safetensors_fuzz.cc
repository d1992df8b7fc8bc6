// Any bytes as a safetensors file: the header, and every U8 tensor as the codes of an NF4 matrix with what stands beside it.
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "model/nf4.h"
#include "model/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace rum;
  const auto header = ParseSafetensorsHeader({data, size}, "fuzz");
  if (!header.ok()) return 0;
  const TensorLookup find = [&](std::string_view name) -> std::optional<FoundTensor> {
    const TensorEntry* entry = (*header).Find(name);
    if (entry == nullptr) return std::nullopt;
    return FoundTensor{entry, data + entry->begin};
  };
  for (const TensorEntry& entry : (*header).tensors) {
    if (!IsPacked4Bit(find, entry.name, entry.dtype)) continue;
    for (const int64_t cols : {int64_t{1}, int64_t{64}, int64_t{96}}) {
      const int64_t rows = 2 * (entry.end - entry.begin) / cols;
      const auto matrix = OpenNf4(find, entry.name, rows, cols);
      if (!matrix.ok() || rows == 0) continue;
      std::vector<float> row(static_cast<size_t>(cols));
      DequantiseRow((*matrix).view, 0, row.data());
      DequantiseRow((*matrix).view, rows - 1, row.data());
    }
  }
  return 0;
}
