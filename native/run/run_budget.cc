// What a step may read: the KV-read budget, which the chains have together or, in a shard, each its share of.
#include "run/run_impl.h"

namespace rum {

// Of a shard: chains end one by one, each with its share.
void Run::Impl::EndOverBudget() {
  if (options_.kv_read_budget < 0 || options_.job_width == 0) return;
  const int64_t width = options_.job_width, share = options_.kv_read_budget / width, rest = options_.kv_read_budget % width;
  for (const size_t i : front_) {
    const int64_t of = share + (options_.first_chain + static_cast<int64_t>(i) < rest ? 1 : 0);
    int64_t most = 0;
    if (!CheckedMul(of, head_count_, &most)) continue;
    if (backend_->NextLiveSum(chains_[i].id) > most - chains_[i].report.read_sum) End(i, Finish::kBudget);
  }
  DropFinished();
}

bool Run::Impl::BudgetAllowsFeeding() const {
  if (options_.kv_read_budget < 0 || options_.job_width > 0) return true;
  int64_t needed = 0;
  for (const size_t i : front_) needed += backend_->NextLiveSum(chains_[i].id);
  return needed <= read_sum_max_ - read_sum_;
}

}  // namespace rum
