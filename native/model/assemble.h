// From a configuration and a place where tensors are found to a checked Model, whatever the files' format.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/status.h"
#include "model/weights.h"

namespace rum {

// The tensors of a model by their Hugging Face names.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual bool Has(const std::string& name) const = 0;
  // The tensor of exactly this shape, of rank 1 or 2; ERR_MODEL_TENSOR. What the view points to besides the files is added to *model.
  virtual Expected<TensorView> Find(const std::string& name, const std::vector<int64_t>& shape, Model* model) const = 0;
};

// "[2, 3]"
std::string ShapeText(const std::vector<int64_t>& shape);

// Every tensor the configuration asks for, of the right shape and finite. The caller adds the files.
Expected<std::shared_ptr<Model>> AssembleModel(ModelConfig config, const TensorSource& source);

}  // namespace rum
