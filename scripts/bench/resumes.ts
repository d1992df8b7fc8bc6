/** End to end through the stored job: what a job writes, how long it waits, how soon it goes on, and what computing again would take. */
import { LIMITS } from '../../engine/core/limits.ts';
import type { CheckpointPolicy } from '../../engine/job/checkpointer.ts';
import { generate, type Progress } from '../../engine/job/generate.ts';
import { resumeStored, runStored, type StoredOutcome } from '../../engine/job/stored.ts';
import type { JobKey } from '../../engine/kv/names.ts';
import type { ObjectStore } from '../../engine/ports/object-store.ts';
import { longJob, type Variant } from './jobs.ts';
import { type BytesByKind, measured, stored } from './measured-store.ts';
import { median } from './statistics.ts';

/** The bundled model's context is shorter than the default interval of 2,048 tokens. */
export const DELTA_TOKENS = 128;
const POLICY: CheckpointPolicy = { deltaTokens: DELTA_TOKENS, deltaMs: 3_600_000, journalMs: 3_600_000, firstMs: 0 };
/** A caller who watches sees tokens in steps of this many. */
const STEP = LIMITS.STEPS_WATCHED;

export type OpenStore = () => Promise<ObjectStore>;

export interface Resume {
  readonly store: string;
  readonly variant: string;
  readonly width: number;
  /** Of each chain when it was parked. */
  readonly tokens: number;
  /** All that the job put, and what was left of it when it was parked. */
  readonly written: BytesByKind;
  readonly held: BytesByKind;
  /** From opening the store to the first new token that a caller sees; medians. */
  readonly resume_ms: number;
  /** Part of it: reading from the store. */
  readonly read_ms: number;
  /** The same job from its journals alone. */
  readonly recompute_ms: number;
}

/** Parked at the first boundary after `tokens`, then resumed 2 * `rounds` times, each time parked again at the first boundary. */
export async function resumeOf(name: string, open: OpenStore, variant: Variant, tokens: number, width: number, rounds: number, signal: AbortSignal): Promise<Resume> {
  const job = jobKey(variant, tokens, width);
  const length = tokens + STEP * (2 * rounds + 2);
  const store = measured(await open());
  const begun = await parkedAt(tokens, (options) => runStored(longJob(variant, length, width), { store, where: job, policy: POLICY, ...options }), signal);
  const held = await stored(store, `kv/${job.tenant}/${job.job}/`);
  const written = { ...store.written };
  const resumed = [];
  for (let round = 0; round < rounds; round++) resumed.push(await resumedOnce(open, job, false, signal));
  const recomputed = [];
  for (let round = 0; round < rounds; round++) recomputed.push(await resumedOnce(open, job, true, signal));
  return {
    store: name,
    variant: variant.name,
    width,
    tokens: begun.step,
    written,
    held,
    resume_ms: median(resumed.map(({ ms }) => ms)),
    read_ms: median(resumed.map(({ readMs }) => readMs)),
    recompute_ms: median(recomputed.map(({ ms }) => ms)),
  };
}

function jobKey({ cr }: Variant, tokens: number, width: number, round = 0): JobKey {
  return { tenant: 'bench', job: `cr${cr}-${tokens}-${width}-${round}` };
}

type Watch = Pick<Parameters<typeof runStored>[1], 'onProgress' | 'signal' | 'threads'>;

async function parkedAt(tokens: number, work: (options: Watch) => Promise<StoredOutcome>, signal: AbortSignal): Promise<Extract<StoredOutcome, { kind: 'parked' }>> {
  const park = new AbortController();
  const onProgress = ({ chains }: Progress) => {
    if (Math.max(0, ...chains.map((chain) => chain.tokens)) >= tokens) park.abort();
  };
  const outcome = await work({ onProgress, signal: AbortSignal.any([signal, park.signal]), threads: 1 });
  signal.throwIfAborted();
  if (outcome.kind !== 'parked') throw new Error('the job ended before it could be parked');
  return outcome;
}

async function resumedOnce(open: OpenStore, where: JobKey, hidePages: boolean, signal: AbortSignal): Promise<{ readonly ms: number; readonly readMs: number }> {
  const park = new AbortController();
  const start = performance.now();
  const store = measured(await open(), { hidePages });
  let before = -1;
  let first = { ms: NaN, readMs: NaN };
  const onProgress = ({ phase, chains }: Progress) => {
    const tokens = chains.reduce((sum, chain) => sum + chain.tokens, 0);
    if (phase === 'prefill') before = tokens;
    else if (phase === 'decode' && before >= 0 && tokens > before && !park.signal.aborted) {
      first = { ms: performance.now() - start, readMs: store.readMs };
      park.abort();
    }
  };
  const outcome = await resumeStored({ store, where, policy: POLICY, onProgress, signal: AbortSignal.any([signal, park.signal]), threads: 1 });
  signal.throwIfAborted();
  if (outcome.kind !== 'parked') throw new Error(`the resumed job ended as ${outcome.state} before its first new token was seen`);
  return first;
}

export interface Waiting {
  readonly variant: string;
  readonly width: number;
  readonly tokens: number;
  readonly delta_tokens: number;
  /** Generation waited for saves. */
  readonly save_ms: number;
  readonly decode_ms: number;
  /** The same job without a store, on the same machine at the same time. */
  readonly unsaved_decode_ms: number;
}

/** Both ways in turn; medians. */
export async function waitingOf(open: OpenStore, variant: Variant, tokens: number, width: number, rounds: number, signal: AbortSignal): Promise<Waiting> {
  const spec = longJob(variant, tokens, width);
  const saved: { readonly save_ms: number; readonly decode_ms: number }[] = [];
  const unsaved: number[] = [];
  const watched = { signal, threads: 1, onProgress: () => undefined };
  for (let round = 0; round < rounds; round++) {
    const outcome = await runStored(spec, { ...watched, store: await open(), where: jobKey(variant, tokens, width, 1 + round), policy: POLICY });
    if (outcome.kind !== 'ended') throw new Error('the job was parked');
    saved.push(outcome.result.timing);
    unsaved.push((await generate(spec, watched)).timing.decode_ms);
  }
  return {
    variant: variant.name,
    width,
    tokens,
    delta_tokens: DELTA_TOKENS,
    save_ms: median(saved.map(({ save_ms }) => save_ms)),
    decode_ms: median(saved.map(({ decode_ms }) => decode_ms)),
    unsaved_decode_ms: median(unsaved),
  };
}
