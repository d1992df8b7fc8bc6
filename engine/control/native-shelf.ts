/** The models of this machine, read by the native engine: for a platform whose control plane and workers are one process. */
import { systemClock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { unlessCancelled } from '../core/waiting.ts';
import type { Quote } from '../job/budget.ts';
import { availableMemory } from '../job/memory.ts';
import { type LoadedModel, type PreparedJob, quoteOf } from '../job/prepare.ts';
import { Session, type SessionOptions } from '../job/session.ts';
import { type JobSpec, modelName, parseSpec } from '../job/spec.ts';
import { type StoredSpec, checkSame, jobSpecOf } from '../job/stored-spec.ts';
import { modelIdOf } from '../model/identity.ts';
import { listModels } from '../model/registry.ts';
import type { ModelFinder } from '../ports/models.ts';
import type { CallOptions } from '../ports/object-store.ts';
import type { Shelf } from '../ports/shelf.ts';
import { decodeJournals, openEngine } from '../runtime/native.ts';
import type { ModelView } from './platform.ts';

export interface NativeShelfOptions extends SessionOptions {
  /** Default: what is on this machine. */
  readonly finder?: ModelFinder | undefined;
  /** What jobs may ask for, as `model` or `model@variant`; default: what the registry lists. */
  readonly names?: (() => readonly string[]) | undefined;
  /** What an idle worker has for a job and its weights. Default: what this process has now. */
  readonly freeBytes?: number | undefined;
  /** Default: opens the model, reads its weights once and closes it. A worker that holds it open can say it sooner. */
  readonly weightsDigest?: ((model: LoadedModel) => Promise<string>) | undefined;
}

const NAMES_MS = 1_000;

/** Keeps what it has read of its models until it is disposed: the files of a model in use are not replaced. */
export class NativeShelf implements Shelf, Disposable {
  readonly decodeJournals = decodeJournals;
  readonly freeBytes: number;
  readonly #options: NativeShelfOptions;
  readonly #session: Session;
  #listed: { readonly atMs: number; readonly names: readonly string[] } | null = null;
  readonly #digests = new Map<string, Promise<string>>();

  constructor(options: NativeShelfOptions = {}) {
    this.#options = options;
    // Once: a job is admitted or refused for what it is, and not for what else runs when it is asked for.
    this.freeBytes = options.freeBytes ?? availableMemory();
    this.#session = new Session(options.finder, options);
  }

  async prepare(spec: JobSpec, { signal }: CallOptions = {}): Promise<PreparedJob> {
    const parsed = parseSpec(spec);
    const name = modelName(parsed);
    // A path or an address would let a caller look around on this machine, or have it fetch what he likes.
    const names = this.#names();
    if (!names.includes(name)) {
      throw new EngineError('ERR_MODEL_NOT_FOUND', `No model ${JSON.stringify(name.slice(0, 80))}; there is: ${names.join(', ') || 'none'}.`);
    }
    if (parsed.policy_options?.surrogate !== undefined) {
      throw new EngineError('ERR_OPTION', 'policy_options.surrogate is not an option: a surrogate comes with its model.');
    }
    return await this.#session.prepare(parsed, { ...(signal !== undefined && { signal }) });
  }

  /** What there is to know of it before its weights are read. @param name as jobs may ask for it. */
  async model(name: string, { signal }: CallOptions = {}): Promise<LoadedModel> {
    return await this.#session.model(name, { ...(signal !== undefined && { signal }) });
  }

  async modelId({ model }: PreparedJob, { signal }: CallOptions = {}): Promise<string> {
    const key = JSON.stringify([model.resolved.directory, model.overrides]);
    const known = this.#digests.get(key) ?? (this.#options.weightsDigest ?? weightsDigest)(model);
    this.#digests.set(key, known);
    // What failed may succeed when it is asked again.
    known.catch(() => this.#digests.delete(key));
    return modelIdOf(model, await unlessCancelled(known, signal));
  }

  quote(job: PreparedJob): Quote {
    return quoteOf(job, job.model.info.fileBytes);
  }

  async restore(stored: StoredSpec, name: string, options: CallOptions = {}): Promise<PreparedJob> {
    const { signal } = options;
    const job = await this.#session.prepare(jobSpecOf(stored, null), { ...(signal !== undefined && { signal }) });
    checkSame(stored, job, await this.modelId(job, options), name);
    return job;
  }

  async models({ signal }: CallOptions = {}): Promise<readonly ModelView[]> {
    const views: ModelView[] = [];
    for (const name of this.#names()) {
      // A model that cannot be read takes no other from the list.
      const model = await this.model(name, { signal }).catch(() => null);
      // A name with variants stands for one of them, which is listed itself.
      if (model !== null && (name.includes('@') || model.resolved.card === null)) views.push(viewOf(name, model));
    }
    return views;
  }

  /** The folders are looked through once a second at most: every request asks. */
  #names(): readonly string[] {
    const nowMs = systemClock.nowMs();
    if (this.#listed === null || nowMs - this.#listed.atMs > NAMES_MS) this.#listed = { atMs: nowMs, names: (this.#options.names ?? listModels)() };
    return this.#listed.names;
  }

  [Symbol.dispose](): void {
    this.#session[Symbol.dispose]();
    this.#digests.clear();
  }
}

function viewOf(id: string, { info, resolved: { card, variant, variantCard } }: LoadedModel): ModelView {
  return {
    id,
    compression_ratio: variantCard?.compression_ratio ?? Math.max(1, info.policy.targetCr),
    context: info.maxPositions,
    default: card === null || card.default_variant === variant,
  };
}

async function weightsDigest({ resolved, overrides }: LoadedModel): Promise<string> {
  using engine = await openEngine({ directory: resolved.directory, overrides, backend: 'cpu', kv: null, pageSlots: LIMITS.PAGE_SLOTS_DEFAULT, threads: 1, isa: null });
  return (await engine.identity()).weightsDigest;
}
