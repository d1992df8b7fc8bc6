#include "bind/gguf_bind.h"

#include <optional>
#include <string>
#include <utility>

#include "bind/addon.h"
#include "bind/dto.h"
#include "model/gguf_tokenizer.h"

namespace rum::bind {
namespace {

napi_value TextsToJs(napi_env env, const std::vector<std::string_view>& texts) {
  napi_value array = nullptr;
  napi_create_array_with_length(env, texts.size(), &array);
  for (size_t i = 0; i < texts.size(); ++i) {
    // A vocabulary of strings: a scope per element keeps the handle table small.
    napi_handle_scope scope = nullptr;
    napi_open_handle_scope(env, &scope);
    napi_value text = nullptr;
    napi_create_string_utf8(env, texts[i].data(), texts[i].size(), &text);
    napi_set_element(env, array, static_cast<uint32_t>(i), text);
    napi_close_handle_scope(env, scope);
  }
  return array;
}

void SetId(Writer& out, const char* name, int32_t id) { id < 0 ? out.Null(name) : out.Int(name, id); }
void SetBool(Writer& out, const char* name, std::optional<bool> value) { value ? out.Bool(name, *value) : out.Null(name); }
void SetText(Writer& out, const char* name, const std::optional<std::string>& value) { value ? out.String(name, *value) : out.Null(name); }

class TokenizerTask final : public Task {
 public:
  explicit TokenizerTask(std::string path) : path_(std::move(path)) {}
  Progress Work(Status& status) override {
    auto tokenizer = rum::ReadGgufTokenizer(path_);
    status = tokenizer.status();
    if (tokenizer.ok()) tokenizer_ = std::move(*tokenizer);
    return Progress::kDone;
  }

  napi_value Result(napi_env env) override {
    napi_value null = nullptr;
    napi_get_null(env, &null);
    if (!tokenizer_) return null;
    GgufTokenizer& t = *tokenizer_;
    Writer out(env);
    out.String("model", t.model);
    SetText(out, "pre", t.pre);
    out.Set("tokens", TextsToJs(env, t.tokens));
    out.Set("types", TakeInt32s(env, std::move(t.types)));
    t.scores.empty() ? out.Null("scores") : out.Set("scores", TakeFloats(env, std::move(t.scores)));
    out.Set("merges", TextsToJs(env, t.merges));
    SetId(out, "bosId", t.bos_id);
    SetId(out, "eosId", t.eos_id);
    SetId(out, "unkId", t.unk_id);
    SetBool(out, "addBos", t.add_bos);
    SetBool(out, "addEos", t.add_eos);
    SetBool(out, "addSpacePrefix", t.add_space_prefix);
    SetText(out, "chatTemplate", t.chat_template);
    return out.object();
  }

 private:
  std::string path_;
  std::optional<GgufTokenizer> tokenizer_;
};

}  // namespace

napi_value ReadGgufTokenizer(napi_env env, napi_callback_info info) {
  return Guard(env, [&]() -> napi_value {
    Reader reader(env, "readGgufTokenizer.options", Arguments(env, info)[0]);
    std::string path = ReadModelPath(reader, "path");
    if (!reader.status().ok()) return Throw(env, reader.status());
    const auto queue = std::make_shared<SerialQueue>(env, GetAddonData(env));
    return queue->Start(std::make_shared<TokenizerTask>(std::move(path)));
  });
}

}  // namespace rum::bind
