/** What one cut of a running job holds, without a store: bytes by kind under both codecs, against what the chains had produced. */
import { runOptions } from '../../engine/job/run.ts';
import type { Session } from '../../engine/job/session.ts';
import { parseSpec } from '../../engine/job/spec.ts';
import type { NativeEngine, NativeRun, RunOptions, SavedObject, Seal } from '../../engine/runtime/native.ts';
import { longJob, type Variant } from './jobs.ts';

export const UNSEALED: Seal = { digestKey: new Uint8Array(32).fill(7), dataKey: null, context: 'bench\0bench' };

export interface CutBytes {
  readonly segment: number;
  readonly tail: number;
  readonly journal: number;
}

export interface Cut {
  readonly variant: string;
  readonly width: number;
  /** Of each chain, without the prompt. */
  readonly tokens: number;
  readonly prompt_tokens: number;
  /** K and V that attention still reads, all chains. */
  readonly live_kv_bytes: number;
  /** Of all tokens, had none been evicted. */
  readonly dense_kv_bytes: number;
  readonly raw: CutBytes;
  readonly lossless: CutBytes;
}

/** A run at its first boundary after `tokens` steps, ready to be saved. */
export interface StoppedRun extends Disposable {
  readonly engine: NativeEngine;
  readonly run: NativeRun;
  readonly options: RunOptions;
  readonly bytesPerToken: number;
}

export async function stoppedRun(session: Session, variant: Variant, tokens: number, width: number, threads: number, signal: AbortSignal): Promise<StoppedRun> {
  const { job, engine } = await session.open(parseSpec(longJob(variant, tokens + 1, width)), { threads, signal });
  const options = runOptions(job, null, true);
  const run = engine.createRun(options);
  await run.prefill(signal);
  await run.step(tokens, signal);
  return { engine, run, options, bytesPerToken: job.bytesPerToken, [Symbol.dispose]: () => run.close() };
}

export async function cutOf(session: Session, variant: Variant, tokens: number, width: number, signal: AbortSignal): Promise<Cut> {
  const bytes = { raw: NOTHING, lossless: NOTHING };
  let live = 0;
  let prompt = 0;
  let perToken = 0;
  for (const codec of ['raw', 'lossless'] as const) {
    using stopped = await stoppedRun(session, variant, tokens, width, 1, signal);
    const { report, objects } = await stopped.run.save({ ...UNSEALED, delta: true, epoch: 1, n: 0, codec });
    bytes[codec] = byKind(objects);
    perToken = stopped.bytesPerToken;
    prompt = stopped.options.prompt.length;
    live = (report.chains.reduce((sum, { liveSum }) => sum + liveSum, 0) * perToken) / report.headCount;
  }
  return {
    variant: variant.name,
    width,
    tokens,
    prompt_tokens: prompt,
    live_kv_bytes: live,
    dense_kv_bytes: (prompt + tokens) * width * perToken,
    ...bytes,
  };
}

const NOTHING: CutBytes = { segment: 0, tail: 0, journal: 0 };

function byKind(objects: readonly SavedObject[]): CutBytes {
  const sum = (kind: SavedObject['kind']) => objects.filter((object) => object.kind === kind).reduce((bytes, object) => bytes + object.bytes.byteLength, 0);
  return { segment: sum('segment'), tail: sum('tail'), journal: sum('journal') };
}
