#include "model/gguf_tokenizer.h"

#include <utility>

#include "core/limits.h"
#include "model/gguf.h"
#include "model/gguf_model.h"

namespace rum {
namespace {

constexpr int32_t kNormal = 1;

std::string Key(const char* name) { return std::string("tokenizer.ggml.") + name; }

std::optional<bool> MaybeBool(GgufReader& in, const std::string& key) {
  return in.Has(key) ? std::optional(in.Bool(key, false)) : std::nullopt;
}

std::optional<std::string> MaybeString(GgufReader& in, const std::string& key) {
  return in.Has(key) ? std::optional(in.String(key)) : std::nullopt;
}

void Read(GgufReader& in, GgufTokenizer& out) {
  out.model = in.String(Key("model"));
  out.pre = MaybeString(in, Key("pre"));
  out.tokens = in.Strings(Key("tokens"));
  out.types = in.Ints(Key("token_type"));
  out.scores = in.Floats(Key("scores"));
  out.merges = in.Strings(Key("merges"));
  const auto count = static_cast<int64_t>(out.tokens.size());
  if (count < 1 || count > kVocabMax) return in.Fail(Key("tokens"), "must have 1 to " + std::to_string(kVocabMax) + " tokens");
  if (!in.Has(Key("token_type"))) out.types.assign(out.tokens.size(), kNormal);
  if (out.types.size() != out.tokens.size()) in.Fail(Key("token_type"), "must have one element for each token");
  if (!out.scores.empty() && out.scores.size() != out.tokens.size()) in.Fail(Key("scores"), "must have one element for each token");
  out.bos_id = static_cast<int32_t>(in.Int(Key("bos_token_id"), 0, count - 1, -1));
  out.eos_id = static_cast<int32_t>(in.Int(Key("eos_token_id"), 0, count - 1, -1));
  out.unk_id = static_cast<int32_t>(in.Int(Key("unknown_token_id"), 0, count - 1, -1));
  out.add_bos = MaybeBool(in, Key("add_bos_token"));
  out.add_eos = MaybeBool(in, Key("add_eos_token"));
  out.add_space_prefix = MaybeBool(in, Key("add_space_prefix"));
  out.chat_template = MaybeString(in, "tokenizer.chat_template");
}

}  // namespace

Expected<std::optional<GgufTokenizer>> ReadGgufTokenizer(const std::string& path) {
  auto found = FindGguf(path);
  if (!found.ok()) return found.status();
  if (!*found) return std::optional<GgufTokenizer>();
  auto file = MappedFile::Open(**found, kWeightFileBytesMax);
  if (!file.ok()) return file.status();
  auto header = ParseGgufHeader((*file)->bytes(), **found);
  if (!header.ok()) return header.status();
  GgufTokenizer out;
  out.file = *file;
  GgufReader in(*header, **found);
  Read(in, out);
  if (!in.status().ok()) return in.status();
  return std::optional(std::move(out));
}

}  // namespace rum
