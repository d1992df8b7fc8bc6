/**
 * Reading a checkpoint or computing it again: whichever is sooner by what has been measured (KV.md 6). It never changes a token, and never
 * chooses to replay: both ways give the same bits.
 */

export interface RestoreCosts {
  /** Pages and tails that would be read. */
  readonly bytes: number;
  /** Prompt and generated tokens that would be fed again, over all chains. */
  readonly tokens: number;
  /** Reading the journals, which both ways need: what this store does on this day. */
  readonly measured: { readonly bytes: number; readonly ms: number; readonly objects: number };
  /** Of this job on its last machine; null: not known. */
  readonly prefillTokensPerSecond: number | null;
}

/** Small objects say what a round trip takes and little about a line's width: below this many bytes the width is assumed. */
const WIDE_ENOUGH_BYTES = 4 << 20;
const BYTES_PER_MS_ASSUMED = 100_000;

export function readMs({ bytes, measured }: Omit<RestoreCosts, 'tokens' | 'prefillTokensPerSecond'>): number {
  const bytesPerMs = measured.bytes >= WIDE_ENOUGH_BYTES && measured.ms > 0 ? measured.bytes / measured.ms : BYTES_PER_MS_ASSUMED;
  return (measured.objects === 0 ? 0 : measured.ms / measured.objects) + bytes / bytesPerMs;
}

/** Without a measured rate a checkpoint is read: that is never far off, and computing 30,000 tokens may be. */
export function isRecomputingCheaper(costs: RestoreCosts): boolean {
  if (costs.prefillTokensPerSecond === null) return false;
  return (costs.tokens * 1_000) / costs.prefillTokensPerSecond < readMs(costs);
}
