/**
 * The collector as a function, for a schedule of a day: what ended jobs left and was kept for long enough goes, and then it is
 * `ruminate gc --all` for every tenant. What it has not reached when its time is over it goes on with
 * the next time, from where `gc/walk.json` says. It alone deletes what jobs are made of without being asked by their tenant; docs/FUNCTIONS.md.
 */
import { type ExpiredNow, expireDue } from '../engine/control/retention.ts';
import { sweepTenant } from '../engine/control/sweep.ts';
import { textOfBytes, utf8Of } from '../engine/core/bytes.ts';
import { EngineError } from '../engine/core/errors.ts';
import { collectGarbage } from '../engine/kv/gc.ts';
import { isTerminal } from '../engine/kv/head.ts';
import { HEAD, isNamePart, type JobKey } from '../engine/kv/names.ts';
import { readHead } from '../engine/kv/read.ts';
import type { ObjectStore } from '../engine/ports/object-store.ts';
import type { WorkerLog } from './context.ts';
import { type Environment, processEnvironment, readPlatformEnv } from './env.ts';
import type { LambdaContext } from './scheduled.ts';
import { openServices } from './services.ts';

export interface CollectorFunctionOptions {
  readonly store: ObjectStore;
  readonly log: WorkerLog;
  /** Of the wall clock. */
  readonly nowMs?: (() => number) | undefined;
}

/** What an invocation answers, for whoever looks: beside what was kept for long enough, */
export interface Collection extends ExpiredNow {
  /** Jobs that were looked at, and what was deleted of them and of files and batches. */
  readonly jobs: number;
  readonly objects: number;
  readonly bytes: number;
  /** false: there was no time for the rest. */
  readonly complete: boolean;
}

const MARGIN_MS = 15_000;
const CURSOR = 'gc/walk.json';
const CURSOR_BYTES_MAX = 4_096;

/** @example export const handler = collectorFunction({ store, log }) */
export function collectorFunction({ store, log, nowMs }: CollectorFunctionOptions): (event: unknown, context: LambdaContext) => Promise<Collection> {
  return async (_event, context) => {
    const isOver = (): boolean => context.getRemainingTimeInMillis() <= MARGIN_MS;
    const total = { trimmed: 0, erased: 0, jobs: 0, objects: 0, bytes: 0 };
    // As many as are due, a share at a time.
    for (let more = true; more && !isOver();) {
      const { trimmed, erased } = await expireDue(store, { nowMs, onTrouble: (where, error) => log.warn({ ...where, err: error }, 'cannot be let go of') });
      [total.trimmed, total.erased, more] = [total.trimmed + trimmed, total.erased + erased, trimmed + erased > 0];
    }
    const add = (found: { readonly objects: number; readonly bytes: number } | null) => {
      total.objects += found?.objects ?? 0;
      total.bytes += found?.bytes ?? 0;
    };
    const after = await readCursor(store);
    let last = after;
    let complete = true;
    for await (const { key } of store.list('kv/')) {
      const where = jobOf(key);
      if (where === null || (after !== null && key <= after)) continue;
      // What is being deleted is finished: a job takes moments.
      if (isOver()) {
        complete = false;
        break;
      }
      add(await collectOne(store, where, log));
      total.jobs++;
      last = key;
    }
    for (const tenant of await tenantsWith(store, ['files/', 'batches/'])) {
      complete &&= !isOver();
      if (complete) add(await unlessDamaged(() => sweepTenant(store, tenant), { tenant }, log));
    }
    await writeCursor(store, complete ? null : last);
    return { ...total, complete };
  };
}

async function collectOne(store: ObjectStore, where: JobKey, log: WorkerLog): Promise<{ readonly objects: number; readonly bytes: number } | null> {
  return await unlessDamaged(async () => {
    const head = (await readHead(store, where))?.head;
    // Nothing was written since the last collection, and nothing will be: a fence a day would be all that it costs.
    if (head === undefined || (isTerminal(head.state) && head.state !== 'erased' && head.gc === head.version)) return null;
    return await collectGarbage(store, where);
  }, where, log);
}

/** One damaged job keeps no other from being collected. @throws EngineError ERR_STORE. */
async function unlessDamaged<T>(work: () => Promise<T>, what: object, log: WorkerLog): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof EngineError) || !['ERR_CHECKPOINT', 'ERR_JOB_NOT_FOUND'].includes(error.code)) throw error;
    log.warn({ ...what, err: error }, 'cannot be collected; nothing of it was deleted');
    return null;
  }
}

/** null: not the head of a job. */
function jobOf(key: string): JobKey | null {
  const [, tenant = '', job = '', name, ...rest] = key.split('/');
  return name === HEAD && rest.length === 0 && isNamePart(tenant) && isNamePart(job) ? { tenant, job } : null;
}

async function tenantsWith(store: ObjectStore, prefixes: readonly string[]): Promise<ReadonlySet<string>> {
  const tenants = new Set<string>();
  for (const prefix of prefixes) {
    for await (const { key } of store.list(prefix)) {
      const [tenant = ''] = key.slice(prefix.length).split('/');
      if (isNamePart(tenant)) tenants.add(tenant);
    }
  }
  return tenants;
}

/** null: from the start. What cannot be read is a lost hint. */
async function readCursor(store: ObjectStore): Promise<string | null> {
  const found = await store.get(CURSOR, { range: { offset: 0, bytes: CURSOR_BYTES_MAX }, bytesMax: CURSOR_BYTES_MAX });
  try {
    const { after } = JSON.parse(found === null ? '{}' : textOfBytes(found.chunks)) as { readonly after?: unknown };
    return typeof after === 'string' ? after : null;
  } catch {
    return null;
  }
}

async function writeCursor(store: ObjectStore, after: string | null): Promise<void> {
  const outcome = await store.put(CURSOR, [utf8Of(JSON.stringify({ after }))]);
  if (outcome.kind !== 'written') throw new EngineError('ERR_STORE', `${store.url}: ${CURSOR} was not written (${outcome.kind}).`);
}

let opened: ((event: unknown, context: LambdaContext) => Promise<Collection>) | null = null;

/** From RUMINATE_* and AWS's own variables; while the configuration is wrong every invocation fails and says what is. */
export const handler = async (event: unknown, context: LambdaContext): Promise<Collection> => await (opened ??= open(processEnvironment()))(event, context);

function open(environment: Environment): (event: unknown, context: LambdaContext) => Promise<Collection> {
  const { store, log } = openServices(readPlatformEnv(environment));
  const collect = collectorFunction({ store, log });
  return async (event, context) => {
    const collection = await collect(event, context);
    log.info({ ...collection }, 'collected');
    return collection;
  };
}
