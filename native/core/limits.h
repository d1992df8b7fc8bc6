// Every bound on what a file or a caller may ask of the engine, each with its reason. A model directory is
// untrusted input: a number is compared with its limit before anything is allocated or multiplied by it.
#pragma once
#include <cstdint>

namespace rum {

// --- Files ---------------------------------------------------------------------------------------
inline constexpr int64_t kConfigBytesMax = int64_t{1} << 20;        // real config.json files are below 10 KiB
inline constexpr int64_t kTrainingLogBytesMax = int64_t{1} << 24;   // training_log.json: some 200 bytes for each logged step
inline constexpr int64_t kSafetensorsHeaderBytesMax = 100'000'000;  // the format's own limit (huggingface/safetensors)
inline constexpr int64_t kIndexBytesMax = 100'000'000;              // an index names the same tensors as the headers do
inline constexpr int64_t kWeightFileBytesMax = int64_t{1} << 44;    // 16 TiB: sums of 1024 such sizes still fit int64
inline constexpr int64_t kModelBytesMax = int64_t{1} << 44;         // 16 TiB over all shards, far above any host's memory
inline constexpr int64_t kTensorsPerFileMax = 1'000'000;            // bounds the parsed header to some 100 MB of entries
inline constexpr int64_t kShardsMax = 1024;                         // one mapping each; published: below 200
inline constexpr int64_t kTensorRankMax = 8;                        // weights have rank 1 or 2; the rest is only walked over
inline constexpr int64_t kQuantStateBytesMax = 4096;                // bitsandbytes writes some 170 bytes of JSON
inline constexpr int64_t kNf4BlockMin = 32;                         // bitsandbytes' own range of block sizes; default 64
inline constexpr int64_t kNf4BlockMax = 4096;
inline constexpr int64_t kFileNameBytesMax = 255;                   // NAME_MAX of the file systems we read from

// --- GGUF ----------------------------------------------------------------------------------------
inline constexpr int64_t kGgufMetadataMax = 65'536;                 // keys; published files have below 100
inline constexpr int64_t kGgufKeyBytesMax = 65'535;                 // the format's own limit
inline constexpr int64_t kGgufStringBytesMax = int64_t{1} << 24;    // the longest in use are chat templates, some kB
inline constexpr int64_t kGgufArrayMax = 4'000'000;                 // elements; a vocabulary's merges are up to twice its tokens
inline constexpr int64_t kGgufArrayDepthMax = 4;                    // arrays of arrays: allowed by the format, used by nobody
inline constexpr int64_t kGgufTensorNameBytesMax = 64;              // the format's own limit
inline constexpr int64_t kGgufTensorRankMax = 4;                    // ggml's own limit
inline constexpr int64_t kGgufAlignmentMax = 65'536;                // default 32; more than a page serves nothing
inline constexpr int64_t kGgufDirectoryFilesMax = 100'000;          // files looked at to find the one GGUF file among them

// --- JSON ----------------------------------------------------------------------------------------
inline constexpr int64_t kConfigJsonDepthMax = 32;                  // configs nest 3 deep (quantization_config, auto_map)
inline constexpr int64_t kTensorJsonDepthMax = 8;                   // headers nest 3 deep (name, shape)
inline constexpr int64_t kConfigStringBytesMax = 256;               // model_type, dtype, class names

// --- Shapes --------------------------------------------------------------------------------------
// Products of any two of these fit int64, and every index into one tensor row fits int32.
inline constexpr int64_t kVocabMax = 1'000'000;                     // largest published vocabulary: about 262,000
inline constexpr int64_t kLayersMax = 1024;                         // largest published: 126
inline constexpr int64_t kHeadsMax = 1024;                          // query or KV heads; largest published: 128
inline constexpr int64_t kHeadDimMax = 1024;                        // largest published: 256
inline constexpr int64_t kHiddenMax = 65'536;                       // largest published: 16,384
inline constexpr int64_t kIntermediateMax = 1'000'000;              // largest published: 53,248
inline constexpr int64_t kPositionsMax = 16'777'216;                // float holds every integer up to 2^24 exactly
inline constexpr int64_t kClassNamesMax = 16;                       // "architectures" has one in every published config
inline constexpr int64_t kEosIdsMax = 64;                           // compared after every token; published: at most 4

// --- Real numbers --------------------------------------------------------------------------------
inline constexpr double kRmsEpsMin = 1e-12;                         // below, the float sum with a mean square loses it
inline constexpr double kRmsEpsMax = 1e-1;                          // above, it changes the model instead of guarding it
inline constexpr double kRopeThetaMin = 1.0;                        // below, frequencies rise with the channel
inline constexpr double kRopeThetaMax = 1e12;                       // largest published: 1e7
inline constexpr double kRopeYarnThetaMin = 2.0;                    // yarn divides by log(theta)
inline constexpr double kRopeFactorMax = 1e6;                       // context and attention factors; published: below 100
inline constexpr double kRopeTurnsMin = 1e-3;                       // llama3's and yarn's band ends divide; published: from 1 ...
inline constexpr double kRopeTurnsMax = 1e6;                        // ... to 32

// --- Cache policy (METHOD.md 1.2, 1.4) -----------------------------------------------------------
inline constexpr int64_t kDmsWindowMin = 1;                         // 0 evicts on arrival; nothing is trained for that
inline constexpr int64_t kDmsWindowMax = 1'000'000;                 // a ring of window + 1 slots is allocated per KV head
inline constexpr double kDmsAlphaMax = 1e6;                         // |scale| and |offset|: published 100 and 5
inline constexpr double kDmsCrMax = 1e6;                            // documentation only, but printed

inline constexpr double kKvzapThresholdMax = 1e6;                   // |threshold|: a log score; published from -9 to -3

// --- Stored objects (docs/CHECKPOINT.md) -----------------------------------------------------------
inline constexpr int64_t kObjectBytesMax = int64_t{1} << 42;        // 4 TiB: below what S3 takes as one object
inline constexpr int64_t kObjectFramesMax = int64_t{1} << 20;       // a frame for each layer or chain; the index is 48 MiB then
inline constexpr int64_t kFrameBytesMax = int64_t{1} << 35;         // 32 GiB: one nonce of AES-GCM ends at 64 GiB
inline constexpr int64_t kCounterMax = int64_t{1} << 52;            // a double holds it, and sums over 1,024 chains fit int64

// a * b into *product; false if it does not fit. Sizes are multiplied with this and nothing else.
[[nodiscard]] inline bool CheckedMul(int64_t a, int64_t b, int64_t* product) { return !__builtin_mul_overflow(a, b, product); }
[[nodiscard]] inline bool CheckedAdd(int64_t a, int64_t b, int64_t* sum) { return !__builtin_add_overflow(a, b, sum); }

}  // namespace rum
