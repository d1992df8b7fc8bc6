// A model's weights by value, wherever they lie and however their files are cut: part of a job's identity (KV.md 3, modelId).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "checkpoint/object.h"
#include "checkpoint/object_reader.h"
#include "model/weights.h"

namespace rum {

// BLAKE3 over what config.json says about computing with the tensors and none of them shows (rotary frequencies, the norms' epsilon),
// and over every tensor in a fixed order: its place in the model, type, shape and bytes as stored. A tensor is hashed in pieces of
// kPieceBytes, so that threads share a model of one large tensor too, and the digest is over theirs. Reads the whole model once.
class WeightsHasher {
 public:
  static constexpr int64_t kPieceBytes = int64_t{4} << 20;

  explicit WeightsHasher(const Model& model);  // which outlives it
  // Hashes the next `pieces` ones, or those that are left.
  void Advance(int64_t pieces, const ParallelFor& parallel);
  bool done() const { return hashed_ == pieces_.size(); }
  // Once done.
  Digest Finish() const;

 private:
  struct Tensor {
    std::string name;
    TensorView view;
    size_t pieces = 0;
  };
  // Bytes [begin, end) of a tensor, or of its NF4 scales those of the blocks [begin, end).
  struct Piece {
    size_t tensor = 0;
    bool scales = false;
    int64_t begin = 0, end = 0;
    Digest digest{};
  };
  void Add(std::string name, const TensorView& view);
  void Cut(int64_t size, int64_t piece, bool scales);
  void Hash(Piece& piece) const;

  std::vector<float> numerics_;  // frequencies, their attention factor, epsilon
  std::vector<Tensor> tensors_;
  std::vector<Piece> pieces_;  // tensor after tensor
  size_t hashed_ = 0;
};

}  // namespace rum
