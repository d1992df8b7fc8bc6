// How a baseline is asked for: policy=<name> and its parameters, as key=value (docs/baselines.md).
#pragma once
#include "core/status.h"
#include "model/config.h"

namespace rum::baseline {

// Whether `policy` names a baseline, or one that is refused by name.
bool IsNamedBy(const PolicyOverrides& overrides);
// In place of what the directory states. ERR_OPTION for an unknown, repeated, missing or absurd parameter.
Status ApplyOverrides(const PolicyOverrides& overrides, PolicySpec& policy);
// The name of a baseline.
const char* Name(const PolicySpec& policy);

}  // namespace rum::baseline
