/**
 * The collector as a function, for a schedule of a day: it lets go of what ended jobs have left and was kept for long enough, and of files and batches what nobody
 * needs. Apart from the reconciler because it may delete what jobs are made of, which nothing else that runs by itself need have the right to; docs/FUNCTIONS.md.
 */
import { type ExpiredNow, expireDue } from '../engine/control/retention.ts';
import { sweepTenant, tenantsOfFiles } from '../engine/control/sweep.ts';
import type { Clock } from '../engine/core/clock.ts';
import type { ObjectStore } from '../engine/ports/object-store.ts';
import type { WorkerLog } from './context.ts';
import { type Environment, processEnvironment, readPlatformEnv } from './env.ts';
import { type ScheduledHandler, inParts, wallClock } from './scheduled.ts';
import { openServices } from './services.ts';

export interface CollectorFunctionOptions {
  readonly store: ObjectStore;
  readonly log: WorkerLog;
  readonly clock?: Clock | undefined;
  /** Of the wall clock. */
  readonly nowMs?: (() => number) | undefined;
}

/** What an invocation answers, for whoever looks: jobs whose KV went, or they themselves; and objects of files and batches. */
export interface Collection extends ExpiredNow {
  readonly objects: number;
}

/** @example export const handler = collectorFunction({ store, log }) */
export function collectorFunction({ store, log, nowMs, clock = wallClock }: CollectorFunctionOptions): ScheduledHandler<Collection> {
  return async (_event, context) => {
    const done = { trimmed: 0, erased: 0, objects: 0 };
    await inParts({
      async jobs(signal) {
        const onTrouble = (where: object, error: unknown) => log.warn({ ...where, err: error }, 'a job that is over could not be let go of');
        // As many as are due, a share at a time.
        for (let more = true; more;) {
          const { trimmed, erased } = await expireDue(store, { signal, nowMs, onTrouble });
          [done.trimmed, done.erased, more] = [done.trimmed + trimmed, done.erased + erased, trimmed + erased > 0];
        }
      },
      async files(signal) {
        for (const tenant of await tenantsOfFiles(store, { signal })) done.objects += (await sweepTenant(store, tenant, { signal, nowMs })).objects;
      },
    }, context, { clock, log });
    log.info(done, 'collected');
    return done;
  };
}

let opened: ScheduledHandler<Collection> | null = null;

/** From RUMINATE_* and AWS's own variables; while the configuration is wrong every invocation fails and says what is. */
export const handler: ScheduledHandler<Collection> = async (event, context) => await (opened ??= open(processEnvironment()))(event, context);

function open(environment: Environment): ScheduledHandler<Collection> {
  const { store, log } = openServices(readPlatformEnv(environment));
  return collectorFunction({ store, log });
}
