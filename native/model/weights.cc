#include "model/weights.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "core/limits.h"
#include "model/assemble.h"
#include "model/gguf_model.h"
#include "model/json.h"
#include "model/kvzap.h"
#include "model/nf4.h"
#include "model/safetensors.h"

namespace rum {

namespace dom = simdjson::dom;

namespace {

// True also when the path cannot be looked at for another reason than absence: opening it then says why.
bool Exists(const std::string& path) {
  struct stat info {};
  return stat(path.c_str(), &info) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

struct Shard {
  std::string path;
  std::shared_ptr<const MappedFile> file;
  SafetensorsHeader header;
};

Expected<Shard> OpenShard(const std::string& path) {
  auto file = MappedFile::Open(path, kWeightFileBytesMax);
  if (!file.ok()) return file.status();
  auto header = ParseSafetensorsHeader((*file)->bytes(), path);
  if (!header.ok()) return header.status();
  return Shard{path, std::move(*file), std::move(*header)};
}

// The tensors of a directory by name, whether in one file or in shards.
class TensorTable final : public TensorSource {
 public:
  static Expected<TensorTable> Open(const std::string& directory);

  bool Has(const std::string& name) const override { return Locate(name).has_value(); }
  // The scales of an NF4 matrix are added to the model.
  Expected<TensorView> Find(const std::string& name, const std::vector<int64_t>& shape, Model* model) const override;

  std::vector<std::shared_ptr<const MappedFile>> Files() const;
  int64_t file_bytes() const { return file_bytes_; }

 private:
  static Expected<TensorTable> OpenSharded(const std::string& directory, const std::string& index_path);
  Status Add(const std::string& path);
  std::optional<FoundTensor> Locate(std::string_view name) const;

  struct Location {
    std::string name;
    size_t shard_index;
  };
  std::vector<Shard> shards_;
  std::vector<Location> locations_;  // ascending by name; empty for a single file, whose header says all
  int64_t file_bytes_ = 0;
};

Status TensorTable::Add(const std::string& path) {
  auto shard = OpenShard(path);
  if (!shard.ok()) return shard.status();
  const int64_t bytes = static_cast<int64_t>(shard->file->bytes().size());
  if (!CheckedAdd(file_bytes_, bytes, &file_bytes_) || file_bytes_ > kModelBytesMax) {
    return Error(kErrModelFile, path + ": with it the model exceeds " + std::to_string(kModelBytesMax) + " bytes");
  }
  shards_.push_back(std::move(*shard));
  return Status::Ok();
}

Expected<TensorTable> TensorTable::Open(const std::string& directory) {
  const std::string single_path = directory + "/model.safetensors";
  const std::string index_path = single_path + ".index.json";
  if (Exists(single_path)) {
    TensorTable table;
    if (Status status = table.Add(single_path); !status.ok()) return status;
    return table;
  }
  if (Exists(index_path)) return OpenSharded(directory, index_path);
  return Error(kErrModelFile, directory + ": has neither model.safetensors nor model.safetensors.index.json; " +
                                  "convert the checkpoint to safetensors or download it completely");
}

// A file name inside the directory: nothing that could lead out of it.
bool IsPlainFileName(std::string_view name) {
  return !name.empty() && name.size() <= static_cast<size_t>(kFileNameBytesMax) && name != "." &&
         name.find("..") == std::string_view::npos &&
         std::ranges::none_of(name, [](char c) { return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20; });
}

Expected<TensorTable> TensorTable::OpenSharded(const std::string& directory, const std::string& index_path) {
  auto refuse = [&](const std::string& problem) { return Error(kErrModelFile, index_path + ": " + problem); };
  auto file = MappedFile::Open(index_path, kIndexBytesMax);
  if (!file.ok()) return file.status();
  auto document = JsonDocument::Parse((*file)->text(), kTensorJsonDepthMax, kErrModelFile, index_path);
  if (!document.ok()) return document.status();
  FieldReader in(document->root(), kErrModelFile, index_path);
  auto weight_map = in.Object("weight_map");
  if (!in.status().ok()) return in.status();
  if (!weight_map) return refuse("weight_map is missing");

  TensorTable table;
  std::vector<std::string> shard_names;  // at most kShardsMax, so a linear search per tensor of a real model is cheap
  for (dom::key_value_pair field : *weight_map) {
    std::string_view shard_name;
    if (field.value.get_string().get(shard_name) || !IsPlainFileName(shard_name)) {
      return refuse("tensor " + Quote(field.key) + " must name a file of the same directory, found " +
                    Quote(simdjson::minify(field.value)));
    }
    if (static_cast<int64_t>(table.locations_.size()) == kTensorsPerFileMax) return refuse("has too many tensors");
    // Neighbours in the map are mostly in the same shard: search from the newest.
    auto known = std::find(shard_names.rbegin(), shard_names.rend(), shard_name);
    size_t shard_index = static_cast<size_t>(shard_names.rend() - known) - 1;
    if (known == shard_names.rend()) {
      if (static_cast<int64_t>(shard_names.size()) == kShardsMax) {
        return refuse("names more than " + std::to_string(kShardsMax) + " files");
      }
      shard_index = shard_names.size();
      shard_names.emplace_back(shard_name);
    }
    table.locations_.push_back({std::string(field.key), shard_index});
  }
  for (const std::string& shard_name : shard_names) {
    if (Status status = table.Add(directory + "/" + shard_name); !status.ok()) return status;
  }
  for (const Location& location : table.locations_) {
    const Shard& shard = table.shards_[location.shard_index];
    if (!shard.header.Find(location.name)) {
      return refuse("tensor " + Quote(location.name) + " should be in " + shard.path + " but is not there");
    }
  }
  std::ranges::sort(table.locations_, {}, &Location::name);
  return table;
}

std::optional<FoundTensor> TensorTable::Locate(std::string_view name) const {
  size_t shard_index = 0;
  if (!locations_.empty()) {
    auto it = std::ranges::lower_bound(locations_, name, {}, [](const Location& l) { return std::string_view(l.name); });
    if (it == locations_.end() || it->name != name) return std::nullopt;
    shard_index = it->shard_index;
  }
  if (shard_index >= shards_.size()) return std::nullopt;
  const Shard& shard = shards_[shard_index];
  const TensorEntry* entry = shard.header.Find(name);
  if (!entry) return std::nullopt;
  return FoundTensor{entry, shard.file->bytes().data() + entry->begin};
}

std::vector<std::shared_ptr<const MappedFile>> TensorTable::Files() const {
  std::vector<std::shared_ptr<const MappedFile>> files;
  for (const Shard& shard : shards_) files.push_back(shard.file);
  return files;
}

std::optional<DType> ComputableDType(std::string_view name) {
  if (name == "F32") return DType::kF32;
  if (name == "F16") return DType::kF16;
  if (name == "BF16") return DType::kBF16;
  return std::nullopt;
}

Expected<TensorView> TensorTable::Find(const std::string& name, const std::vector<int64_t>& shape, Model* model) const {
  auto found = Locate(name);
  if (!found) return Error(kErrModelTensor, "tensor " + name + " is missing; config.json and the weights do not belong together");
  const TensorEntry& entry = *found->entry;
  const TensorLookup find = [this](std::string_view n) { return Locate(n); };
  if (shape.size() == 2 && IsPacked4Bit(find, name, entry.dtype)) {
    auto matrix = OpenNf4(find, name, shape[0], shape[1]);
    if (!matrix.ok()) return matrix.status();
    model->nf4_scales.push_back(matrix->scales);
    return matrix->view;
  }
  auto dtype = ComputableDType(entry.dtype);
  if (!dtype) {
    return Error(kErrModelTensor, "tensor " + name + " has type " + Quote(entry.dtype) +
                                      "; supported: F32, F16, BF16 and bitsandbytes NF4");
  }
  if (entry.shape != shape) {
    return Error(kErrModelTensor,
                 "tensor " + name + " must have shape " + ShapeText(shape) + " by config.json, found " + ShapeText(entry.shape));
  }
  return TensorView{*dtype, shape.size() == 1 ? 1 : shape[0], shape.back(), found->data};
}

Expected<ModelConfig> ReadConfig(const std::string& directory, const PolicyOverrides& overrides) {
  const std::string config_path = directory + "/config.json";
  if (!Exists(config_path)) {
    return Error(kErrModelFile, config_path + " does not exist; give a GGUF file or the directory of a Hugging "
                                              "Face model, with config.json and model.safetensors in it");
  }
  const auto open_if_there = [](const std::string& path) -> Expected<std::shared_ptr<const MappedFile>> {
    if (!Exists(path)) return std::shared_ptr<const MappedFile>();
    return MappedFile::Open(path, kConfigBytesMax);
  };
  auto config = MappedFile::Open(config_path, kConfigBytesMax);
  auto generation = open_if_there(directory + "/generation_config.json");
  auto metadata = open_if_there(directory + "/dms_metadata.json");
  for (const auto* file : {&config, &generation, &metadata}) {
    if (!file->ok()) return file->status();
  }
  // Outside the directory, so possibly not about this model: what cannot be read is not held against it.
  auto log = MappedFile::Open(directory + "/../training_log.json", kTrainingLogBytesMax);
  ConfigTexts texts{(*config)->text()};
  if (*generation) texts.generation = (*generation)->text();
  if (*metadata) texts.dms_metadata = (*metadata)->text();
  if (log.ok()) texts.training_log = (*log)->text();
  return ParseConfig(texts, overrides);
}

Expected<std::shared_ptr<Model>> OpenHuggingFace(const std::string& directory, const PolicyOverrides& overrides) {
  auto config = ReadConfig(directory, overrides);
  if (!config.ok()) return config.status();
  auto table = TensorTable::Open(directory);
  if (!table.ok()) return table.status();
  auto model = AssembleModel(std::move(*config), *table);
  if (!model.ok()) return model.status();
  (*model)->file_bytes = table->file_bytes();
  (*model)->files = table->Files();
  return model;
}

}  // namespace

Expected<std::shared_ptr<const Model>> OpenModel(const std::string& path, const PolicyOverrides& overrides) {
  // A path with a NUL would open another model than the one it names.
  if (path.find('\0') != std::string::npos) return Error(kErrModelFile, "the model's path has a NUL byte in it");
  auto gguf = FindGguf(path);
  if (!gguf.ok()) return gguf.status();
  auto model = *gguf ? OpenGguf(**gguf, overrides) : OpenHuggingFace(path, overrides);
  if (!model.ok()) return model.status();
  if ((*model)->config.policy.is_kvzap()) {
    if (Status status = OpenKvzap(model->get()); !status.ok()) return status;
  }
  return std::shared_ptr<const Model>(std::move(*model));
}

}  // namespace rum
