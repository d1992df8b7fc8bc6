/**
 * What follows on a job's end, by whoever ended it or finds it ended: a shard is joined to its job, the shards of a job that is over are ended, and
 * then whoever waits is told. Any number of times, by anyone; the marker of each job stays until all of it is done.
 */
import { type Head, isTerminal } from '../kv/head.ts';
import { liveHints } from '../kv/hints.ts';
import { endShards, joinShard, type Sharded } from '../kv/join.ts';
import { type JobKey, shardOf } from '../kv/names.ts';
import type { ProtocolOptions } from '../kv/protocol.ts';
import { readHead } from '../kv/read.ts';
import type { ObjectStore } from '../ports/object-store.ts';
import type { EndedOptions } from '../webhook/outbox.ts';
import { settle } from './shard-vote.ts';

/** Who is told that a job has ended, and removes its marker. */
export interface Told {
  jobEnded(where: JobKey, options?: EndedOptions): Promise<void>;
}

export interface EndingsOptions extends Pick<ProtocolOptions, 'clock' | 'random'> {
  /** A join here, and none before, has ended the job. */
  readonly onJoined?: ((where: JobKey, now: Sharded) => void) | undefined;
}

export class Endings implements Told {
  readonly #store: ObjectStore;
  readonly #told: Told;
  readonly #o: EndingsOptions;

  constructor(store: ObjectStore, told: Told, options: EndingsOptions = {}) {
    this.#store = store;
    this.#told = told;
    this.#o = options;
  }

  /** @param told one of these already knows what follows. */
  static over(store: ObjectStore, told: Told, options: EndingsOptions = {}): Endings {
    return told instanceof Endings ? told : new Endings(store, told, options);
  }

  /** @throws EngineError ERR_JOB_NOT_FOUND, ERR_CHECKPOINT, ERR_STORE, ERR_CANCELLED: the marker stays, and the reconciler comes again. */
  async jobEnded(where: JobKey, { ended, signal }: EndedOptions = {}): Promise<void> {
    const shard = shardOf(where);
    if (shard === null) return await this.#over(where, ended, signal);
    const now = await joinShard(this.#store, where, { ...this.#protocol, settle, signal });
    if (now.hasEnded) this.#o.onJoined?.(shard.parent, now);
    if (isTerminal(now.head.state)) await this.#over(shard.parent, now.head, signal);
    await this.#store.delete(liveHints(where), { signal });
  }

  get #protocol(): Pick<ProtocolOptions, 'clock' | 'random'> {
    return { clock: this.#o.clock, random: this.#o.random };
  }

  async #over(where: JobKey, ended: Head | undefined, signal: AbortSignal | undefined): Promise<void> {
    const head = ended ?? (await readHead(this.#store, where, { signal }))?.head;
    // By their last join they are over, or by whatever ended the job before.
    if (head?.join !== undefined && head.state !== 'done' && head.state !== 'incomplete') await endShards(this.#store, head, { ...this.#protocol, signal });
    await this.#told.jobEnded(where, { ended: head, signal });
  }
}
