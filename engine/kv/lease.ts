/** What the owner of a job may do: read what its head names, commit on top of it, let go. One owner at a time, by the epoch in the head. */
import { assert } from '../core/assert.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { linkSignals } from '../core/waiting.ts';
import type { Body, CallOptions } from '../ports/object-store.ts';
import { mayFollow, type Head, type JobState, type Ref } from './head.ts';
import { formatOf, type Manifest, type ManifestContent, type ObjectRef } from './manifest.ts';
import type { JobKey } from './names.ts';
import type { Protocol } from './protocol.ts';
import { publishManifest } from './publish.ts';
import { isMissing, readHead, readObject, type StoredHead, type Stretch } from './read.ts';
import { decided, swapHead, Undecided } from './swap.ts';
import { refsOf, rehome, uploadAll, type NewObject, type Upload } from './uploads.ts';

export interface Commit {
  /** `running` to go on; any other lets the job go. */
  readonly state: JobState;
  /**
   * Absolute: everything that the job is made of now, never a change to what is there. `refs` are those of `objects`, by index; it may name
   * them, those of the manifest before and those of the head's journal. Called again when the objects had to be given other names.
   * null: the manifest stays as it is.
   */
  readonly manifest: ((refs: readonly ObjectRef[], head: Head) => ManifestContent) | null;
  readonly objects: readonly NewObject[];
  /** Names in the head's journal that are worth nothing any more: they leave it without being folded. */
  readonly forget?: ReadonlySet<string> | undefined;
}

export interface Flushed {
  /** false: the head's journal was full; nothing was published. */
  readonly written: boolean;
  /** The head's journal is full now: commit a manifest that folds it. */
  readonly deltaDue: boolean;
}

type Change = (head: Head, refs: readonly ObjectRef[]) => Promise<Partial<Head>> | Partial<Head>;

/**
 * Got from `takeJob`. Calls may overlap: uploads begin at once, heads are swapped in the order of the calls, and a call that fails fails
 * those that were made after it and before it failed. A sign of life alone waits for no upload: on a slow line a commit takes longer than
 * an owner may be silent.
 *
 * @throws EngineError, from every method: ERR_FENCED once another owner has been seen (nothing more is written); ERR_STORE, after a
 * commit whose outcome could not be found out, from all but `release`, until the job is taken again; ERR_JOB_CONFLICT after the job was let go.
 */
export class Lease {
  readonly where: JobKey;
  /** The text of the job's spec, verified. */
  readonly spec: string;
  readonly #protocol: Protocol;
  readonly #stop = new AbortController();
  #stored: StoredHead;
  #manifest: Manifest | null;
  /** Settles when every call made so far has. */
  #turn: Promise<unknown> = Promise.resolve();
  /** Settles when every swap that has begun, or waits to begin, is through. */
  #swaps: Promise<unknown> = Promise.resolve();
  #over: EngineError | null = null;
  /** Why it is over, if only because the outcome of a commit is not known: the job may still be given back. */
  #undecided: EngineError | null = null;
  /** What it was taken with. */
  readonly #taken: Head;

  constructor(protocol: Protocol, where: JobKey, stored: StoredHead, manifest: Manifest | null, spec: string) {
    this.#protocol = protocol;
    this.where = where;
    this.#stored = stored;
    this.#taken = stored.head;
    this.#manifest = manifest;
    this.spec = spec;
  }

  /** As last seen. */
  get head(): Head {
    return this.#stored.head;
  }

  /** What the head names, parsed and verified; null: nothing was committed yet. */
  get manifest(): Manifest | null {
    return this.#manifest;
  }

  /**
   * Uploads, publishes a manifest and swaps the head; what the head's journal has and the manifest does not name stays in the head.
   * Cancelling it while the head is being swapped leaves the outcome unknown, and ends the lease.
   */
  async commit({ state, manifest: contentOf, objects, forget }: Commit, { signal }: CallOptions = {}): Promise<Head> {
    assert(mayFollow('running', state), `a running job does not become ${state}`);
    assert(contentOf !== null || objects.length === 0, 'new objects need a manifest');
    return await this.#inTurn(objects, signal, async (uploads, stop) => {
      let manifest = this.#manifest;
      await this.#swap(uploads, stop, async (head, refs) => {
        // Let go in good health, because it was asked to: its take is no strike, however little it could do.
        const spared = state === 'parked' ? Math.max(0, head.strikes - 1) : head.strikes;
        if (contentOf === null) return { state, strikes: spared };
        const { ref, content } = await this.#publish(contentOf(refs, head), head, refs, stop);
        manifest = content;
        const folded = new Set([...content.objects.map(({ name }) => name), ...(forget ?? [])]);
        const advanced = content.step > (this.#manifest?.step ?? 0);
        return { state, manifest: ref, journal: head.journal.filter(({ name }) => !folded.has(name)), strikes: advanced ? 0 : spared };
      });
      this.#manifest = manifest;
      if (state !== 'running') this.#end(letGo(this.where, state));
      return this.head;
    });
  }

  /** One object and one swap: tokens are safe, and readers see them, before the next manifest. */
  async flushJournal(object: NewObject, { signal }: CallOptions = {}): Promise<Flushed> {
    assert(object.kind === 'journal', 'only a journal is flushed');
    const isFull = () => this.head.journal.length >= LIMITS.HEAD_JOURNAL_MAX;
    return await this.#inTurn([object], signal, async (uploads, stop) => {
      if (isFull()) return { written: false, deltaDue: true };
      await this.#swap(uploads, stop, (head, refs) => ({ journal: [...head.journal, ...refs], strikes: 0 }));
      return { written: true, deltaDue: isFull() };
    });
  }

  /**
   * A sign of life: nothing but version and nonce change. One whose outcome is not known ends nothing, for it does not matter: ERR_STORE,
   * and the lease goes on (docs/PROTOCOL.md).
   */
  async touch({ signal }: CallOptions = {}): Promise<void> {
    this.#check();
    using stop = linkSignals(signal, this.#stop.signal);
    await this.#alone(null, async () => {
      await this.#send([], stop.signal, () => ({})).catch((error: unknown) => {
        throw decided(error);
      });
    });
  }

  /**
   * Gives the job back when it cannot be run here: parked, with all that is committed, so that the next taker need not wait for a sign of
   * life. It is no strike, unless `isStrike`: the fault is in the job, and will be met again elsewhere. A take that has written nothing of
   * the job is none: its slice's number is free again, and a message for it is not stale. A commit whose outcome is not known is in the
   * head by then, and stays, also if it let the job go itself; or it is refused for ever, because the head has moved.
   */
  async release({ isStrike, signal }: CallOptions & { readonly isStrike: boolean }): Promise<Head> {
    return await this.#inTurn([], signal, async (uploads, stop) => {
      let isLetGo = false;
      await this.#swap(uploads, stop, (head) => {
        isLetGo = head.state !== 'running';
        if (isLetGo) throw letGo(this.where, head.state);
        const strikes = isStrike ? head.strikes : Math.max(0, head.strikes - 1);
        return { state: 'parked', strikes, slice: hasWritten(this.#taken, head) ? head.slice : head.slice - 1 };
      }).catch((error: unknown) => {
        if (!isLetGo) throw error;
      });
      this.#end(letGo(this.where, this.head.state));
      return this.head;
    }, this.#undecided);
  }

  /** The bytes of an object that the head names. @throws EngineError ERR_FENCED if it is gone because another owner went on, ERR_CHECKPOINT. */
  async read(ref: Stretch, { signal }: CallOptions = {}): Promise<Body> {
    this.#check();
    const { store } = this.#protocol;
    try {
      return await readObject(store, this.where, ref, { signal });
    } catch (error) {
      if (!isMissing(error)) throw error;
      const current = await readHead(store, this.where, { signal });
      throw current?.head.epoch === this.head.epoch ? error : this.#fence();
    }
  }

  #check(despite: EngineError | null = null): void {
    if (this.#over !== null && this.#over !== despite) throw this.#over;
  }

  /** No call is served any more, and what is on its way stops. */
  #end(error: EngineError): EngineError {
    if (this.#over === null || this.#over === this.#undecided) this.#over = error;
    this.#stop.abort();
    return this.#over;
  }

  #fence(): EngineError {
    return this.#end(new EngineError('ERR_FENCED', `Another owner has taken the job ${this.where.job}; nothing more was written.`));
  }

  /** Uploads at once; then, when those before are done, `publish`. */
  async #inTurn<T>(
    objects: readonly NewObject[], signal: AbortSignal | undefined, publish: (uploads: readonly Upload[], stop: AbortSignal) => Promise<T>,
    despite: EngineError | null = null,
  ): Promise<T> {
    this.#check(despite);
    using stop = linkSignals(signal, despite === null ? this.#stop.signal : undefined);
    const uploading = uploadAll(this.#protocol.store, this.where, this.head, objects, stop.signal);
    const before = this.#turn;
    const work = (async () => {
      const [earlier, uploads] = await Promise.allSettled([before, uploading]);
      this.#check(despite);
      if (earlier.status === 'rejected') throw earlier.reason;
      if (uploads.status === 'rejected') throw uploads.reason;
      return await this.#alone(despite, () => publish(uploads.value, stop.signal));
    })();
    this.#turn = work;
    try {
      return await work;
    } finally {
      // Whoever was waiting has seen the failure; whoever comes next may try.
      if (this.#turn === work) this.#turn = Promise.resolve();
    }
  }

  /** One swap of the head at a time: each is made on top of what the one before has left. */
  async #alone<T>(despite: EngineError | null, swap: () => Promise<T>): Promise<T> {
    const before = this.#swaps;
    const work = (async () => {
      await before;
      this.#check(despite);
      return await swap();
    })();
    this.#swaps = work.catch(() => undefined);
    return await work;
  }

  /** A write whose outcome matters: not to know it ends the lease. */
  async #swap(uploads: readonly Upload[], stop: AbortSignal, change: Change): Promise<void> {
    try {
      await this.#send(uploads, stop, change);
    } catch (error) {
      if (!(error instanceof Undecided)) throw error;
      this.#undecided ??= new EngineError('ERR_STORE', `Whether a commit of the job ${this.where.job} was applied is not known; take the job again.`, { cause: error.cause });
      throw this.#end(this.#undecided);
    }
  }

  /** One logical write: a nonce of its own, however often it is sent or put on top of another head. @throws Undecided. */
  async #send(uploads: readonly Upload[], stop: AbortSignal, change: Change): Promise<void> {
    const { store, nonce } = this.#protocol;
    const { epoch } = this.head;
    const writeNonce = nonce();
    let homed = uploads;
    try {
      this.#stored = await swapHead(this.#protocol, this.where, this.#stored, {
        propose: async (base) => {
          if (base.head.epoch !== epoch) throw this.#fence();
          this.#stored = base;
          homed = await rehome(store, this.where, base.head, homed, stop);
          const changed = await change(base.head, refsOf(homed, this.where));
          return { ...base.head, version: base.head.version + 1, writeNonce, ...changed };
        },
        isMine: (current) => current.writeNonce === writeNonce,
      }, stop);
    } catch (error) {
      if (error instanceof EngineError && error.code === 'ERR_JOB_NOT_FOUND') throw this.#fence();
      throw error;
    }
  }

  async #publish(content: ManifestContent, { version, epoch, spec }: Head, refs: readonly ObjectRef[], stop: AbortSignal): Promise<{ ref: Ref; content: Manifest }> {
    const { tenant, job } = this.where;
    const manifest: Manifest = { ...content, format: formatOf(content), tenant, job, version, epoch, spec };
    // Any other object may be gone: the fence of the last collection protects what the head named then and what is tagged since.
    const known = new Set([...refs, ...this.head.journal, ...(this.#manifest?.objects ?? [])].map(({ name }) => name));
    assert(content.objects.every(({ name }) => known.has(name)), 'a manifest names what is new or was named before');
    return { ref: await publishManifest(this.#protocol, this.where, manifest, stop), content: manifest };
  }
}

/** Whether a take has left a mark in the job that a later one builds on: then its slice stays counted. */
function hasWritten(taken: Head, { manifest, journal }: Head): boolean {
  return manifest?.name !== taken.manifest?.name || journal.some(({ name }) => !taken.journal.some((before) => before.name === name));
}

function letGo({ job }: JobKey, state: JobState): EngineError {
  return new EngineError('ERR_JOB_CONFLICT', `The job ${job} was let go (${state}).`);
}
