#include "model/kvzap.h"

#include <optional>
#include <span>
#include <vector>

#include "core/limits.h"
#include "model/assemble.h"
#include "model/json.h"
#include "model/quant.h"
#include "model/safetensors.h"

namespace rum {
namespace {

std::optional<DType> DTypeNamed(std::string_view name) {
  if (name == "F32") return DType::kF32;
  if (name == "F16") return DType::kF16;
  if (name == "BF16") return DType::kBF16;
  return std::nullopt;
}

// The tensors of one file, found and checked one by one; the first failure sticks.
struct Tensors {
  const std::string& path;
  std::span<const uint8_t> bytes;
  const SafetensorsHeader& header;
  Status status;

  TensorView Want(const std::string& name, const std::vector<int64_t>& shape) {
    if (!status.ok()) return {};
    const TensorEntry* entry = header.Find(name);
    const auto refuse = [&](const char* code, const std::string& problem) {
      status = Error(code, path + ": tensor " + name + " " + problem);
      return TensorView{};
    };
    if (entry == nullptr) return refuse(kErrModelTensor, "is missing; config.json and the weights do not belong together");
    const std::optional<DType> dtype = DTypeNamed(entry->dtype);
    if (!dtype) return refuse(kErrModelTensor, "has type " + Quote(entry->dtype) + "; supported: F32, F16, BF16");
    if (entry->shape != shape) return refuse(kErrModelTensor, "must have shape " + ShapeText(shape) + " by config.json, found " + ShapeText(entry->shape));
    const TensorView view{*dtype, shape.size() == 1 ? 1 : shape[0], shape.back(), bytes.data() + entry->begin};
    if (!AllFinite(view)) return refuse(kErrModelWeights, "has a NaN or infinite weight; the checkpoint is damaged");
    return view;
  }
};

Status CheckFits(const KvzapConfig& surrogate, const ModelConfig& model, const std::string& where) {
  const auto check = [&](const char* key, int32_t found, int32_t wanted, const char* what) {
    if (found == wanted) return Status::Ok();
    return Error(kErrModelConfig, where + ": " + key + " is " + std::to_string(found) + " but the model has " + std::to_string(wanted) + " " +
                                      what + "; give the surrogate that was made for this model");
  };
  if (Status s = check("input_dim", surrogate.input_dim, model.hidden_size, "hidden channels"); !s.ok()) return s;
  if (Status s = check("output_dim", surrogate.output_dim, model.num_kv_heads, "KV heads"); !s.ok()) return s;
  return check("n_modules", surrogate.modules, model.num_layers, "layers");
}

}  // namespace

Expected<KvzapConfig> ParseKvzapConfig(std::string_view text, const std::string& where) {
  auto document = JsonDocument::Parse(text, kConfigJsonDepthMax, kErrModelConfig, where);
  if (!document.ok()) return document.status();
  FieldReader in(document->root(), kErrModelConfig, where);
  const std::string model_type = in.String("model_type");
  if (in.status().ok() && model_type != "kvzap") in.Fail("model_type", "must be \"kvzap\", found " + Quote(model_type));
  KvzapConfig config;
  config.input_dim = static_cast<int32_t>(in.Int("input_dim", 1, kHiddenMax));
  config.output_dim = static_cast<int32_t>(in.Int("output_dim", 1, kHeadsMax));
  config.hidden_dim = static_cast<int32_t>(in.Int("hidden_dim", 1, kHiddenMax, 0));
  config.modules = static_cast<int32_t>(in.Int("n_modules", 1, kLayersMax));
  if (!in.status().ok()) return in.status();
  return config;
}

Status OpenKvzap(Model* model) {
  const std::string& directory = model->config.policy.surrogate;
  const std::string config_path = directory + "/config.json", weights_path = directory + "/model.safetensors";
  auto text = MappedFile::Open(config_path, kConfigBytesMax);
  if (!text.ok()) return text.status();
  auto config = ParseKvzapConfig((*text)->text(), config_path);
  if (!config.ok()) return config.status();
  if (Status status = CheckFits(*config, model->config, config_path); !status.ok()) return status;
  auto file = MappedFile::Open(weights_path, kWeightFileBytesMax);
  if (!file.ok()) return file.status();
  const std::span<const uint8_t> bytes = (*file)->bytes();
  auto header = ParseSafetensorsHeader(bytes, weights_path);
  if (!header.ok()) return header.status();

  Tensors tensors{weights_path, bytes, *header, {}};
  const int64_t in = config->input_dim, out = config->output_dim, width = config->hidden_dim;
  for (int32_t i = 0; i < config->modules && tensors.status.ok(); ++i) {
    const std::string name = "layers." + std::to_string(i) + ".";
    KvzapLayer layer;
    if (width > 0) {
      layer.in = tensors.Want(name + "0.weight", {width, in});
      layer.in_bias = tensors.Want(name + "0.bias", {width});
    }
    const std::string last = width > 0 ? name + "2." : name;
    layer.out = tensors.Want(last + "weight", {out, width > 0 ? width : in});
    layer.out_bias = tensors.Want(last + "bias", {out});
    model->kvzap.push_back(layer);
  }
  if (!tensors.status.ok()) return tensors.status;
  model->files.push_back(*file);
  model->file_bytes += static_cast<int64_t>(bytes.size());
  return Status::Ok();
}

}  // namespace rum
