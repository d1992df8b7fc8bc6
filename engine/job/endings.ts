/**
 * What follows on a job's end, by whoever ended it or finds it ended: a shard is joined to its job, the shards of a job that is over are ended, and
 * then whoever waits is told. Any number of times, by anyone; the marker of each job stays until all of it is done.
 */
import { isTerminal } from '../kv/head.ts';
import { liveHints } from '../kv/hints.ts';
import { endShards, joinShard, type Sharded } from '../kv/join.ts';
import { type JobKey, shardOf } from '../kv/names.ts';
import type { ProtocolOptions } from '../kv/protocol.ts';
import { readHead } from '../kv/read.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { settle } from './shard-vote.ts';

/** Who is told that a job has ended, and removes its marker. */
export interface Told {
  jobEnded(where: JobKey, options?: CallOptions): Promise<void>;
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
  async jobEnded(where: JobKey, { signal }: CallOptions = {}): Promise<void> {
    const shard = shardOf(where);
    if (shard === null) return await this.#over(where, signal);
    const now = await joinShard(this.#store, where, { ...this.#protocol, settle, signal });
    if (now.hasEnded) this.#o.onJoined?.(shard.parent, now);
    if (isTerminal(now.head.state)) await this.#over(shard.parent, signal);
    await this.#store.delete(liveHints(where), { signal });
  }

  get #protocol(): Pick<ProtocolOptions, 'clock' | 'random'> {
    return { clock: this.#o.clock, random: this.#o.random };
  }

  async #over(where: JobKey, signal: AbortSignal | undefined): Promise<void> {
    const found = await readHead(this.#store, where, { signal });
    // By their last join they are over, or by whatever ended the job before.
    if (found?.head.join !== undefined && found.head.state !== 'done' && found.head.state !== 'incomplete') await endShards(this.#store, found.head, { ...this.#protocol, signal });
    await this.#told.jobEnded(where, { signal });
  }
}
