#include "bind/files_bind.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bind/async_task.h"
#include "bind/dto.h"
#include "bind/handle.h"
#include "bind/sources.h"
#include "files/steps.h"

namespace rum::bind {
namespace {

constexpr size_t kPathBytesMax = 4096;
constexpr size_t kStepsMax = 4096;
constexpr int64_t kReadBytesMax = int64_t{1} << 24;
// Small and short-lived: copied, so that the collector need not track an external buffer for each.
constexpr size_t kCopiedBytesMax = 4096;

// A path that stays where it is begun.
bool IsPlain(std::string_view path) {
  while (!path.empty()) {
    const size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    if (part.empty() || part == "." || part == ".." || part.find('\0') != std::string_view::npos) return false;
    if (slash == std::string_view::npos) return true;
    path.remove_prefix(slash + 1);
  }
  return false;
}

std::string ReadPath(Reader& reader, const char* name, bool may_be_root = false) {
  std::string path = reader.String(name, kPathBytesMax);
  if (!(may_be_root && path.empty()) && !IsPlain(path)) reader.Fail(kErrInternal, name, "must be a plain path below the root.");
  return path;
}

files::Step ReadStep(Reader& reader, Napi::Array& kept) {
  using files::Call;
  files::Step step;
  const int32_t call = reader.Choice("call", {"folders", "mkdir", "write", "sync", "rename", "link", "unlink", "remove", "prune", "newest", "older", "list"});
  if (call < 0) return step;
  step.call = static_cast<Call>(call);
  const bool of_directory = step.call == Call::kFolders || step.call == Call::kSync || step.call == Call::kPrune || step.call == Call::kList;
  step.path = ReadPath(reader, "path", of_directory);
  if (step.call == Call::kRename || step.call == Call::kLink) step.to = ReadPath(reader, "to");
  if (step.call == Call::kWrite) ReadChunks(reader, &step.chunks, kept);
  if (step.call == Call::kOlder) step.number = reader.Int("number", 1, kExactIntegerMax);
  if (step.call == Call::kNewest) {
    step.offset = reader.Int("offset", 0, kExactIntegerMax);
    step.bytes = reader.Int("bytes", -1, kReadBytesMax);
    if (!reader.IsNull("expected")) step.expected = reader.String("expected", kPathBytesMax);
  }
  return step;
}

class StepsTask final : public Task {
 public:
  StepsTask(files::Steps steps, Napi::ObjectReference kept) : steps_(std::move(steps)), kept_(std::move(kept)) {}
  Progress Work(Status&) override {
    const auto end = std::chrono::steady_clock::now() + kSlice;
    return steps_.Advance([&] { return std::chrono::steady_clock::now() >= end; }) ? Progress::kDone : Progress::kMore;
  }
  Napi::Value Result(Napi::Env env) override {
    Napi::Object out = Napi::Object::New(env);
    out.Set("done", static_cast<double>(steps_.done()));
    out.Set("errno", steps_.error());
    out.Set("rootMissing", steps_.root_missing());
    Napi::Array found = Napi::Array::New(env, steps_.found.size());
    for (uint32_t i = 0; i < steps_.found.size(); ++i) {
      const Napi::HandleScope scope(env);
      found.Set(i, steps_.found[i] ? ToJs(env, *steps_.found[i]) : env.Null());
    }
    out.Set("found", found);
    Napi::Array folders = Napi::Array::New(env, steps_.folders.size());
    for (uint32_t i = 0; i < steps_.folders.size(); ++i) {
      const Napi::HandleScope scope(env);
      folders.Set(i, Napi::String::New(env, steps_.folders[i]));
    }
    out.Set("folders", folders);
    return out;
  }

 private:
  static constexpr std::chrono::milliseconds kSlice{100};

  static Napi::Value ToJs(Napi::Env env, files::Version& version) {
    Napi::Object out = Napi::Object::New(env);
    out.Set("incarnation", version.incarnation);
    out.Set("number", static_cast<double>(version.number));
    out.Set("size", static_cast<double>(version.size));
    out.Set("modifiedMs", version.modified_ms);
    if (version.bytes.size() > kCopiedBytesMax) {
      out.Set("bytes", Take(env, std::move(version.bytes)));
    } else {
      auto bytes = Napi::Uint8Array::New(env, version.bytes.size());
      if (!bytes.IsEmpty()) std::copy(version.bytes.begin(), version.bytes.end(), bytes.Data());
      out.Set("bytes", bytes);
    }
    return out;
  }

  files::Steps steps_;
  Napi::ObjectReference kept_;
};

}  // namespace

Napi::Value FileSteps(Napi::Env env, Napi::Value options) {
  Reader reader("fileSteps.options", options);
  std::string root = reader.String("root", kPathBytesMax);
  if (root.find('\0') != std::string::npos) reader.Fail(kErrInternal, "root", "must be a path.");
  std::vector<files::Step> steps;
  Napi::Array kept = Napi::Array::New(env);
  EachObject(reader, "steps", kStepsMax, [&](Reader& step) { steps.push_back(ReadStep(step, kept)); });
  if (!reader.status().ok()) return Throw(env, reader.status());
  const auto queue = std::make_shared<SerialQueue>(env);
  return queue->Start(std::make_shared<StepsTask>(files::Steps(std::move(root), std::move(steps)), Napi::Persistent(kept.As<Napi::Object>())));
}

}  // namespace rum::bind
