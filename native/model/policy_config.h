// The cache policy that a model directory was trained for, and the caller's changes to it.
#pragma once
#include "core/status.h"
#include "model/config.h"

namespace rum {

class FieldReader;

// The first of dms_metadata.json, training_log.json and config.json that states DMS (METHOD.md 1.2, 1.6); without any, dense.
// `config` reads config.json and takes a failure in it; a failure in another file is returned.
Expected<PolicySpec> ReadPolicy(FieldReader& config, const ConfigTexts& texts);

// The policy option first, then its parameters; ERR_OPTION for what is unknown, repeated or no parameter of the policy.
Status ApplyOverrides(const PolicyOverrides& overrides, PolicySpec& policy);

}  // namespace rum
