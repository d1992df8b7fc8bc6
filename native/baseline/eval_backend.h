// A backend whose attention and caches are those of a baseline: its dense parts are the inner backend's, whose own cache stays empty.
#pragma once
#include <memory>

#include "backend/backend.h"
#include "baseline/eval_cache.h"

namespace rum::baseline {

// nullptr unless the policy is a baseline.
std::unique_ptr<EvalCache> MakeEvalCache(const ModelConfig& config, const BackendOptions& options);

// inner has been given the cache as its Attention. Without a cache inner is returned as it is.
std::unique_ptr<Backend> Decorate(std::unique_ptr<Backend> inner, std::unique_ptr<EvalCache> cache);

}  // namespace rum::baseline
