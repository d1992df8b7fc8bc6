#include "bind/gguf_bind.h"

#include <optional>
#include <string>
#include <utility>

#include "bind/async_task.h"
#include "bind/dto.h"
#include "model/gguf_tokenizer.h"

namespace rum::bind {
namespace {

Napi::Value TextsToJs(Napi::Env env, const std::vector<std::string_view>& texts) {
  Napi::Array array = Napi::Array::New(env, texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    // A vocabulary of strings: a scope per element keeps the handle table small.
    const Napi::HandleScope scope(env);
    array.Set(static_cast<uint32_t>(i), Napi::String::New(env, texts[i].data(), texts[i].size()));
  }
  return array;
}

Napi::Value IdOrNull(Napi::Env env, int32_t id) { return id < 0 ? env.Null() : Napi::Value::From(env, id); }

template <class T>
Napi::Value OrNull(Napi::Env env, const std::optional<T>& value) {
  return value ? Napi::Value::From(env, *value) : env.Null();
}

class TokenizerTask final : public Task {
 public:
  explicit TokenizerTask(std::string path) : path_(std::move(path)) {}
  Progress Work(Status& status) override {
    auto tokenizer = rum::ReadGgufTokenizer(path_);
    status = tokenizer.status();
    if (tokenizer.ok()) tokenizer_ = std::move(*tokenizer);
    return Progress::kDone;
  }

  Napi::Value Result(Napi::Env env) override {
    if (!tokenizer_) return env.Null();
    GgufTokenizer& t = *tokenizer_;
    Napi::Object out = Napi::Object::New(env);
    out.Set("model", t.model);
    out.Set("pre", OrNull(env, t.pre));
    out.Set("tokens", TextsToJs(env, t.tokens));
    out.Set("types", Take(env, std::move(t.types)));
    out.Set("scores", t.scores.empty() ? env.Null() : Take(env, std::move(t.scores)));
    out.Set("merges", TextsToJs(env, t.merges));
    out.Set("bosId", IdOrNull(env, t.bos_id));
    out.Set("eosId", IdOrNull(env, t.eos_id));
    out.Set("unkId", IdOrNull(env, t.unk_id));
    out.Set("addBos", OrNull(env, t.add_bos));
    out.Set("addEos", OrNull(env, t.add_eos));
    out.Set("addSpacePrefix", OrNull(env, t.add_space_prefix));
    out.Set("chatTemplate", OrNull(env, t.chat_template));
    return out;
  }

 private:
  std::string path_;
  std::optional<GgufTokenizer> tokenizer_;
};

}  // namespace

Napi::Value ReadGgufTokenizer(Napi::Env env, Napi::Value options) {
  Reader reader("readGgufTokenizer.options", options);
  std::string path = ReadModelPath(reader, "path");
  if (!reader.status().ok()) return Throw(env, reader.status());
  const auto queue = std::make_shared<SerialQueue>(env);
  return queue->Start(std::make_shared<TokenizerTask>(std::move(path)));
}

}  // namespace rum::bind
