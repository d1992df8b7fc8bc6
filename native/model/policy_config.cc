#include "model/policy_config.h"

#include <algorithm>
#include <charconv>
#include <span>
#include <system_error>

#include "baseline/options.h"
#include "core/limits.h"
#include "model/json.h"

namespace rum {

namespace dom = simdjson::dom;

namespace {

// METHOD.md 1.6: config.json states DMS iff any of these is present. Its own window is larger than that of third-party files.
constexpr std::string_view kDmsKeys[] = {"dms_window_size", "dms_alpha_scale", "dms_initial_alpha_offset", "dms_cr"};
constexpr int32_t kDmsWindowDefault = 512;
constexpr int32_t kThirdPartyWindowDefault = 256;

// The names of METHOD.md 1.2 for one value, the preferred one first.
using Aliases = std::span<const std::string_view>;
constexpr std::string_view kWindow[] = {"window_size", "dms_window_size"};
constexpr std::string_view kScale[] = {"alpha_scale", "dms_alpha_scale"};
constexpr std::string_view kOffset[] = {"alpha_offset", "dms_alpha_offset", "dms_initial_alpha_offset"};
constexpr std::string_view kRatio[] = {"target_cr", "dms_cr"};

// The name that `in` has. In config.json a name without the prefix belongs to something else.
std::string_view NameIn(const FieldReader& in, Aliases names, bool prefixed) {
  std::string_view last;
  for (const std::string_view name : names) {
    if (prefixed && !name.starts_with("dms_")) continue;
    last = name;
    if (in.Has(name)) break;
  }
  return last;
}

void ReadParameters(FieldReader& in, bool prefixed, int32_t window_default, PolicySpec& policy) {
  const auto name = [&](Aliases names) { return NameIn(in, names, prefixed); };
  policy.window = static_cast<int32_t>(in.WholeNumber(name(kWindow), kDmsWindowMin, kDmsWindowMax, window_default));
  policy.alpha_scale = static_cast<float>(in.Number(name(kScale), 0, kDmsAlphaMax, 100.0));
  policy.alpha_offset = static_cast<float>(in.Number(name(kOffset), -kDmsAlphaMax, kDmsAlphaMax, 5.0));
  policy.target_cr = static_cast<float>(in.Number(name(kRatio), 1, kDmsCrMax, 1.0));
}

// How decisions are made stands in config.json alone, whichever file has the numbers.
void ReadFlavour(FieldReader& config, PolicySpec& policy) {
  const bool separate = config.Bool("dms_separate_alpha", false);
  policy.kind = separate ? PolicyKind::kDmsSeparate : PolicyKind::kDmsBorrowed;
  policy.reason += separate ? "; dms_separate_alpha is true, so decisions come from separate alpha projections"
                            : "; dms_separate_alpha is not true, so decisions come from the borrowed query channel";
  policy.disable_eviction = config.Bool("dms_disable_eviction", false);
  const std::string per = config.String("dms_alpha_per", "head");
  if (per != "head" && per != "layer") config.Fail("dms_alpha_per", "must be \"head\" or \"layer\", found " + Quote(per));
  policy.alpha_per_layer = per == "layer";
  if (policy.alpha_per_layer && !separate) config.Fail("dms_alpha_per", "\"layer\" needs dms_separate_alpha true");
}

// The numbers of a third-party file.
Expected<PolicySpec> ReadThirdParty(dom::object object, const char* file) {
  FieldReader in(object, kErrModelConfig, file);
  PolicySpec policy;
  ReadParameters(in, false, kThirdPartyWindowDefault, policy);
  policy.reason = std::string("DMS: stated by ") + file;
  const int64_t context = in.WholeNumber("context_len", 1, kPositionsMax, 0);
  if (context > 0) policy.reason += " (trained at a context of " + std::to_string(context) + ")";
  if (!in.status().ok()) return in.status();
  return policy;
}

// The "config" object of a file if it has one, else the file's own object.
Expected<dom::object> ConfigObject(const JsonDocument& document, const char* file) {
  FieldReader in(document.root(), kErrModelConfig, file);
  const auto config = in.Object("config");
  if (!in.status().ok()) return in.status();
  return config.value_or(document.root());
}

// The log lies outside the model's directory and its name is common: one that is no JSON object, or whose "config" says nothing of
// DMS, is somebody else's.
bool StatesDms(const JsonDocument& log) {
  FieldReader in(log.root(), kErrModelConfig, "");
  const auto object = in.Object("config");
  if (!object) return false;
  const FieldReader config(*object, kErrModelConfig, "");
  for (const Aliases names : {Aliases(kScale), Aliases(kOffset), Aliases(kRatio)}) {
    if (std::ranges::any_of(names, [&](std::string_view name) { return config.Has(name); })) return true;
  }
  return config.Has("dms_window_size");
}

// nullopt: config.json is left.
Expected<std::optional<PolicySpec>> ReadBesides(const ConfigTexts& texts) {
  constexpr const char *kMetadata = "dms_metadata.json", *kLog = "../training_log.json";
  const auto read = [](const JsonDocument& document, const char* file) -> Expected<std::optional<PolicySpec>> {
    const auto object = ConfigObject(document, file);
    if (!object.ok()) return object.status();
    auto policy = ReadThirdParty(*object, file);
    if (!policy.ok()) return policy.status();
    return std::optional(std::move(*policy));
  };
  if (!texts.dms_metadata.empty()) {
    const auto document = JsonDocument::Parse(texts.dms_metadata, kConfigJsonDepthMax, kErrModelConfig, kMetadata);
    if (!document.ok()) return document.status();
    return read(*document, kMetadata);
  }
  if (!texts.training_log.empty()) {
    const auto document = JsonDocument::Parse(texts.training_log, kConfigJsonDepthMax, kErrModelConfig, kLog);
    if (document.ok() && StatesDms(*document)) return read(*document, kLog);
  }
  return std::optional<PolicySpec>{};
}

Status BadOption(const std::string& key, const std::string& value, const std::string& expected) {
  return Error(kErrOption, "policy option " + key + " must be " + expected + ", found " + Quote(value));
}

// The whole string as a number in [min, max]; from_chars ignores the locale and takes no leading space or plus sign.
template <class T>
bool ParseNumber(const std::string& text, T min, T max, T* number) {
  const char* end = text.data() + text.size();
  auto [rest, error] = std::from_chars(text.data(), end, *number);
  return error == std::errc() && rest == end && *number >= min && *number <= max;  // NaN fails the comparison
}

bool ParseBool(const std::string& text, bool* flag) {
  *flag = text == "true";
  return text == "true" || text == "false";
}

// One parameter over the policy; the policy is DMS. "policy" itself has been applied.
Status ApplyParameter(const std::string& key, const std::string& value, PolicySpec& policy) {
  if (key == "window") {
    int64_t window = 0;
    if (!ParseNumber(value, kDmsWindowMin, kDmsWindowMax, &window)) {
      return BadOption(key, value, "a whole number from 1 to " + std::to_string(kDmsWindowMax));
    }
    policy.window = static_cast<int32_t>(window);
  } else if (key == "alpha_scale") {
    double scale = 0;
    if (!ParseNumber(value, 0.0, kDmsAlphaMax, &scale)) return BadOption(key, value, "a number from 0 to 1e6");
    policy.alpha_scale = static_cast<float>(scale);
  } else if (key == "alpha_offset") {
    double offset = 0;
    if (!ParseNumber(value, -kDmsAlphaMax, kDmsAlphaMax, &offset)) return BadOption(key, value, "a number from -1e6 to 1e6");
    policy.alpha_offset = static_cast<float>(offset);
  } else if (key == "alpha_per") {
    if (value != "head" && value != "layer") return BadOption(key, value, "head or layer");
    policy.alpha_per_layer = value == "layer";
    if (policy.alpha_per_layer && policy.kind != PolicyKind::kDmsSeparate) {
      return Error(kErrOption, "policy option alpha_per=layer needs a model with separate alpha projections");
    }
  } else if (key == "disable_eviction") {
    if (!ParseBool(value, &policy.disable_eviction)) return BadOption(key, value, "true or false");
  }
  return Status::Ok();
}

Status ApplyPolicyName(const std::string& value, PolicySpec& policy) {
  if (value == "dense") {
    policy = PolicySpec{};
    policy.reason = "dense: asked for with policy=dense";
  } else if (value == "dms") {
    if (policy.kind != PolicyKind::kDense) return Status::Ok();
    policy.kind = PolicyKind::kDmsBorrowed;
    policy.window = kDmsWindowDefault;
    policy.reason = "DMS: asked for with policy=dms; without DMS metadata, so the borrowed query channel and defaults";
  } else if (value != "auto") {
    return BadOption("policy", value, "auto, dense, dms or the name of a baseline (docs/baselines.md)");
  }
  return Status::Ok();
}

}  // namespace

Expected<PolicySpec> ReadPolicy(FieldReader& config, const ConfigTexts& texts) {
  auto besides = ReadBesides(texts);
  if (!besides.ok()) return besides.status();
  PolicySpec policy;
  if (*besides) {
    policy = **besides;
  } else {
    const auto mark = std::ranges::find_if(kDmsKeys, [&](std::string_view key) { return config.Has(key); });
    if (mark == std::end(kDmsKeys)) {
      policy.reason = "dense: there is no DMS metadata in dms_metadata.json, ../training_log.json or config.json";
      return policy;
    }
    policy.reason = "DMS: stated by config.json (" + std::string(*mark) + ")";
    ReadParameters(config, true, kDmsWindowDefault, policy);
  }
  ReadFlavour(config, policy);
  return policy;
}

Status ApplyOverrides(const PolicyOverrides& overrides, PolicySpec& policy) {
  if (baseline::IsNamedBy(overrides)) return baseline::ApplyOverrides(overrides, policy);
  static constexpr std::string_view kKeys[] = {"policy",       "window",    "alpha_scale",
                                               "alpha_offset", "alpha_per", "disable_eviction"};
  for (auto it = overrides.begin(); it != overrides.end(); ++it) {
    if (std::ranges::find(kKeys, it->first) == std::end(kKeys)) {
      return Error(kErrOption, "unknown policy option " + Quote(it->first) +
                                   "; valid: policy, window, alpha_scale, alpha_offset, alpha_per, disable_eviction");
    }
    if (std::any_of(overrides.begin(), it, [&](const auto& earlier) { return earlier.first == it->first; })) {
      return Error(kErrOption, "policy option " + it->first + " is given twice");
    }
  }
  // The policy first, wherever it stands: the others are parameters of it.
  for (const auto& [key, value] : overrides) {
    if (key != "policy") continue;
    if (Status status = ApplyPolicyName(value, policy); !status.ok()) return status;
  }
  for (const auto& [key, value] : overrides) {
    if (key == "policy") continue;
    if (policy.kind == PolicyKind::kDense) {
      return Error(kErrOption, "policy option " + key + " is a parameter of DMS, but the policy is dense; " +
                                   "add policy=dms or leave it out");
    }
    if (Status status = ApplyParameter(key, value, policy); !status.ok()) return status;
  }
  return Status::Ok();
}

}  // namespace rum
