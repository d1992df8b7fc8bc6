/** What a stored job has generated so far, read from its journals: each object is fetched once, however often the job is looked at. */
import { EngineError } from '../core/errors.ts';
import { inParallel } from '../core/waiting.ts';
import { readJob } from '../kv/create.ts';
import { type Head, type JobState, type Ref, isTerminal } from '../kv/head.ts';
import type { Manifest, ObjectRef } from '../kv/manifest.ts';
import { type JobKey, shardKey } from '../kv/names.ts';
import { isMissing, readObject } from '../kv/read.ts';
import { type JobKeys, openKeys } from '../kv/seal.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { Body, CallOptions, ObjectStore } from '../ports/object-store.ts';
import type { JournalReport, JournalSources, RunReport } from '../runtime/native.ts';
import { checkpointOf } from './checkpoint.ts';
import { countJournals, decodeDecisions } from './decode-journals.ts';
import type { FinishReason } from './generate.ts';
import { NO_TOKENS, emptyReport, headCountOf } from './no-tokens.ts';
import { Ballots, type ShardReport, billed } from './official.ts';
import type { PreparedJob } from './prepare.ts';
import { closed } from './run.ts';
import { shardJob } from './shards.ts';

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
  /** Of a sharded job. */
  readonly #shards = new Map<number, { readonly reader: JournalReader; known?: { readonly head: Head; readonly manifest: Manifest }; over?: ShardReport }>();
  #ballots: Ballots | null = null;

  constructor(options: JournalReaderOptions) {
    this.#options = options;
  }

  /**
   * @param head with the manifest that it names. A journal that is missing was collected since they were read: read them again.
   * @throws EngineError ERR_CHECKPOINT, `missing` among others; ERR_KEY; ERR_STORE; ERR_CANCELLED.
   */
  async read(job: PreparedJob, head: Head, manifest: Manifest | null, signal?: AbortSignal): Promise<RunReport> {
    if (head.join !== undefined) return await this.#together(job, head.join.shards, signal);
    if (manifest === null) return emptyReport(job);
    const { report, chains } = await this.#options.decode(await this.#sources(job, head, manifest, signal), signal);
    // A chain of which nothing was written yet is in none of them.
    const first = job.shard?.first ?? 0;
    return { ...report, headCount: headCountOf(job), chains: job.lengths.map((_, i) => report.chains[chains.indexOf(first + i)] ?? NO_TOKENS) };
  }

  /** Of a sharded job: those of its shards, as they are now. */
  async #together(job: PreparedJob, shards: number, signal: AbortSignal | undefined): Promise<RunReport> {
    const parts = await inParallel(shards, READS_AT_ONCE, signal, async (index, stop) => await this.#shard(job, index, stop));
    return await billed(job, parts, (this.#ballots ??= new Ballots(job)), async (index) => {
      const shard = this.#shards.get(index);
      if (shard?.known === undefined) throw new EngineError('ERR_INTERNAL', 'Broken rule: a shard is cut after it was read.');
      const { head, manifest } = shard.known;
      return await decodeDecisions(await shard.reader.#sources(shardJob(job, index), head, manifest, signal), signal);
    });
  }

  /** null: it was never born. One that is over is read once. */
  async #shard(job: PreparedJob, index: number, signal: AbortSignal): Promise<ShardReport | null> {
    const { store, where } = this.#options;
    const at = shardKey(where, index);
    const shard = this.#shards.get(index) ?? { reader: new JournalReader({ ...this.#options, where: at }) };
    this.#shards.set(index, shard);
    if (shard.over !== undefined) return shard.over;
    for (let seen = -1; ;) {
      const found = await readJob(store, at, { signal }).catch((error: unknown) => {
        if (error instanceof EngineError && error.code === 'ERR_JOB_NOT_FOUND') return null;
        throw error;
      });
      if (found === null || found.head.state === 'erased') return null;
      const { head, manifest } = found;
      try {
        const report = await shard.reader.read(shardJob(job, index), head, manifest, signal);
        if (manifest !== null) shard.known = { head, manifest };
        const said = { report: isTerminal(head.state) ? closed(report) : report, ended: endReason(head.state, manifest), begun: manifest?.vote?.begun };
        if (isTerminal(head.state)) shard.over = said;
        return said;
      } catch (error) {
        // Collected between the two reads; lost, if the head is still the same.
        if (!isMissing(error) || head.version === seen) throw error;
        seen = head.version;
      }
    }
  }

  async #sources(job: PreparedJob, head: Head, manifest: Manifest, signal: AbortSignal | undefined): Promise<JournalSources> {
    const { store, where } = this.#options;
    const { journal } = checkpointOf(manifest, head.journal.map((ref) => ({ ...ref, origin: where.job })));
    const keys = await this.#open(manifest, signal);
    const origins = [...new Set(journal.map(({ origin }) => origin))];
    const bodies = await inParallel(journal.length, READS_AT_ONCE, signal, async (i, stop) => {
      const ref = journal[i] as ObjectRef;
      return this.#bodies.get(ref.name) ?? (await readObject(store, where, ref, { signal: stop }));
    });
    this.#bodies = new Map(journal.map(({ name }, i) => [name, bodies[i] ?? []]));
    return {
      objects: journal.map(({ bytes, digest, origin }, i) => ({ chunks: bodies[i] ?? [], bytes, digest, seal: origins.indexOf(origin) })),
      seals: origins.map((origin) => keys.of(origin)),
      checkDigests: true,
      layoutId: manifest.layoutId,
      vocabSize: job.model.info.vocabSize,
    };
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
    for (const { reader } of this.#shards.values()) reader[Symbol.dispose]();
    this.#shards.clear();
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
  // Journals of a shard number their chains within the whole job.
  const first = manifest.vote?.first ?? 0;
  try {
    using opened = await openKeys(keys, where, manifest, { signal });
    const bodies = await inParallel(head.journal.length, READS_AT_ONCE, signal, async (i, stop) => await readObject(store, where, head.journal[i] as Ref, { signal: stop }));
    const objects = head.journal.map(({ bytes, digest }, i) => ({ chunks: bodies[i] ?? [], bytes, digest, seal: 0 }));
    const counts = await countJournals({ objects, seals: [opened.of(where.job)], checkDigests: true, layoutId: manifest.layoutId }, signal);
    return counts === null ? { step, chains } : { step: counts.step, chains: chains.map((chain, i) => counts.chains.get(first + i) ?? chain) };
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
