/** Stored jobs as this machine's models read them. Rendering and encoding a prompt takes milliseconds, which a thousand readers of one job share. */
import { unlessCancelled } from '../core/waiting.ts';
import type { PreparedJob } from '../job/prepare.ts';
import type { Shelf } from '../ports/shelf.ts';
import type { JobRecord } from './record.ts';

/** A prompt may have megabytes. */
const KEPT = 32;

export class RestoredJobs {
  readonly #shelf: Pick<Shelf, 'restore'>;
  /** By the digest of the spec, which says all there is to know. The one used last is last. */
  readonly #kept = new Map<string, Promise<PreparedJob>>();

  constructor(shelf: Pick<Shelf, 'restore'>) {
    this.#shelf = shelf;
  }

  /** @throws EngineError ERR_CHECKPOINT model, ERR_MODEL_NOT_FOUND and the other faults of models, ERR_CANCELLED. */
  async restore({ head, spec, where }: JobRecord, signal: AbortSignal | undefined): Promise<PreparedJob> {
    const known = this.#kept.get(head.spec) ?? this.#shelf.restore(spec, where.job);
    this.#kept.delete(head.spec);
    this.#kept.set(head.spec, known);
    for (const key of this.#kept.keys()) if (this.#kept.size > KEPT) this.#kept.delete(key);
    // What failed may succeed when it is asked again.
    known.catch(() => this.#kept.delete(head.spec));
    return await unlessCancelled(known, signal);
  }
}
