// Speed of the cpu backend on a synthetic model of a named shape against what this machine can read and compute in the same run.
//
//   decode_bench [--shape smollm2-135m|qwen3-0.6b] [--weights bf16|f32|f16|nf4|q8_0|q4_0|q4_1|q4_k|q6_k] [--kv bf16|f32] [--cr 1|8] [--window 256] [--threads N]
//                [--contexts 128,1024,4096] [--widths 1,8] [--prefill 512]
//
// Prints its conditions, a table and, as the last line, one JSON object. Weights are random; DMS decisions are a seeded pattern of the
// wanted rate (alpha offset), so speed does not depend on a trained model. A case is dropped when the bandwidth probe before and after
// it differs by more than a tenth: somebody else was using the machine.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "test/synthetic.h"

namespace rum::bench {
namespace {

double Now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Options {
  std::string shape = "smollm2-135m", weights = "bf16", kv = "bf16";
  double cr = 1;
  int32_t window = 256, threads = 1, prefill = 512;
  std::vector<int32_t> contexts = {128, 1024, 4096}, widths = {1, 8};
};

std::vector<int32_t> List(const char* s) {
  std::vector<int32_t> out;
  for (char* end = nullptr; *s != '\0'; s = *end == ',' ? end + 1 : end) {
    out.push_back(static_cast<int32_t>(std::strtol(s, &end, 10)));
    if (end == s) std::exit(2);
  }
  return out;
}

Options Parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i];
    const char* value = argv[i + 1];
    if (key == "--shape") o.shape = value;
    else if (key == "--weights") o.weights = value;
    else if (key == "--kv") o.kv = value;
    else if (key == "--cr") o.cr = std::atof(value);
    else if (key == "--window") o.window = std::atoi(value);
    else if (key == "--threads") o.threads = std::atoi(value);
    else if (key == "--prefill") o.prefill = std::atoi(value);
    else if (key == "--contexts") o.contexts = List(value);
    else if (key == "--widths") o.widths = List(value);
    else {
      std::fprintf(stderr, "unknown option %s\n", key.c_str());
      std::exit(2);
    }
  }
  return o;
}

ModelConfig ShapeOf(const Options& o) {
  ModelConfig c;
  c.model_type = "qwen3";
  c.max_positions = 65536;
  if (o.shape == "smollm2-135m") {
    c.vocab_size = 49152, c.hidden_size = 576, c.intermediate_size = 1536, c.num_layers = 30, c.num_heads = 9, c.num_kv_heads = 3, c.head_dim = 64;
  } else {
    c.vocab_size = 151936, c.hidden_size = 1024, c.intermediate_size = 3072, c.num_layers = 28, c.num_heads = 16, c.num_kv_heads = 8, c.head_dim = 128;
    c.qk_norm = true;
  }
  if (o.cr > 1) {
    c.policy.kind = PolicyKind::kDmsSeparate;  // a projection of random weights: decisions are as good as a coin of the wanted bias
    c.policy.window = o.window;
    c.policy.alpha_scale = 1.0f;
  }
  return c;
}

rum::test::SyntheticTypes TypesOf(const Options& o) {
  for (int32_t t = 0; t < static_cast<int32_t>(kDTypeCount); ++t) {
    if (o.weights == DTypeName(static_cast<DType>(t))) {
      rum::test::SyntheticTypes types = static_cast<DType>(t);
      types.nested_block = 256;  // as bitsandbytes writes it
      return types;
    }
  }
  std::fprintf(stderr, "unknown type %s\n", o.weights.c_str());
  std::exit(2);
}

// GB/s of one sequential read by one thread: the roof of a decode step.
double ReadBandwidth() {
  static std::vector<float> block(size_t{64} << 20, 1.0f);  // 256 MiB
  double best = 0;
  for (int round = 0; round < 3; ++round) {
    const double start = Now();
    float sums[64] = {};
    for (size_t i = 0; i < block.size(); i += 64) {
      for (size_t j = 0; j < 64; ++j) sums[j] += block[i + j];
    }
    volatile float sink = 0;
    for (const float s : sums) sink = sink + s;
    best = std::max(best, static_cast<double>(block.size() * 4) / (Now() - start) / 1e9);
  }
  return best;
}

int64_t MatrixBytes(const Backend& b) { return b.Memory().weight_bytes; }

void Fill(Backend& b, ChainId chain, int32_t tokens, int32_t vocab) {
  std::vector<Row> rows;
  for (int32_t t = 0; t < tokens; t += 256) {
    rows.clear();
    for (int32_t i = t; i < std::min(tokens, t + 256); ++i) rows.push_back({chain, (i * 7919) % vocab, false});
    if (!b.Forward(rows, nullptr).ok()) std::exit(1);
  }
}

}  // namespace
}  // namespace rum::bench

int main(int argc, char** argv) {
  using namespace rum;
  using namespace rum::bench;
  const Options o = Parse(argc, argv);
  ModelConfig config = ShapeOf(o);
  const rum::test::SyntheticTypes types = TypesOf(o);
  if (!IsPlain(types.dtype) && config.hidden_size % std::max<int64_t>(BlockOf(types.dtype).weights, 1) != 0) {
    std::fprintf(stderr, "rows of this shape are no whole blocks of %s; use --shape qwen3-0.6b\n", o.weights.c_str());
    return 2;
  }
  if (o.cr > 1) {
    // Random logits are roughly normal with deviation 0.87; the offset that leaves 1/cr of them at or below zero.
    config.policy.alpha_offset = o.cr >= 8 ? -1.0f : o.cr >= 4 ? -0.59f : 0.0f;
  }
  const auto model = rum::test::MakeSynthetic(config, types, 1);
  BackendOptions options;
  options.kv = o.kv == "f32" ? KvType::kF32 : KvType::kBF16;
  options.threads = o.threads;
  auto made = MakeCpuBackend(model, options);
  if (!made.ok()) {
    std::fprintf(stderr, "%s\n", made.status().message.c_str());
    return 1;
  }
  Backend& b = **made;
  const double weight_gb = static_cast<double>(MatrixBytes(b)) / 1e9;
  std::printf("shape %s, %s weights (%.0f MB read per step), %s KV, CR %.0f, %s, %d thread(s)\n", o.shape.c_str(), o.weights.c_str(),
              weight_gb * 1e3, o.kv.c_str(), o.cr, IsaName(b.isa()), o.threads);
  std::string json = "{\"shape\":\"" + o.shape + "\",\"weights\":\"" + o.weights + "\",\"kv\":\"" + o.kv + "\",\"cr\":" +
                     std::to_string(o.cr) + ",\"isa\":\"" + IsaName(b.isa()) + "\",\"threads\":" + std::to_string(o.threads) + ",\"cases\":[";
  bool first = true;
  std::vector<float> logits(static_cast<size_t>(64) * static_cast<size_t>(config.vocab_size));
  for (const int32_t width : o.widths) {
    for (const int32_t context : o.contexts) {
      std::vector<ChainId> chains{*b.NewChain()};
      Fill(b, chains[0], context, config.vocab_size);
      for (int32_t w = 1; w < width; ++w) chains.push_back(*b.ForkChain(chains[0]));
      const double before = ReadBandwidth();
      std::vector<double> steps;
      int64_t live = 0;
      for (int32_t s = 0; s < 24; ++s) {
        std::vector<Row> rows;
        for (const ChainId c : chains) rows.push_back({c, (s * 31 + c) % config.vocab_size, true});
        live = 0;
        for (const ChainId c : chains) live += b.NextLiveSum(c);
        const double start = Now();
        if (!b.Forward(rows, logits.data()).ok()) return 1;
        if (s >= 2) steps.push_back(Now() - start);
      }
      std::sort(steps.begin(), steps.end());
      const double step = steps[steps.size() / 2], after = ReadBandwidth(), roof = std::max(before, after);
      const double kv_gb = static_cast<double>(live) * 2 * config.head_dim * (options.kv == KvType::kF32 ? 4 : 2) / 1e9;
      const double limit = (weight_gb + kv_gb) / roof;
      const bool noisy = std::abs(before - after) > 0.1 * roof;
      std::printf("W=%-2d ctx %-6d step %8.3f ms  %7.1f tok/s  limit %8.3f ms (%.0f %%)  read %.1f GB/s%s\n", width, context, step * 1e3,
                  width / step, limit * 1e3, 100 * limit / step, roof, noisy ? "  NOISY: dropped" : "");
      if (!noisy) {
        char line[256];
        std::snprintf(line, sizeof line, "%s{\"width\":%d,\"context\":%d,\"step_ms\":%.4f,\"tokens_per_second\":%.2f,\"limit_ms\":%.4f,\"read_gb_s\":%.2f}",
                      first ? "" : ",", width, context, step * 1e3, width / step, limit * 1e3, roof);
        json += line;
        first = false;
      }
      for (const ChainId c : chains) b.FreeChain(c);
    }
  }
  json += "]";
  if (o.prefill > 0) {
    double best = 1e9;
    for (int round = 0; round < 3; ++round) {
      const ChainId chain = *b.NewChain();
      const double start = Now();
      Fill(b, chain, o.prefill, config.vocab_size);
      best = std::min(best, Now() - start);
      b.FreeChain(chain);
    }
    std::printf("prefill %d: %.1f tok/s\n", o.prefill, o.prefill / best);
    json += ",\"prefill\":" + std::to_string(o.prefill) + ",\"prefill_tokens_per_second\":" + std::to_string(o.prefill / best);
  }
  std::printf("%s}\n", json.c_str());
  return 0;
}
