/** Stored jobs as this machine's models read them. Rendering and encoding a prompt takes milliseconds, which a thousand readers of one job share. */
import { unlessCancelled } from '../core/waiting.ts';
import type { PreparedJob } from '../job/prepare.ts';
import { openSpec } from '../job/sealed-spec.ts';
import { parseStoredSpec } from '../job/stored-spec.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { Shelf } from '../ports/shelf.ts';
import type { JobRecord } from './record.ts';

/** A prompt may have megabytes. */
const KEPT = 32;

export class RestoredJobs {
  readonly #shelf: Pick<Shelf, 'restore'>;
  readonly #keys: KeyProvider | null;
  /** By the digest of the spec, which says all there is to know. The one used last is last. */
  readonly #kept = new Map<string, Promise<PreparedJob>>();

  /** @param keys null: jobs are stored in the clear. */
  constructor(shelf: Pick<Shelf, 'restore'>, keys: KeyProvider | null) {
    this.#shelf = shelf;
    this.#keys = keys;
  }

  /** @throws EngineError ERR_KEY, ERR_CHECKPOINT model, ERR_MODEL_NOT_FOUND and the other faults of models, ERR_CANCELLED. */
  async restore({ head, specText, where }: JobRecord, signal: AbortSignal | undefined): Promise<PreparedJob> {
    const known = this.#kept.get(head.spec) ?? openSpec(specText, where, this.#keys).then((text) => this.#shelf.restore(parseStoredSpec(text), where.job));
    this.#kept.delete(head.spec);
    this.#kept.set(head.spec, known);
    for (const key of this.#kept.keys()) if (this.#kept.size > KEPT) this.#kept.delete(key);
    // What failed may succeed when it is asked again.
    known.catch(() => this.#kept.delete(head.spec));
    return await unlessCancelled(known, signal);
  }
}
