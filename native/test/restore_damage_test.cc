// What passes every CRC and digest and is a lie all the same, as somebody who has the keys could store it, or a manifest that lists the
// wrong objects: refused, and nothing is left behind. Usage: restore_damage_test FIXTURES_DIR MODELS_DIR
#include "checkpoint/journal.h"
#include "core/limits.h"
#include "test/object_fixtures.h"
#include "test/vault.h"

namespace rum::test {
namespace {


Setting Small(int32_t prompt = 40) {
  BackendOptions small;
  small.page_slots = 4;
  return {fixtures + "/models/tiny_qwen3_dms", {}, small, prompt, 36};
}

// One cut with all kinds of objects: 14 of chain 2 and 20 tokens, so that a resume has something to feed again.
struct Case {
  Setting s;
  RunOptions job;
  Bench bench;
  Vault vault;

  explicit Case(int32_t prompt = 40, uint64_t seed = 5) : s(Small(prompt)), job(Job(s, 3)), bench(s), vault(bench.layout_id) {
    job.seed = seed;
    auto run = bench.Start(job);
    vault.Save(*run, true, 3);
    StepTo(*run, 14);
    vault.Save(*run, true, 3);
    StepTo(*run, 20);
    vault.Save(*run, false, 3);
  }

  Status Try(const RestoreOptions& plan) {
    Status status;
    {
      auto run = Run::Restore(bench.backend, bench.model, job, plan);
      status = run.status();
      if (run.ok()) status = (*run)->Prefill();
      if (status.ok()) status = (*run)->Step(2);
    }
    CHECK(bench.backend->Memory().kv_allocated_bytes == 0);
    return status;
  }

  // With object `index` replaced by these bytes.
  Status TryWith(size_t index, const Bytes& bytes) {
    RestoreOptions plan = vault.Plan(3);
    StoredObject& object = plan.objects[index];
    object.chunks = {std::span(bytes)};
    object.bytes = static_cast<int64_t>(bytes.size());
    std::copy_n(bytes.end() - 40, 32, object.digest.begin());
    return Try(plan);
  }
  // Frame bytes changed, CRCs and digests right.
  Status TryChanged(size_t index, int32_t frame, const std::function<void(std::span<uint8_t>)>& change) {
    Bytes bytes = BytesOf(vault.objects[index]);
    FrameEntry entry;
    CHECK(ParseEntry(&bytes[IndexOffset(bytes) + static_cast<size_t>(frame) * kIndexEntryBytes], &entry));
    change(std::span(bytes).subspan(static_cast<size_t>(entry.offset), static_cast<size_t>(entry.stored_bytes)));
    SignFrames(&bytes, nullptr);
    return TryWith(index, bytes);
  }
  bool Refuses(size_t index, int32_t frame, size_t at, int64_t value, size_t width = 4) {
    const Status status = TryChanged(index, frame, [&](std::span<uint8_t> bytes) { std::memcpy(&bytes[at], &value, width); });
    const bool refused = Is(status, kErrCheckpoint) || Is(status, kErrMemory);
    if (!refused) std::printf("    object %zu, frame %d, byte %zu: %s %s\n", index, frame, at, status.ok() ? "OK" : status.code, status.message.c_str());
    return refused;
  }
  size_t Tail(int32_t chain) { return vault.chains[chain].tails.back().second; }
  size_t Segment(int32_t chain) { return vault.chains[chain].segments.back(); }
};

constexpr int64_t kHuge = INT32_MAX;

void ATailThatLiesIsRefused() {
  Case c;
  CHECK_OK(c.Try(c.vault.Plan(3)));
  const size_t tail = c.Tail(2);
  // Frame 0: generated, logits, finish, stop, fed, zero, five sums (the second a maximum), digest of tokens, pages of each head, logits.
  for (const size_t at : {0, 4, 8, 12, 16, 20}) {
    for (const int64_t value : {int64_t{-2}, kHuge}) CHECK(c.Refuses(tail, 0, at, value));
  }
  for (const int64_t value : {13, 15, 0, 20}) CHECK(c.Refuses(tail, 0, 0, value));
  for (const int64_t value : {53, 55, 0}) CHECK(c.Refuses(tail, 0, 16, value));
  CHECK(c.Refuses(tail, 0, 4, 0));
  for (size_t sum = 24; sum < 64; sum += 8) {
    for (const int64_t value : {int64_t{-1}, INT64_MAX, INT64_MIN, kCounterMax + 1}) CHECK(c.Refuses(tail, 0, sum, value, 8));
    if (sum != 32) CHECK(c.Refuses(tail, 0, sum, 1, 8));  // no such count: it shows when the tokens after the cut are fed again
  }
  CHECK(c.Refuses(tail, 0, 64, 0x55, 1));
  for (const int64_t value : {int64_t{-1}, int64_t{1}, int64_t{13}, kHuge}) CHECK(c.Refuses(tail, 0, 80, value));
  for (const int64_t value : {int64_t{0x7fc00000}, int64_t{0x7f800000}, int64_t{0xff800000}}) CHECK(c.Refuses(tail, 0, 80 + 4 * 6 + 8, value));  // NaN, infinities
  // A layer: log count, length, flags of the ring.
  for (const int64_t value : {int64_t{-1}, int64_t{0}, int64_t{5}, kHuge}) CHECK(c.Refuses(tail, 1, 0, value));
  for (const int64_t value : {int64_t{-1}, int64_t{53}, kHuge}) CHECK(c.Refuses(tail, 1, 4, value));
  for (const int64_t value : {2, 255}) CHECK(c.Refuses(tail, 1, 8, value, 1));
}

void ASegmentThatLiesIsRefused() {
  Case c;
  const size_t segment = c.Segment(0);
  for (size_t at = 0; at < 16; at += 4) {
    for (const int64_t value : {int64_t{-1}, int64_t{99}, kHuge}) CHECK(c.Refuses(segment, 0, at, value));
  }
  // Positions of the first page, behind the counts of two heads and its K and V.
  const size_t positions = 16 + 2 * 4 * 16 * 4;
  for (const size_t at : {positions, positions + 4, positions + 12}) {
    for (const int64_t value : {int64_t{-1}, int64_t{0}, int64_t{54}, kHuge}) CHECK(c.Refuses(segment, 0, at, value));
  }
}

void AJournalThatLiesIsRefused() {
  Case c;
  const size_t first = c.vault.journals[0], last = c.vault.journals[2];
  // Job: step, three sums, prompt tokens, heads, digest, decisions from and to.
  for (size_t at = 0; at < 32; at += 8) CHECK(c.Refuses(first, 0, at, -1, 8) && c.Refuses(first, 0, at, INT64_MAX, 8));
  for (const size_t at : {32, 36, 40, 56, 60}) {
    for (const int64_t value : {int64_t{-1}, int64_t{1}, int64_t{7}, kHuge}) CHECK(c.Refuses(first, 0, at, value));
  }
  CHECK(c.Refuses(first, 0, 64, 0xff, 1));  // bits of heads that are not there
  // Chain: index, first token, count, alternatives and one, finish, stop, fed, zero, five sums, tokens, decisions.
  for (const size_t at : {0, 4, 8, 12, 16, 20, 24, 28}) {
    for (const int64_t value : {int64_t{-2}, int64_t{999}, kHuge}) CHECK(c.Refuses(last, 2, at, value));
  }
  for (size_t sum = 32; sum < 72; sum += 8) CHECK(c.Refuses(last, 2, sum, -1, 8) && c.Refuses(last, 2, sum, INT64_MAX, 8) && c.Refuses(last, 2, sum, 1, 8));
  for (const int64_t token : {int64_t{-1}, int64_t{1 << 20}, kHuge}) CHECK(c.Refuses(last, 2, 72, token));
  const size_t decisions = 72 + 4 * 6;
  for (const size_t at : {decisions, decisions + 4}) {
    for (const int64_t value : {int64_t{-1}, int64_t{0}, int64_t{61}, kHuge}) CHECK(c.Refuses(last, 2, at, value));
  }
  // Log-probabilities after a byte of decisions for each token: of 6 tokens, then 12 ids, then theirs. Above 0, minus infinity, NaN.
  const size_t logprobs = decisions + 8 + 6, ids = logprobs + 4 * 6, values = ids + 4 * 12;
  for (const size_t at : {logprobs, values, values + 4 * 11}) {
    for (const int64_t bits : {int64_t{0x3f800000}, int64_t{0xff800000}, int64_t{0x7fc00000}}) CHECK(c.Refuses(last, 2, at, bits));
  }
  for (const int64_t id : {int64_t{-1}, int64_t{1 << 20}, kHuge}) CHECK(c.Refuses(last, 2, ids, id) && c.Refuses(last, 2, values - 4, id));
  c.job.logprobs = 3;
  CHECK(Is(c.Try(c.vault.Plan(3)), kErrCheckpoint));  // what the journals lack cannot be made up for
  c.job.logprobs = -1;
  CHECK_OK(c.Try(c.vault.Plan(3)));
}

void AManifestThatListsOtherObjectsIsRefused() {
  Case c;
  int number = 0;
  const auto refuses = [&](const std::function<void(RestoreOptions&)>& change) {
    RestoreOptions plan = c.vault.Plan(3);
    change(plan);
    const Status status = c.Try(plan);
    ++number;
    if (!CHECK(Is(status, kErrCheckpoint))) std::printf("    list %d: %s %s\n", number, status.ok() ? "OK" : status.code, status.message.c_str());
  };
  refuses([&](RestoreOptions& p) { p.chains[0].tail = c.Tail(2); });  // another chain's
  refuses([&](RestoreOptions& p) { std::swap(p.chains[0].tail, p.chains[2].tail); });
  refuses([&](RestoreOptions& p) { p.prompt_tail = c.Tail(0), p.chains[0].tail = {}; });
  refuses([&](RestoreOptions& p) { p.chains[0].tail = c.Segment(0); });
  refuses([&](RestoreOptions& p) { p.chains[0].segments = {*p.chains[0].tail}; });
  refuses([&](RestoreOptions& p) { std::swap(p.chains[0].segments[0], p.chains[0].segments[1]); });
  refuses([&](RestoreOptions& p) { p.chains[0].segments.pop_back(); });
  refuses([&](RestoreOptions& p) { p.chains[0].segments.erase(p.chains[0].segments.begin()); });
  refuses([&](RestoreOptions& p) { p.chains[0].segments.clear(); });
  refuses([&](RestoreOptions& p) { p.chains[0].segments.push_back(p.chains[0].segments[1]); });
  refuses([&](RestoreOptions& p) { std::swap(p.journals[0], p.journals[1]); });
  refuses([&](RestoreOptions& p) { p.journals.erase(p.journals.begin() + 1); });
  refuses([&](RestoreOptions& p) { p.journals.push_back(p.journals[2]); });
  refuses([&](RestoreOptions& p) { p.journals.clear(); });
  refuses([&](RestoreOptions& p) { p.journals.resize(1); });
  refuses([&](RestoreOptions& p) { p.journals[1] = *p.prompt_tail; });
  refuses([&](RestoreOptions& p) { p.own_journal = false, p.chains[0].source = 7; });
  refuses([&](RestoreOptions& p) { p.own_journal = false, p.chains[0].tokens = 99; });
  const auto asks_for_what_is_not_there = [&](const std::function<void(RestoreOptions&)>& change) {
    RestoreOptions plan = c.vault.Plan(3);
    change(plan);
    CHECK(Is(c.Try(plan), kErrOption));
  };
  asks_for_what_is_not_there([&](RestoreOptions& p) { p.chains[0].tail = 9999; });
  asks_for_what_is_not_there([&](RestoreOptions& p) { p.objects[p.journals[0]].seal = 3; });
  asks_for_what_is_not_there([&](RestoreOptions& p) { p.chains.pop_back(); });
  asks_for_what_is_not_there([&](RestoreOptions& p) { p.chains[0].source = 1; });
}

void AnotherJobsObjectsAreRefused() {
  Case c, seeded(40, 6), shorter(39);
  const auto take = [&](Case& from, bool tail, bool journals) {
    RestoreOptions plan = c.vault.Plan(3), other = from.vault.Plan(3);
    for (StoredObject& object : other.objects) plan.objects.push_back(std::move(object));
    const size_t base = c.vault.objects.size();
    if (tail) plan.chains[2].tail = base + from.Tail(2);
    for (size_t j = 0; j < plan.journals.size() && journals; ++j) plan.journals[j] = base + from.vault.journals[j];
    return Is(c.Try(plan), kErrCheckpoint);
  };
  CHECK(take(seeded, true, false) && take(seeded, false, true));
  CHECK(take(shorter, true, false) && take(shorter, false, true) && take(shorter, true, true));
}

// Flips all over: whatever comes of it is an answer or an error that has a name, and no byte of KV stays.
void NoFlipCrashesOrLeaks() {
  Case c;
  std::mt19937 random(1);
  for (const size_t index : {c.Tail(2), c.Segment(0), c.vault.prompt_segments[0], *c.vault.prompt_tail, c.vault.journals[0], c.vault.journals[1]}) {
    for (int flip = 0; flip < 150; ++flip) {
      Bytes bytes = BytesOf(c.vault.objects[index]);
      const size_t body = IndexOffset(bytes) - kHeaderBytes;
      // Mostly where frames have their counts.
      const size_t at = kHeaderBytes + (flip % 3 == 0 ? random() % body : (random() % 4 * 4096 + random() % 256) % body);
      bytes[at] = static_cast<uint8_t>(bytes[at] ^ (1 << random() % 8));
      SignFrames(&bytes, nullptr);
      const Status status = c.TryWith(index, bytes);
      CHECK(status.ok() || Is(status, kErrCheckpoint) || Is(status, kErrMemory) || Is(status, kErrNumerics));
    }
  }
}

}  // namespace
}  // namespace rum::test

int main(int argc, char** argv) {
  using namespace rum::test;
  return RunAllWithDirs(argc, argv, {
      {"a tail that lies is refused", ATailThatLiesIsRefused},
      {"a segment that lies is refused", ASegmentThatLiesIsRefused},
      {"a journal that lies is refused", AJournalThatLiesIsRefused},
      {"a manifest that lists other objects is refused", AManifestThatListsOtherObjectsIsRefused},
      {"another job's objects are refused", AnotherJobsObjectsAreRefused},
      {"no flip crashes or leaks", NoFlipCrashesOrLeaks},
  });
}
