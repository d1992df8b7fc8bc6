// Reads one object from the chunks in which it arrived, and hands out no byte before it is verified.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "checkpoint/frame_stream.h"
#include "checkpoint/object.h"

namespace rum {

// An object as it arrived, not joined: one after the other the chunks are its bytes. Borrowed, and unchanged while a reader lives.
using Chunks = std::span<const std::span<const uint8_t>>;

// What the manifest says of the object.
struct Expect {
  ObjectKind kind = ObjectKind::kSegment;
  std::optional<LayoutId> layout_id;  // nullopt: any
  int64_t bytes = 0;
  const Digest* digest = nullptr;  // nullptr: any
  bool check_digests = true;       // false: frames by CRC (and tag) only; the header and the index by digest all the same
  // true: the object is sealed, and whoever looks has no keys. Sizes, order, gaps, CRCs and that it says the digest that the manifest
  // names are checked, not what the digest is of; frames are handed out as they are stored.
  bool keyless = false;
};

// Runs f(0) .. f(items - 1), in any order, on any threads, and returns when all are done.
using ParallelFor = std::function<void(int64_t items, const std::function<void(int64_t)>& f)>;

class ObjectReader {
 public:
  // Checks everything but the frames' bytes: sizes before anything is allocated, header, index, order of frames, zero gaps, digest.
  // ERR_CHECKPOINT with a reason; ERR_KEY: the object is encrypted and there is no key. The seal's keys outlive the reader.
  static Expected<ObjectReader> Open(Chunks chunks, const Expect& expect, const Seal& seal);
  ObjectReader(ObjectReader&&) noexcept;
  ObjectReader& operator=(ObjectReader&&) noexcept;
  ~ObjectReader();

  const ObjectHeader& header() const;
  const Digest& digest() const;
  int32_t frames() const;
  int64_t raw_bytes(int32_t frame) const;

  // Verifies the frame, then hands its raw bytes to `use`: contiguous, of any alignment, valid only during the call. In place where
  // they are raw and in one chunk, else in scratch memory. Thread-safe. ERR_CHECKPOINT, ERR_MEMORY, or what `use` returns.
  using Use = std::function<Status(std::span<const uint8_t>)>;
  Status ReadFrame(int32_t frame, const Use& use) const;

  // All frames by `parallel`, each as a stream of its raw bytes, which are verified as they go by: what `use` makes of them may be
  // looked at only when all is right. The error of the lowest frame that has one; that it is not what was written goes before what `use`
  // returns. ERR_CHECKPOINT, ERR_MEMORY.
  using UseFrame = std::function<Status(int32_t frame, FrameStream& bytes)>;
  Status ReadFrames(const ParallelFor& parallel, const UseFrame& use) const;

 private:
  struct State;
  explicit ObjectReader(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace rum
