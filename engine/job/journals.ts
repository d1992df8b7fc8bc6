/** What a stored job has generated so far, read from its journals: each object is fetched once, however often the job is looked at. */
import { EngineError } from '../core/errors.ts';
import { inParallel } from '../core/waiting.ts';
import type { Head, JobState, Ref } from '../kv/head.ts';
import type { Manifest, ObjectRef } from '../kv/manifest.ts';
import type { JobKey } from '../kv/names.ts';
import { readObject } from '../kv/read.ts';
import { type JobKeys, openKeys } from '../kv/seal.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { Body, CallOptions, ObjectStore } from '../ports/object-store.ts';
import type { ChainReport, JournalReport, JournalSources, RunReport } from '../runtime/native.ts';
import { checkpointOf } from './checkpoint.ts';
import { countJournals } from './decode-journals.ts';
import type { FinishReason } from './generate.ts';
import type { PreparedJob } from './prepare.ts';

/** Native; a port to whoever must not know it. */
export type DecodeJournals = (sources: JournalSources, signal?: AbortSignal) => Promise<JournalReport>;

const READS_AT_ONCE = 8;

export interface JournalReaderOptions {
  readonly store: ObjectStore;
  readonly where: JobKey;
  /** null: stored in the clear. */
  readonly keys: KeyProvider | null;
  readonly decode: DecodeJournals;
}

/** One job's. Keeps the bytes of the journals that it has seen, since they are folded from the first one on, and its keys, until disposed. */
export class JournalReader implements Disposable {
  readonly #options: JournalReaderOptions;
  #bodies = new Map<string, Body>();
  #keys: { readonly wrapped: string; readonly opened: JobKeys } | null = null;

  constructor(options: JournalReaderOptions) {
    this.#options = options;
  }

  /**
   * @param head with the manifest that it names. A journal that is missing was collected since they were read: read them again.
   * @throws EngineError ERR_CHECKPOINT, `missing` among others; ERR_KEY; ERR_STORE; ERR_CANCELLED.
   */
  async read(job: PreparedJob, head: Head, manifest: Manifest | null, signal?: AbortSignal): Promise<RunReport> {
    if (manifest === null) return emptyReport(job);
    const { store, where, decode } = this.#options;
    const { journal } = checkpointOf(manifest, head.journal.map((ref) => ({ ...ref, origin: where.job })));
    const keys = await this.#open(manifest, signal);
    const origins = [...new Set(journal.map(({ origin }) => origin))];
    const bodies = await inParallel(journal.length, READS_AT_ONCE, signal, async (i, stop) => {
      const ref = journal[i] as ObjectRef;
      return this.#bodies.get(ref.name) ?? (await readObject(store, where, ref, { signal: stop }));
    });
    this.#bodies = new Map(journal.map(({ name }, i) => [name, bodies[i] ?? []]));
    const { report, chains } = await decode({
      objects: journal.map(({ bytes, digest, origin }, i) => ({ chunks: bodies[i] ?? [], bytes, digest, seal: origins.indexOf(origin) })),
      seals: origins.map((origin) => keys.of(origin)),
      checkDigests: true,
      layoutId: manifest.layoutId,
      vocabSize: job.model.info.vocabSize,
    }, signal);
    // A chain of which nothing was written yet is in none of them.
    return { ...report, headCount: headCountOf(job), chains: job.lengths.map((_, i) => report.chains[chains.indexOf(i)] ?? NO_TOKENS) };
  }

  /** The keys of a job are the same from commit to commit, and unwrapping them may be a call to a service. */
  async #open(manifest: Manifest, signal: AbortSignal | undefined): Promise<JobKeys> {
    const wrapped = JSON.stringify(manifest.keys);
    if (this.#keys?.wrapped === wrapped) return this.#keys.opened;
    const opened = await openKeys(this.#options.keys, this.#options.where, manifest, { signal });
    this.#keys?.opened[Symbol.dispose]();
    this.#keys = { wrapped, opened };
    return opened;
  }

  [Symbol.dispose](): void {
    this.#keys?.opened[Symbol.dispose]();
    this.#keys = null;
    this.#bodies.clear();
  }
}

/** How far the chains of a job are. */
export interface Progress {
  /** Tokens that every unfinished chain has. */
  readonly step: number;
  readonly chains: readonly { readonly tokens: number; readonly finish: string | null }[];
}

/**
 * As of all that the head names: its manifest, and what was journaled since, of which no more than that is read. What cannot be read, or was folded meanwhile,
 * is not counted.
 * @throws EngineError ERR_STORE, ERR_CANCELLED.
 */
export async function progressOf(store: ObjectStore, where: JobKey, keys: KeyProvider | null, { head, manifest }: { readonly head: Head; readonly manifest: Manifest }, { signal }: CallOptions = {}): Promise<Progress> {
  const { step, chains } = manifest;
  if (head.journal.length === 0) return { step, chains };
  try {
    using opened = await openKeys(keys, where, manifest, { signal });
    const bodies = await inParallel(head.journal.length, READS_AT_ONCE, signal, async (i, stop) => await readObject(store, where, head.journal[i] as Ref, { signal: stop }));
    const objects = head.journal.map(({ bytes, digest }, i) => ({ chunks: bodies[i] ?? [], bytes, digest, seal: 0 }));
    const counts = await countJournals({ objects, seals: [opened.of(where.job)], checkDigests: true, layoutId: manifest.layoutId }, signal);
    return counts === null ? { step, chains } : { step: counts.step, chains: chains.map((chain, i) => counts.chains.get(i) ?? chain) };
  } catch (error) {
    if (error instanceof EngineError && (error.code === 'ERR_CHECKPOINT' || error.code === 'ERR_KEY')) return { step, chains };
    throw error;
  }
}

/** Why chains that did not finish by themselves were ended; null: none was, or the job goes on. */
export function endReason(state: JobState, manifest: Manifest | null): FinishReason | null {
  switch (state) {
    case 'done':
    case 'incomplete':
      return (manifest === null ? 'deadline' : manifest.ended) as FinishReason | null;
    case 'expired':
      return 'deadline';
    case 'cancelled':
    case 'failed':
    case 'poisoned':
      return 'cancelled';
    default:
      return null;
  }
}

function emptyReport(job: PreparedJob): RunReport {
  return { step: 0, prefilled: false, prefillReadSum: 0, sharedSum: 0, headCount: headCountOf(job), running: 0, caughtUp: 0, chains: job.lengths.map(() => NO_TOKENS) };
}

function headCountOf({ model: { info } }: PreparedJob): number {
  return info.layers * info.kvHeads;
}

const NO_TOKENS: ChainReport = { tokens: new Int32Array(0), logprobs: null, finish: null, stopBytes: null, liveSum: 0, peakSum: 0, decodePeakSum: 0, readSum: 0, denseReadSum: 0, fed: 0 };
