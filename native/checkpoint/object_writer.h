// Builds one object in memory, frame by frame.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "checkpoint/frame_index.h"
#include "checkpoint/object.h"
#include "checkpoint/object_layout.h"

namespace rum {

// One thread at a time; objects are independent, so several are written in parallel by a writer each. After an error it stays failed.
class ObjectWriter {
 public:
  // element_bytes: 1, 2 or 4, the width of the numbers most frames consist of; only kPlanesZstd looks at it.
  // reserve_bytes: expected size; more is fine. The seal's keys outlive the writer.
  ObjectWriter(const ObjectHeader& header, const Seal& seal, Codec codec, int element_bytes, int64_t reserve_bytes);

  // `fill` writes exactly raw_bytes >= 0 bytes. Under kRaw it writes straight into the object; the address has no alignment beyond 8.
  // A frame that planes + zstd would not make smaller is stored raw.
  Status AddFrame(int64_t raw_bytes, const std::function<void(uint8_t*)>& fill);

  // The object, after exactly header.frames frames; the writer is empty then. ERR_MEMORY, ERR_KEY, ERR_INTERNAL.
  Expected<SavedObject> Finish();

 private:
  Status Begin();
  Status Add(int64_t raw_bytes, const std::function<void(uint8_t*)>& fill);
  Status Reserve(int64_t bytes);
  Status FillRaw(const std::function<void(uint8_t*)>& fill, FrameEntry* entry);
  Status Compress(const std::function<void(uint8_t*)>& fill, FrameEntry* entry);
  Status Protect(FrameEntry* entry);  // encrypts in place, then CRC and digest

  const ObjectHeader header_;
  const Seal seal_;
  const Codec codec_;
  const int element_bytes_;
  const int64_t reserve_bytes_;
  HeaderBytes header_bytes_{};
  MappedBuffer bytes_;
  MappedBuffer scratch_;     // a frame before its codec, and its planes
  int64_t end_ = 0;          // of what is written
  std::vector<FrameEntry> entries_;
  Status status_;            // the first error; last, as it is what the constructor's work gives
};

}  // namespace rum
