// bitsandbytes NF4 in safetensors (METHOD.md 4): a matrix is its packed codes `P.weight` and up to five tensors beside it. What a
// matrix is follows from these tensors alone, never from config.json.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/status.h"
#include "model/quant.h"
#include "model/safetensors.h"
#include "model/weights.h"

namespace rum {

struct FoundTensor {
  const TensorEntry* entry;
  const uint8_t* data;
};
using TensorLookup = std::function<std::optional<FoundTensor>(std::string_view name)>;

struct Nf4Matrix {
  TensorView view;  // view.nf4 == scales.get()
  std::shared_ptr<const Nf4Scales> scales;
};

// Whether tensor `name`, stored as `dtype`, is packed codes or claims to be by what stands beside it.
bool IsPacked4Bit(const TensorLookup& find, const std::string& name, std::string_view dtype);

// ERR_MODEL_TENSOR unless every tensor is there with the size that [rows, cols] asks for. Finiteness of the scales is AllFinite's.
Expected<Nf4Matrix> OpenNf4(const TensorLookup& find, const std::string& name, int64_t rows, int64_t cols);

}  // namespace rum
