/** A worker's and a deliverer's events as lines of a log: ids, counts and codes. */
import { EngineError } from '../engine/core/errors.ts';
import type { DelivererEvent } from '../engine/webhook/deliverer.ts';
import type { WorkerEvent } from '../engine/worker/events.ts';
import type { WorkerLog } from './context.ts';

const LEVELS: Readonly<Record<WorkerEvent['kind'], 'debug' | 'info' | 'warn' | 'error'>> = {
  started: 'info',
  ended: 'info',
  joined: 'info',
  begun: 'debug',
  reached: 'debug',
  parked: 'info',
  fenced: 'info',
  failed: 'warn',
  full: 'info',
  refused: 'warn',
  poisoned: 'error',
  expired: 'info',
  foreign: 'warn',
  dropped: 'debug',
  reconciled: 'info',
  counted: 'debug',
  unreadable: 'error',
  trouble: 'warn',
};

export function workerLog(log: WorkerLog, event: WorkerEvent): void {
  const { kind, ...rest } = event;
  const { where, error, ...fields } = { where: undefined, error: undefined, ...rest };
  log[LEVELS[kind]]({ ...where, ...fields, ...('error' in event ? faultOf(error) : {}) }, `slice ${kind}`);
}

export function webhookLog(log: WorkerLog, event: DelivererEvent): void {
  if (event.kind === 'trouble') return log.warn({ ...event.delivery, ...faultOf(event.error) }, 'webhooks trouble');
  const { kind: _, delivery, ...fields } = event;
  log[event.state === 'failed' ? 'warn' : 'info']({ ...delivery, ...fields }, 'webhook sent');
}

/** A message of the engine's own never holds a prompt; any other's is not known to. */
function faultOf(error: unknown): object {
  if (error instanceof EngineError) return { code: error.code, fault: error.message };
  return error instanceof Error ? { code: 'ERR_INTERNAL', fault: error.name, stack: error.stack?.split('\n').slice(1, 6).join('\n') } : {};
}
