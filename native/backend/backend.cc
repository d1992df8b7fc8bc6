#include "backend/backend.h"

#include "cache/chain_cache.h"

namespace rum {

std::unique_ptr<ChainCache> Backend::NewCache() { return nullptr; }

Expected<ChainId> Backend::AdoptChain(std::unique_ptr<ChainCache>) { return Error(kErrInternal, "This backend adopts no caches."); }

}  // namespace rum
