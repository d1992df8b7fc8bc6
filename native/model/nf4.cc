#include "model/nf4.h"

#include <bit>
#include <cstring>
#include <limits>
#include <vector>

#include "core/limits.h"
#include "model/json.h"

namespace rum {

namespace dom = simdjson::dom;

namespace {

constexpr const char* kStateSuffix = ".quant_state.bitsandbytes__nf4";
constexpr const char* kFp4StateSuffix = ".quant_state.bitsandbytes__fp4";

Status Refuse(const std::string& name, const std::string& problem) { return Error(kErrModelTensor, "tensor " + name + problem); }

// What quant_state says of a matrix; the rest of it (dtype, nested_dtype) does not change a value.
struct QuantState {
  int32_t block = 0;
  int32_t nested_block = 0;  // 0: the scales are not quantised themselves
  float nested_offset = 0.0f;
};

int32_t BlockSize(FieldReader& in, std::string_view key) {
  const int64_t size = in.Int(key, kNf4BlockMin, kNf4BlockMax);
  if (in.status().ok() && !std::has_single_bit(static_cast<uint64_t>(size))) in.Fail(key, "must be a power of two");
  return static_cast<int32_t>(size);
}

Expected<QuantState> ParseState(const FoundTensor& found, const std::string& name, int64_t rows, int64_t cols) {
  const int64_t bytes = found.entry->end - found.entry->begin;
  if (found.entry->dtype != "U8" || bytes > kQuantStateBytesMax) {
    return Refuse(name, " must be at most " + std::to_string(kQuantStateBytesMax) + " bytes of JSON");
  }
  const std::string_view text(reinterpret_cast<const char*>(found.data), static_cast<size_t>(bytes));
  auto document = JsonDocument::Parse(text, kTensorJsonDepthMax, kErrModelTensor, name);
  if (!document.ok()) return document.status();
  FieldReader in(document->root(), kErrModelTensor, name);
  const std::string type = in.String("quant_type");
  if (type != "nf4") in.Fail("quant_type", "must be \"nf4\", found " + Quote(type));
  const std::vector<dom::element> shape = in.List("shape", 2);
  int64_t stated[2] = {-1, -1};
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i].get_int64().get(stated[i])) break;
  }
  if (stated[0] != rows || stated[1] != cols) {
    in.Fail("shape", "must be [" + std::to_string(rows) + ", " + std::to_string(cols) + "] by config.json");
  }
  QuantState state;
  state.block = BlockSize(in, "blocksize");
  if (in.Has("nested_blocksize")) {
    constexpr double kFloatMax = std::numeric_limits<float>::max();
    state.nested_block = BlockSize(in, "nested_blocksize");
    state.nested_offset = static_cast<float>(in.Number("nested_offset", -kFloatMax, kFloatMax));
    const std::string dtype = in.String("nested_dtype", "float32");
    if (dtype != "float32") in.Fail("nested_dtype", Quote(dtype) + " is not supported; supported: float32");
  }
  if (!in.status().ok()) return in.status();
  return state;
}

// The tensor beside the matrix, of one type and exactly `count` elements in one dimension.
Expected<const uint8_t*> FindPart(const TensorLookup& find, const std::string& name, const char* dtype, int64_t count) {
  const auto found = find(name);
  if (!found) return Refuse(name, " is missing; the NF4 checkpoint is not complete");
  if (found->entry->dtype != dtype || found->entry->shape != std::vector<int64_t>{count}) {
    return Refuse(name, " must be " + std::string(dtype) + " [" + std::to_string(count) + "] for its NF4 matrix");
  }
  return found->data;
}

Status ReadTable(const TensorLookup& find, const std::string& name, float* table, int64_t count) {
  auto data = FindPart(find, name, "F32", count);
  if (!data.ok()) return data.status();
  std::memcpy(table, *data, static_cast<size_t>(count) * sizeof(float));
  return Status::Ok();
}

Status ReadAbsMax(const TensorLookup& find, const std::string& name, const QuantState& state, int64_t blocks, Nf4Scales* scales) {
  if (state.nested_block == 0) {
    auto absmax = FindPart(find, name + ".absmax", "F32", blocks);
    if (!absmax.ok()) return absmax.status();
    scales->absmax = *absmax;
    return Status::Ok();
  }
  auto codes = FindPart(find, name + ".absmax", "U8", blocks);
  if (!codes.ok()) return codes.status();
  auto nested = FindPart(find, name + ".nested_absmax", "F32", (blocks + state.nested_block - 1) / state.nested_block);
  if (!nested.ok()) return nested.status();
  scales->absmax_codes = *codes;
  scales->nested_absmax = *nested;
  scales->nested_block = state.nested_block;
  scales->nested_offset = state.nested_offset;
  return ReadTable(find, name + ".nested_quant_map", scales->nested_table, 256);
}

}  // namespace

bool IsPacked4Bit(const TensorLookup& find, const std::string& name, std::string_view dtype) {
  return dtype == "U8" || find(name + kStateSuffix) || find(name + kFp4StateSuffix);
}

Expected<Nf4Matrix> OpenNf4(const TensorLookup& find, const std::string& name, int64_t rows, int64_t cols) {
  if (find(name + kFp4StateSuffix)) return Refuse(name, " is quantised to bitsandbytes FP4, which is not supported; supported: NF4");
  const auto state_tensor = find(name + kStateSuffix);
  if (!state_tensor) return Refuse(name, " has type \"U8\" but no " + std::string(kStateSuffix + 1) + " beside it; supported: NF4");
  auto state = ParseState(*state_tensor, name + kStateSuffix, rows, cols);
  if (!state.ok()) return state.status();

  // bnb_4bit_quant_storage packs the same bytes into other element types, so only their number counts.
  const FoundTensor packed = *find(name);
  const int64_t numel = rows * cols;  // checked: rows and cols are bounded by config.json's limits
  const int64_t bytes = packed.entry->end - packed.entry->begin;
  if (bytes != (numel + 1) / 2) {
    return Refuse(name, " must have " + std::to_string((numel + 1) / 2) + " bytes of NF4 codes, found " + std::to_string(bytes));
  }
  auto scales = std::make_shared<Nf4Scales>();
  scales->block = state->block;
  if (Status status = ReadTable(find, name + ".quant_map", scales->table, 16); !status.ok()) return status;
  const int64_t blocks = (numel + state->block - 1) / state->block;
  if (Status status = ReadAbsMax(find, name, *state, blocks, scales.get()); !status.ok()) return status;
  return Nf4Matrix{TensorView{DType::kNf4, rows, cols, packed.data, scales.get()}, scales};
}

}  // namespace rum
