/** Stored jobs as this machine's models read them. Rendering and encoding a prompt takes milliseconds, which a thousand readers of one job share. */
import type { Clock } from '../core/clock.ts';
import { Kept } from '../core/kept.ts';
import type { PreparedJob } from '../job/prepare.ts';
import { type SpecOutline, openSpec } from '../job/sealed-spec.ts';
import { type StoredSpec, parseStoredSpec } from '../job/stored-spec.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { Shelf } from '../ports/shelf.ts';
import { type JobRecord, SHOWN_FIELDS } from './record.ts';

/** A prompt may have megabytes. */
const KEPT = 32;
/** Without it a spec has little: two pages of a list, and more. Some have long instructions or many tools. */
const OUTLINES_KEPT = 256;
const OUTLINES_CHARS = 16 << 20;

export class RestoredJobs {
  readonly #shelf: Pick<Shelf, 'restore'>;
  readonly #keys: KeyProvider | null;
  /** By the digest of the spec, which says all there is to know. */
  readonly #kept: Kept<PreparedJob>;
  readonly #opened: Kept<StoredSpec>;
  readonly #outlines: Kept<SpecOutline>;

  /** @param keys null: jobs are stored in the clear. */
  constructor(shelf: Pick<Shelf, 'restore'>, keys: KeyProvider | null, clock: Clock) {
    this.#shelf = shelf;
    this.#keys = keys;
    this.#kept = new Kept({ most: KEPT, clock });
    this.#opened = new Kept({ most: KEPT, clock });
    this.#outlines = new Kept({ most: OUTLINES_KEPT, weigh: (outline) => JSON.stringify(outline).length, weightMax: OUTLINES_CHARS, clock });
  }

  /** @throws EngineError ERR_KEY, ERR_CHECKPOINT model, ERR_MODEL_NOT_FOUND and the other faults of models, ERR_CANCELLED. */
  async restore(record: JobRecord, signal: AbortSignal | undefined): Promise<PreparedJob> {
    if (record.lost !== null) throw record.lost;
    return await this.#kept.get(record.head.spec, async () => this.#shelf.restore(await this.spec(record, signal), record.where.job), signal);
  }

  /** As it was asked for. @throws EngineError ERR_KEY, ERR_CHECKPOINT, ERR_CANCELLED. */
  async spec({ head, spec, specText, where, lost }: JobRecord, signal: AbortSignal | undefined): Promise<StoredSpec> {
    if (lost !== null) throw lost;
    if (spec.prompt !== null) return parseStoredSpec(specText);
    return await this.#opened.get(head.spec, async () => parseStoredSpec(await openSpec(specText, where, this.#keys)), signal);
  }

  /** What a view shows of it: of one that is lost, nothing. @throws EngineError as `spec`. */
  async outline(record: JobRecord, signal: AbortSignal | undefined): Promise<SpecOutline> {
    const { head, spec, lost } = record;
    return spec.prompt === null && lost === null ? await this.#outlines.get(head.spec, async () => shownOf(await this.spec(record, undefined)), signal) : spec;
  }
}

function shownOf({ spec, lengths, model_id, parent }: StoredSpec): SpecOutline {
  return { spec: Object.fromEntries(SHOWN_FIELDS.map((field) => [field, spec[field]])), lengths, model_id, parent, prompt: null };
}
