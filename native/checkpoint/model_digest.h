// A model's weights by value, wherever they lie and however their files are cut: part of a job's identity (KV.md 3, modelId).
#pragma once
#include "checkpoint/object.h"
#include "model/weights.h"

namespace rum {

// BLAKE3 over the rotary frequencies, the norms' epsilon and every tensor in a fixed order: its place in the model, type, shape and bytes as
// stored. Reads the whole model once.
Digest DigestOfWeights(const Model& model);

}  // namespace rum
