/** What can go wrong with a store, as a plan: for tests of what is built on one. */

/** One call of the port, as `log`, hooks and plans see it. */
export interface Operation {
  /** Counts from 0 over the whole store. */
  readonly index: number;
  readonly kind: 'get' | 'head' | 'put' | 'copy' | 'list' | 'delete';
  /** Of a copy its target, of a list its prefix, of a delete its first key. */
  readonly key: string;
  readonly condition: 'if_absent' | 'if_match' | null;
  /** Who called: the name given to `as`, else ''. */
  readonly actor: string;
}

/**
 * - `fail`: ERR_STORE, nothing done.
 * - `refuse`: of a conditional put, what 409 or 412 mean: `refused`, nothing done.
 * - `lost_ack`: of a put: applied, but `unknown` (unconditional: ERR_STORE).
 * - `late`: of a put: `unknown` (unconditional: ERR_STORE), and not applied until the test says so (`late[i].apply()`), perhaps never.
 * - `truncate`: of a get: only the first `bytes` come back, and nobody says so.
 * - `damage`: of a get: one bit of byte `at` (counted modulo the size) is flipped.
 * - `slow`: takes `delayMs` of the injected clock.
 * - `vanish`: the object is gone before the call, as if a lifecycle rule had deleted it.
 */
export type Fault =
  | { readonly kind: 'fail' }
  | { readonly kind: 'refuse' }
  | { readonly kind: 'lost_ack' }
  | { readonly kind: 'late' }
  | { readonly kind: 'truncate'; readonly bytes: number }
  | { readonly kind: 'damage'; readonly at: number }
  | { readonly kind: 'slow'; readonly delayMs: number }
  | { readonly kind: 'vanish' };

/** Asked once for each operation, in order. A fault that does not fit the operation is none. */
export type FaultPlan = (operation: Operation) => Fault | null;

/** The faults of a script, by index of operation. @example plannedFaults({ 3: { kind: 'lost_ack' } }) */
export function plannedFaults(faults: Readonly<Record<number, Fault>>): FaultPlan {
  return ({ index }) => faults[index] ?? null;
}

/** How often, from 0 to 1, each fault happens to an operation that it fits. */
export interface FaultRates {
  readonly fail?: number;
  readonly refuse?: number;
  readonly lostAck?: number;
  readonly late?: number;
  readonly truncate?: number;
  readonly damage?: number;
  readonly slow?: number;
  readonly slowMsMax?: number;
}

/** The same seed and the same operations give the same faults. */
export function seededFaults(seed: number, rates: FaultRates): FaultPlan {
  const random = seededRandom(seed);
  return ({ kind, condition }) => {
    // As many draws for every operation, so that one fault more does not shift all that follow.
    const [which, size] = [random(), random()];
    const fits: readonly (readonly [number | undefined, Fault])[] = [
      [rates.fail, { kind: 'fail' }],
      [rates.slow, { kind: 'slow', delayMs: Math.ceil(size * (rates.slowMsMax ?? 1_000)) }],
      ...(kind === 'get' ? ([[rates.truncate, { kind: 'truncate', bytes: Math.floor(size * 4_096) }]] as const) : []),
      ...(kind === 'get' ? ([[rates.damage, { kind: 'damage', at: Math.floor(size * 1e9) }]] as const) : []),
      ...(kind === 'put' ? ([[rates.lostAck, { kind: 'lost_ack' }], [rates.late, { kind: 'late' }]] as const) : []),
      ...(condition === null ? [] : ([[rates.refuse, { kind: 'refuse' }]] as const)),
    ];
    let below = 0;
    for (const [rate, fault] of fits) {
      below += rate ?? 0;
      if (which < below) return fault;
    }
    return null;
  };
}

/** mulberry32: small, and the same on every machine. From 0 to below 1. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
