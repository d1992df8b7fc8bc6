#include "bind/checkpoint_bind.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bind/handle.h"
#include "bind/prepare_bind.h"
#include "bind/sources.h"
#include "checkpoint/journal.h"
#include "checkpoint/model_digest.h"

namespace rum::bind {
namespace {

std::vector<size_t> Indices(Reader& reader, const char* name) {
  const std::vector<int32_t> list = reader.Ints(name, kObjectsMax, 0, kObjectsMax);
  return {list.begin(), list.end()};
}

std::optional<size_t> Index(Reader& reader, const char* name) {
  if (reader.IsNull(name)) return std::nullopt;
  return static_cast<size_t>(reader.Int(name, 0, kObjectsMax));
}

RestoreChain ReadRestoreChain(Reader& item) {
  RestoreChain chain;
  chain.source = item.Int32("source", -1, INT32_MAX);
  chain.tokens = item.Int32("tokens", -1, INT32_MAX);
  chain.reopen = item.Bool("reopen");
  chain.segments = Indices(item, "segments");
  chain.tail = Index(item, "tail");
  return chain;
}

// An object's bytes, of which an array of JS has the use.
struct Lent {
  std::shared_ptr<AddonData> addon;
  MappedBuffer bytes;

  static void Return(Napi::Env, void*, Lent* lent) {
    const std::unique_ptr<Lent> back(lent);
    if (!back->addon->stopping) back->addon->reclaimer.Take(std::move(back->bytes));
  }
};

class SaveTask final : public Task {
 public:
  SaveTask(std::shared_ptr<RunHandle> run, SaveOptions options, OwnedSeal seal) : run_(std::move(run)), options_(std::move(options)), seal_(std::move(seal)) {
    options_.seal = seal_.Borrow();
  }
  ~SaveTask() override {
    if (run_->closed) run_->Release();
  }
  Progress Work(Status& status) override {
    auto parts = run_->run->Save(options_);
    report_ = run_->run->Report();
    memory_ = run_->core->backend->Memory();
    if (parts.ok()) {
      parts_ = std::move(*parts);
    } else {
      status = parts.status();
    }
    return Progress::kDone;
  }
  void AfterSlice() override {
    run_->snapshot = report_;
    run_->core->memory = memory_;
  }
  Napi::Value Result(Napi::Env env) override {
    const auto addon = *env.GetInstanceData<std::shared_ptr<AddonData>>();
    Napi::Array objects = Napi::Array::New(env, parts_.size());
    for (uint32_t i = 0; i < parts_.size(); ++i) {
      const Napi::HandleScope scope(env);
      SavedPart& part = parts_[i];
      Napi::Object out = Napi::Object::New(env);
      out.Set("kind", ObjectKindName(part.header.kind));
      out.Set("chain", part.header.chain);
      out.Set("nonce", Hex(part.header.nonce));
      out.Set("generated", part.generated);
      out.Set("digest", Hex(part.object.digest));
      // Its bytes stay where they are and go with the array.
      auto owner = std::make_unique<Lent>(addon, std::move(part.object.bytes));
      const auto size = static_cast<size_t>(part.object.size);
      const auto buffer = Napi::ArrayBuffer::New(env, owner->bytes.data(), size, Lent::Return, owner.get());
      if (buffer.IsEmpty()) return buffer;
      owner.release();
      out.Set("bytes", Napi::Uint8Array::New(env, size, buffer, 0));
      objects.Set(i, out);
    }
    Napi::Object out = Napi::Object::New(env);
    out.Set("report", ToJs(env, report_));
    out.Set("objects", objects);
    return out;
  }

 private:
  std::shared_ptr<RunHandle> run_;
  SaveOptions options_;
  OwnedSeal seal_;
  std::vector<SavedPart> parts_;
  RunReport report_;
  MemoryUse memory_;
};

class RestoreTask final : public Task {
 public:
  RestoreTask(std::shared_ptr<EngineCore> core, RunOptions options, RestoreOptions restore, Sources sources, std::shared_ptr<PreparedMemory> prepared)
      : core_(std::move(core)), options_(std::move(options)), restore_(std::move(restore)), sources_(std::move(sources)), prepared_(std::move(prepared)) {
    restore_.seals = Borrow(sources_.seals);
    restore_.prepared = prepared_.get();
  }
  // A run that nobody took holds chains of a backend that another slice may be using.
  ~RestoreTask() override {
    if (run_ != nullptr) core_->queue->WhenIdle([run = std::move(run_)] {});
  }
  Progress Work(Status& status) override {
    auto run = Run::Restore(core_->backend, core_->model, std::move(options_), restore_);
    if (prepared_ != nullptr) prepared_->Close();
    memory_ = core_->backend->Memory();
    if (run.ok()) {
      run_ = std::move(*run);
    } else {
      status = run.status();
    }
    return Progress::kDone;
  }
  void AfterSlice() override { core_->memory = memory_; }
  Napi::Value Result(Napi::Env env) override {
    auto handle = std::make_shared<RunHandle>();
    handle->core = core_;
    handle->run = std::move(run_);
    handle->snapshot = handle->run->Report();
    return Handle<RunHandle>::New(env, std::move(handle));
  }

 private:
  std::shared_ptr<EngineCore> core_;
  RunOptions options_;
  RestoreOptions restore_;
  Sources sources_;
  std::shared_ptr<PreparedMemory> prepared_;
  std::shared_ptr<Run> run_;
  MemoryUse memory_;
};

class IdentityTask final : public Task {
 public:
  explicit IdentityTask(std::shared_ptr<EngineCore> core) : core_(std::move(core)), hasher_(*core_->model) {}
  Progress Work(Status&) override {
    Backend& backend = *core_->backend;
    const ParallelFor parallel = [&backend](int64_t items, const std::function<void(int64_t)>& f) {
      backend.RunOnThreads(items, items << 24, [&f](int64_t begin, int64_t end, int32_t) {
        for (int64_t i = begin; i < end; ++i) f(i);
      });
    };
    const auto deadline = std::chrono::steady_clock::now() + kSlice;
    while (!hasher_.done() && !cancelled() && std::chrono::steady_clock::now() < deadline) hasher_.Advance(backend.threads(), parallel);
    return hasher_.done() ? Progress::kDone : Progress::kMore;
  }
  Napi::Value Result(Napi::Env env) override {
    Napi::Object out = Napi::Object::New(env);
    out.Set("layoutId", Hex(core_->layout_id));
    out.Set("weightsDigest", Hex(hasher_.Finish()));
    out.Set("numericsId", kNumericsId);
    return out;
  }

 private:
  static constexpr std::chrono::milliseconds kSlice{100};
  std::shared_ptr<EngineCore> core_;
  WeightsHasher hasher_;
};

class JournalsTask final : public Task {
 public:
  JournalsTask(Sources sources, LayoutId layout_id, int32_t vocab, bool check_digests)
      : sources_(std::move(sources)), layout_id_(layout_id), vocab_(vocab), check_digests_(check_digests) {}
  Progress Work(Status& status) override {
    const std::vector<Seal> seals = Borrow(sources_.seals);
    for (const StoredObject& object : sources_.objects) {
      if (object.seal >= seals.size()) {
        status = Error(kErrOption, "decodeJournals: there is no such seal");
        return Progress::kDone;
      }
      const Expect expect{ObjectKind::kJournal, layout_id_, object.bytes, &object.digest, check_digests_};
      auto reader = ObjectReader::Open(object.chunks, expect, seals[object.seal]);
      status = reader.status();
      if (!reader.ok()) return Progress::kDone;
      auto journal = LoadJournal(*reader, vocab_);
      status = journal.ok() ? Fold(*journal, &journal_) : journal.status();
      if (!status.ok()) return Progress::kDone;
    }
    return Progress::kDone;
  }
  Napi::Value Result(Napi::Env env) override {
    RunReport report;
    report.step = journal_.job.step;
    report.prefilled = true;
    report.prefill_read_sum = journal_.job.prefill_read_sum;
    report.shared_sum = journal_.job.shared_sum;
    Napi::Array indices = Napi::Array::New(env, journal_.chains.size());
    uint32_t at = 0;
    for (const auto& [index, chain] : journal_.chains) {
      report.running += chain.report.finish == Finish::kNone ? 1 : 0;
      report.chains.push_back(chain.report);
      indices.Set(at++, index);
    }
    Napi::Object out = Napi::Object::New(env);
    out.Set("report", ToJs(env, report));
    out.Set("chains", indices);
    out.Set("promptTokens", journal_.job.prompt_tokens);
    return out;
  }

 private:
  Sources sources_;
  LayoutId layout_id_;
  int32_t vocab_;
  bool check_digests_;
  Journal journal_;
};

// Every byte of one object, without an engine and without using any of it.
class VerifyTask final : public Task {
 public:
  static constexpr std::chrono::milliseconds kSlice{100};
  VerifyTask(StoredObject object, OwnedSeal seal, Expect expect, Napi::ObjectReference keep)
      : object_(std::move(object)), seal_(std::move(seal)), expect_(expect), keep_(std::move(keep)) {
    expect_.bytes = object_.bytes;
    expect_.digest = &object_.digest;
  }
  Progress Work(Status& status) override {
    if (!reader_) {
      auto opened = ObjectReader::Open(object_.chunks, expect_, seal_.Borrow());
      status = opened.status();
      if (!opened.ok()) return Progress::kDone;
      reader_.emplace(std::move(*opened));
    }
    const auto end = std::chrono::steady_clock::now() + kSlice;
    for (; frame_ < reader_->frames(); ++frame_) {
      if (std::chrono::steady_clock::now() >= end) return Progress::kMore;
      status = reader_->ReadFrame(frame_, [](std::span<const uint8_t>) { return Status::Ok(); });
      if (!status.ok()) return Progress::kDone;
      raw_bytes_ += reader_->raw_bytes(frame_);
    }
    return Progress::kDone;
  }
  Napi::Value Result(Napi::Env env) override {
    Napi::Object out = Napi::Object::New(env);
    out.Set("frames", frame_);
    out.Set("rawBytes", static_cast<double>(raw_bytes_));
    return out;
  }

 private:
  StoredObject object_;
  OwnedSeal seal_;
  Expect expect_;
  Napi::ObjectReference keep_;
  std::optional<ObjectReader> reader_;
  int32_t frame_ = 0;
  int64_t raw_bytes_ = 0;
};

}  // namespace

Napi::Value RunSave(Napi::Env env, const std::shared_ptr<RunHandle>& run, Napi::Value options) {
  Reader reader("save.options", options);
  SaveOptions save;
  save.delta = reader.Bool("delta");
  save.epoch = static_cast<uint64_t>(reader.Int("epoch", 0, (int64_t{1} << 53) - 1));
  save.n = static_cast<uint32_t>(reader.Int("n", 0, UINT32_MAX));
  save.codec = reader.Choice("codec", {"raw", "lossless"}) == 1 ? Codec::kPlanesZstd : Codec::kRaw;
  OwnedSeal seal = ReadSeal(reader);
  if (!reader.status().ok()) return Throw(env, reader.status());
  if (const Status status = CheckUsable(*run); !status.ok()) return Throw(env, status);
  save.layout_id = run->core->layout_id;
  const auto task = std::make_shared<SaveTask>(run, std::move(save), std::move(seal));
  run->call = task;
  return run->core->queue->Start(task);
}

Napi::Value RestoreRun(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value options) {
  Reader reader("restoreRun.options", options);
  Reader run(reader.PathOf("run"), reader.Object("run"));
  RunOptions request;
  if (reader.status().ok()) request = ReadRunOptions(run);
  reader.Merge(run.status());
  RestoreOptions restore;
  restore.check_digests = reader.Bool("checkDigests");
  restore.replay = reader.Bool("replay");
  restore.own_journal = reader.Bool("ownJournal");
  EachObject(reader, "chains", static_cast<size_t>(kRunWidthMax), [&](Reader& item) { restore.chains.push_back(ReadRestoreChain(item)); });
  if (!reader.IsNull("prefix")) {
    Reader prefix(reader.PathOf("prefix"), reader.Object("prefix"));
    if (prefix.status().ok()) restore.prefix = ReadRestoreChain(prefix);
    reader.Merge(prefix.status());
  }
  restore.prompt_segments = Indices(reader, "promptSegments");
  restore.prompt_tail = Index(reader, "promptTail");
  restore.journals = Indices(reader, "journals");
  EachObject(reader, "shardJournals", static_cast<size_t>(kRunWidthMax), [&](Reader& item) { restore.shard_journals.push_back(Indices(item, "journals")); });
  std::shared_ptr<PreparedHandle> prepared;
  if (!reader.IsNull("prepared")) {
    prepared = Handle<PreparedHandle>::Get(reader.External("prepared"));
    if (prepared == nullptr) reader.Fail(kErrInternal, "prepared", "must be what prepareRestore gave.");
  }
  Sources sources;
  ReadSources(env, reader, &sources);
  if (!reader.status().ok()) return Throw(env, reader.status());
  if (engine->core == nullptr) return Throw(env, Error(kErrDisposed, "the engine is closed."));
  if (prepared != nullptr && prepared->core == nullptr) return Throw(env, Error(kErrDisposed, "the prepared memory is closed."));
  if (prepared != nullptr && prepared->core != engine->core) return Throw(env, Error(kErrOption, "restore: the prepared memory is another engine's."));
  restore.layout_id = engine->core->layout_id;
  restore.objects = sources.objects;
  return engine->core->queue->Start(
      std::make_shared<RestoreTask>(engine->core, std::move(request), std::move(restore), std::move(sources), prepared == nullptr ? nullptr : prepared->memory));
}

Napi::Value EngineIdentity(Napi::Env env, const std::shared_ptr<EngineHandle>& engine, Napi::Value) {
  if (engine->core == nullptr) return Throw(env, Error(kErrDisposed, "the engine is closed."));
  if (!engine->call.expired()) return Throw(env, Error(kErrBusy, "a call of this engine is in flight."));
  const auto task = std::make_shared<IdentityTask>(engine->core);
  engine->call = task;
  return engine->core->queue->Start(task);
}

Napi::Value DecodeJournals(Napi::Env env, Napi::Value options) {
  Reader reader("decodeJournals.options", options);
  const auto layout_id = FromHex<16>(reader, "layoutId");
  const int32_t vocab = reader.Int32("vocabSize", 1, 1 << 24);
  const bool check_digests = reader.Bool("checkDigests");
  Sources sources;
  ReadSources(env, reader, &sources);
  if (!reader.status().ok()) return Throw(env, reader.status());
  const auto queue = std::make_shared<SerialQueue>(env);
  return queue->Start(std::make_shared<JournalsTask>(std::move(sources), layout_id, vocab, check_digests));
}

Napi::Value VerifyObject(Napi::Env env, Napi::Value options) {
  Reader reader("verifyObject.options", options);
  Expect expect;
  expect.kind = static_cast<ObjectKind>(1 + std::max(0, reader.Choice("kind", {"segment", "tail", "journal"})));
  if (!reader.IsNull("layoutId")) expect.layout_id = FromHex<16>(reader, "layoutId");
  expect.keyless = reader.IsNull("seal");
  OwnedSeal seal;
  if (!expect.keyless) {
    Reader given(reader.PathOf("seal"), reader.Object("seal"));
    if (given.status().ok()) seal = ReadSeal(given);
    reader.Merge(given.status());
  }
  Napi::Array kept = Napi::Array::New(env);
  StoredObject object = ReadStoredObject(reader, kept);
  if (!reader.status().ok()) return Throw(env, reader.status());
  const auto queue = std::make_shared<SerialQueue>(env);
  return queue->Start(std::make_shared<VerifyTask>(std::move(object), std::move(seal), expect, Napi::Persistent(kept.As<Napi::Object>())));
}

}  // namespace rum::bind
