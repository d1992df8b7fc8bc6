/** A tenant's jobs, newest first: by the day of their making, then by name from the last one, which for ULIDs is by time. */
import { EngineError } from '../core/errors.ts';
import { inParallel } from '../core/waiting.ts';
import { dayOf, firstDay, isListed, listDay } from '../kv/hints.ts';
import type { JobKey } from '../kv/names.ts';
import type { CallOptions, ObjectStore } from '../ports/object-store.ts';
import { timeOf } from './ids.ts';

const DAY_MS = 86_400_000;
/** Of the store at a time. */
const AT_ONCE = 8;

export interface Page extends CallOptions {
  readonly tenant: string;
  /** Of the wall clock. */
  readonly nowMs: number;
  readonly limit: number;
  /** The job after which to go on. */
  readonly after?: string | undefined;
}

/**
 * At most `limit` of what `view` gives, which is null for jobs that are not there any more.
 * @throws EngineError ERR_JOB_NOT_FOUND: `after` was never listed; what `view` throws.
 */
export async function listNewest<T>(
  store: ObjectStore, page: Page, view: (where: JobKey) => Promise<T | null>,
): Promise<{ readonly jobs: readonly T[]; readonly more: boolean }> {
  const { tenant, limit, after, signal } = page;
  const days = await daysOf(store, page);
  const start = after === undefined ? 0 : await indexOfDay(store, tenant, after, days, signal);
  const found: T[] = [];
  // One more than asked for, to say whether there are more.
  const want = limit + 1;
  for (let first = start; first < days.length && found.length < want; first += AT_ONCE) {
    const batch = days.slice(first, first + AT_ONCE);
    const listed = await inParallel(batch.length, AT_ONCE, signal, (i, stop) =>
      lastOf(store, tenant, batch[i] ?? '', first + i === start ? after : undefined, want, stop));
    for (const [i, names] of listed.entries()) {
      for (let some = names; some.length > 0 && found.length < want;) {
        const views = await inParallel(some.length, AT_ONCE, signal, (n) => view({ tenant, job: some[n] ?? '' }));
        found.push(...views.filter((one) => one !== null));
        some = some.length < want ? [] : await lastOf(store, tenant, batch[i] ?? '', some.at(-1), want, signal);
      }
    }
  }
  return { jobs: found.slice(0, limit), more: found.length > limit };
}

/** From the newest to the first on which there is a job. Another machine's clock may be ahead of ours. */
async function daysOf(store: ObjectStore, { tenant, nowMs, signal }: Page): Promise<readonly string[]> {
  const first = await firstDay(store, tenant, { signal });
  if (first === null) return [];
  const newest = nowMs + DAY_MS;
  const count = Math.max(0, Math.floor((newest - Date.parse(first)) / DAY_MS)) + 1;
  return Array.from({ length: count }, (_, i) => dayOf(newest - i * DAY_MS));
}

async function indexOfDay(store: ObjectStore, tenant: string, job: string, days: readonly string[], signal: AbortSignal | undefined): Promise<number> {
  const time = timeOf(job);
  const likely = time === null ? -1 : days.indexOf(dayOf(time));
  for (const i of [...(likely < 0 ? [] : [likely]), ...days.keys()]) {
    if (await isListed(store, { tenant, job }, days[i] ?? '', { signal })) return i;
  }
  throw new EngineError('ERR_JOB_NOT_FOUND', `There is no job ${JSON.stringify(job.slice(0, 80))} to list after.`);
}

/** The last `count` names of a day before `before`, from the last one. */
async function lastOf(
  store: ObjectStore, tenant: string, day: string, before: string | undefined, count: number, signal: AbortSignal | undefined,
): Promise<readonly string[]> {
  let last: string[] = [];
  for await (const { job } of listDay(store, tenant, day, { signal })) {
    if (before !== undefined && job >= before) break;
    last.push(job);
    if (last.length >= 2 * count) last = last.slice(-count);
  }
  return last.slice(-count).reverse();
}
