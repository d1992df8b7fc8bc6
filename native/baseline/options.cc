#include "baseline/options.h"

#include <algorithm>
#include <charconv>
#include <system_error>

#include "core/limits.h"
#include "model/json.h"

namespace rum::baseline {
namespace {

struct Policy {
  const char* name;
  PolicyKind kind;
  KvpressScorer scorer;  // kvpress
  const char* parameters[3];
};

constexpr Policy kPolicies[] = {
    {"tova", PolicyKind::kTova, {}, {"budget"}},
    {"tova_kvhead", PolicyKind::kTovaHead, {}, {"budget"}},
    {"h2o", PolicyKind::kH2o, {}, {"budget", "recent"}},
    {"quest", PolicyKind::kQuest, {}, {"budget", "page", "dense_layers"}},
    {"streaming_llm", PolicyKind::kStreaming, {}, {"budget", "sinks"}},
    {"kvpress_tova", PolicyKind::kKvpress, KvpressScorer::kTova, {"ratio"}},
    {"kvpress_observed_attention", PolicyKind::kKvpress, KvpressScorer::kObservedAttention, {"ratio"}},
    {"kvpress_streaming_llm", PolicyKind::kKvpress, KvpressScorer::kStreaming, {"ratio", "sinks"}},
    {"kvpress_snapkv", PolicyKind::kKvpress, KvpressScorer::kSnapKv, {"ratio", "window", "kernel"}},
    {"kvpress_expected_attention", PolicyKind::kKvpress, KvpressScorer::kExpectedAttention, {"ratio", "sinks", "future"}},
    {"kvpress_knorm", PolicyKind::kKvpress, KvpressScorer::kKnorm, {"ratio"}},
};

// The whole-number parameters; `ratio` stands apart.
struct Parameter {
  std::string_view key;
  int32_t BaselineSpec::* field;
  int64_t min, max;
};
constexpr Parameter kParameters[] = {
    {"budget", &BaselineSpec::budget, 1, kPositionsMax},   {"recent", &BaselineSpec::recent, 0, kPositionsMax},
    {"sinks", &BaselineSpec::sinks, 0, kPositionsMax},     {"page", &BaselineSpec::page, 1, kPositionsMax},
    {"window", &BaselineSpec::window, 1, kPositionsMax},   {"dense_layers", &BaselineSpec::dense_layers, 0, kLayersMax},
    {"kernel", &BaselineSpec::kernel, 1, kPositionsMax},   {"future", &BaselineSpec::future, 1, kPositionsMax},
};

const std::string* Find(const PolicyOverrides& overrides, std::string_view key) {
  const auto it = std::ranges::find(overrides, key, &PolicyOverrides::value_type::first);
  return it == overrides.end() ? nullptr : &it->second;
}

const Policy* FindPolicy(std::string_view name) {
  const auto it = std::ranges::find(kPolicies, name, &Policy::name);
  return it == std::end(kPolicies) ? nullptr : &*it;
}

Status Bad(const std::string& key, const std::string& value, const std::string& expected) {
  return Error(kErrOption, "policy option " + key + " must be " + expected + ", found " + Quote(value));
}

template <class T>
bool ParseAll(const std::string& text, T* number) {
  const char* end = text.data() + text.size();
  auto [rest, error] = std::from_chars(text.data(), end, *number);
  return error == std::errc() && rest == end;
}

Status ApplyParameter(const std::string& key, const std::string& value, BaselineSpec& spec) {
  if (key == "ratio") {
    const bool usable = ParseAll(value, &spec.ratio) && spec.ratio >= 0.0 && spec.ratio < 1.0;
    return usable ? Status::Ok() : Bad(key, value, "a number from 0 to below 1");
  }
  const Parameter& parameter = *std::ranges::find(kParameters, key, &Parameter::key);
  int64_t number = 0;
  if (!ParseAll(value, &number) || number < parameter.min || number > parameter.max) {
    return Bad(key, value, "a whole number from " + std::to_string(parameter.min) + " to " + std::to_string(parameter.max));
  }
  spec.*parameter.field = static_cast<int32_t>(number);
  return Status::Ok();
}

// What the parameters must be to each other.
Status CheckSpec(const PolicySpec& policy) {
  const BaselineSpec& spec = policy.baseline;
  const auto below_budget = [&](const char* key, int32_t value, int32_t max) {
    return value <= max ? Status::Ok() : Bad(key, std::to_string(value), "at most " + std::to_string(max) + " with a budget of " + std::to_string(spec.budget));
  };
  switch (policy.kind) {
    case PolicyKind::kH2o: return below_budget("recent", spec.recent, spec.budget);
    case PolicyKind::kQuest: return below_budget("page", spec.page, spec.budget);
    case PolicyKind::kStreaming: return below_budget("sinks", spec.sinks, spec.budget - 1);
    default: return spec.kernel % 2 == 1 ? Status::Ok() : Bad("kernel", std::to_string(spec.kernel), "odd");
  }
}

}  // namespace

bool IsNamedBy(const PolicyOverrides& overrides) {
  const std::string* name = Find(overrides, "policy");
  return name != nullptr && (*name == "dmc" || FindPolicy(*name) != nullptr);
}

Status ApplyOverrides(const PolicyOverrides& overrides, PolicySpec& policy) {
  const std::string& name = *Find(overrides, "policy");
  if (name == "dmc") {
    return Error(kErrOption, "policy dmc is not supported: DMC merges tokens only in a model trained for it, no such checkpoint is "
                             "known here, and its published rule leaves open what happens to the borrowed channels (docs/baselines.md)");
  }
  const Policy& named = *FindPolicy(name);
  policy = PolicySpec{};
  policy.kind = named.kind;
  policy.baseline.scorer = named.scorer;
  policy.reason = name + ": asked for with policy=" + name + "; a baseline for evaluation";
  bool recent_is_given = false;
  for (auto it = overrides.begin(); it != overrides.end(); ++it) {
    const auto& [key, value] = *it;
    if (std::any_of(overrides.begin(), it, [&](const auto& earlier) { return earlier.first == it->first; })) {
      return Error(kErrOption, "policy option " + key + " is given twice");
    }
    if (key == "policy") continue;
    const auto takes = [&](const char* parameter) { return parameter != nullptr && key == parameter; };
    if (std::ranges::none_of(named.parameters, takes)) {
      std::string valid;
      for (const char* parameter : named.parameters) valid += parameter ? std::string(valid.empty() ? "" : ", ") + parameter : "";
      return Error(kErrOption, "policy option " + Quote(key) + " is no parameter of " + name + "; valid: " + valid);
    }
    if (Status status = ApplyParameter(key, value, policy.baseline); !status.ok()) return status;
    recent_is_given |= key == "recent";
  }
  if (policy.kind != PolicyKind::kKvpress && policy.baseline.budget == 0) {
    return Error(kErrOption, "policy " + name + " needs budget=N: the tokens that a KV head may keep");
  }
  if (!recent_is_given) policy.baseline.recent = policy.baseline.budget / 2;
  return CheckSpec(policy);
}

const char* Name(const PolicySpec& policy) {
  const auto is_it = [&](const Policy& p) {
    return p.kind == policy.kind && (p.kind != PolicyKind::kKvpress || p.scorer == policy.baseline.scorer);
  };
  return std::ranges::find_if(kPolicies, is_it)->name;
}

}  // namespace rum::baseline
