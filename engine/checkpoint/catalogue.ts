/** A tenant's stored jobs from outside, for an API, as far as that takes no engine: what there is, what it consists of and costs. */
import { keyOf, notFound, refuseErased } from '../control/record.ts';
import type { CallerOptions, ListOptions } from '../control/platform.ts';
import { EngineError } from '../core/errors.ts';
import type { Head } from '../kv/head.ts';
import type { JobKey } from '../kv/names.ts';
import { readHead } from '../kv/read.ts';
import type { KeyProvider } from '../ports/keys.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { type Anatomy, anatomyOf } from './anatomy.ts';
import { type StoredJob, monthlyCost, surveyJobs } from './survey.ts';

export interface CatalogueOptions {
  readonly store: ObjectStore;
  /** null: stored in the clear. */
  readonly keys: KeyProvider | null;
  /** For 2^30 bytes; null: not known. */
  readonly usdPerGbMonth: number | null;
}

export class Catalogue {
  protected readonly options: CatalogueOptions;

  constructor(options: CatalogueOptions) {
    this.options = options;
  }

  /** In order of name, without those that were erased. `after` may be one since: whoever erases a page goes on with the next. What has no head is no job. */
  async list({ tenant, limit, after, signal }: ListOptions): Promise<{ readonly checkpoints: readonly StoredJob[]; readonly more: boolean }> {
    const { store } = this.options;
    if (after !== undefined) await requireKnown(store, keyOf(tenant, after), { signal });
    const checkpoints: StoredJob[] = [];
    for await (const stored of surveyJobs(store, tenant, { after, signal })) {
      if (stored.content?.head.state === 'erased' || isHeadless(stored)) continue;
      if (checkpoints.length === limit) return { checkpoints, more: true };
      checkpoints.push(stored);
    }
    return { checkpoints, more: false };
  }

  async get(id: string, { tenant, signal }: CallerOptions): Promise<Anatomy> {
    const { store } = this.options;
    return await live(store, id, tenant, { signal }, () => anatomyOf(store, keyOf(tenant, id), { signal }));
  }

  /** A month; null: no price is known. */
  costOf(bytes: number): number | null {
    const { usdPerGbMonth } = this.options;
    return usdPerGbMonth === null ? null : monthlyCost(bytes, usdPerGbMonth);
  }
}

/** What was erased, before or meanwhile, is not there. What is wrong with the rest is for `work` to say. */
export async function live<T>(store: ObjectStore, id: string, tenant: string, options: CallOptions, work: () => Promise<T>): Promise<T> {
  const where = keyOf(tenant, id);
  await requireLive(store, where, options);
  try {
    return await work();
  } catch (error) {
    if (error instanceof EngineError && (error.code === 'ERR_JOB_NOT_FOUND' || error.code === 'ERR_CHECKPOINT')) await requireLive(store, where, options);
    throw error;
  }
}

/** As whoever died while a job was born left it. */
function isHeadless({ fault }: StoredJob): boolean {
  return fault?.cause instanceof EngineError && fault.cause.code === 'ERR_JOB_NOT_FOUND';
}

async function requireLive(store: ObjectStore, where: JobKey, options: CallOptions): Promise<void> {
  const head = await requireKnown(store, where, options);
  if (head !== null) refuseErased(head);
}

/** null: it is there, and cannot be read. */
async function requireKnown(store: ObjectStore, where: JobKey, options: CallOptions): Promise<Head | null> {
  try {
    const found = await readHead(store, where, options);
    if (found === null) throw notFound(where.job);
    return found.head;
  } catch (error) {
    if (!(error instanceof EngineError && error.code === 'ERR_CHECKPOINT')) throw error;
    return null;
  }
}
