/** Stored jobs as this machine's models read them. Rendering and encoding a prompt takes milliseconds, which a thousand readers of one job share. */
import type { Clock } from '../core/clock.ts';
import { Kept } from '../core/kept.ts';
import type { PreparedJob } from '../job/prepare.ts';
import type { Shelf } from '../ports/shelf.ts';
import type { JobRecord } from './record.ts';

/** A prompt may have megabytes. */
const KEPT = 32;

export class RestoredJobs {
  readonly #shelf: Pick<Shelf, 'restore'>;
  /** By the digest of the spec, which says all there is to know. */
  readonly #kept: Kept<PreparedJob>;

  constructor(shelf: Pick<Shelf, 'restore'>, clock: Clock) {
    this.#shelf = shelf;
    this.#kept = new Kept({ most: KEPT, clock });
  }

  /** @throws EngineError ERR_CHECKPOINT model, ERR_MODEL_NOT_FOUND and the other faults of models, ERR_CANCELLED. */
  async restore({ head, spec, where }: JobRecord, signal: AbortSignal | undefined): Promise<PreparedJob> {
    return await this.#kept.get(head.spec, () => this.#shelf.restore(spec, where.job), signal);
  }
}
