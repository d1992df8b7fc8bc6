/**
 * The reconciler as a function, for a schedule of a minute (EventBridge Scheduler): what a worker does beside its jobs, where there may be none. It sends
 * again what lost its message or its worker, moves batches on, delivers webhooks that are due, and says how much work there is, by which
 * a fleet comes back from nothing. It keeps nothing between invocations but the store's `walk/memory.json`, and any number may run at once.
 * It sends webhooks over Node's own HTTP, and so is of Node; docs/FUNCTIONS.md.
 */
import { createNodeSender } from '../engine/adapters/sender-node.ts';
import type { Batches } from '../engine/control/batches.ts';
import type { Work } from '../engine/control/work.ts';
import type { Clock } from '../engine/core/clock.ts';
import { EngineError } from '../engine/core/errors.ts';
import type { ObjectStore } from '../engine/ports/object-store.ts';
import type { Queue } from '../engine/ports/queue.ts';
import { Deliverer } from '../engine/webhook/deliverer.ts';
import type { Outbox } from '../engine/webhook/outbox.ts';
import type { WorkerEvent } from '../engine/worker/events.ts';
import { Reconciler } from '../engine/worker/reconciler.ts';
import { readWalkMemory, writeWalkMemory } from '../engine/worker/walk-memory.ts';
import type { WorkerLog } from './context.ts';
import { Emf } from './emf.ts';
import { type Environment, processEnvironment, readReconcilerEnv } from './env.ts';
import { openBatches } from './open-batches.ts';
import { type ScheduledHandler, inParts, wallClock } from './scheduled.ts';
import { openServices } from './services.ts';
import { webhookLog, workerLog } from './worker-log.ts';

export interface ReconcilerFunctionOptions {
  readonly store: ObjectStore;
  readonly queue: Pick<Queue, 'sendAll' | 'depth'>;
  readonly outbox: Outbox;
  readonly batches: Pick<Batches, 'walk'>;
  readonly deliverer: Pick<Deliverer, 'deliverDue'>;
  readonly emf: Emf | null;
  readonly log: WorkerLog;
  /** Goes on between invocations: of the wall. */
  readonly clock?: Clock | undefined;
}

/** What an invocation answers, for whoever looks. */
export interface Round {
  /** Messages that were sent again. */
  readonly sent: number;
  readonly work: Work | null;
}

/** For writing down what a walk has seen, whose own time may be over: as long as the parts after it can spare. */
const MEMORY_MS_MAX = 5_000;

/** @example export const handler = reconcilerFunction({ store, queue, … }) */
export function reconcilerFunction({ store, queue, outbox, batches, deliverer, emf, log, clock = wallClock }: ReconcilerFunctionOptions): ScheduledHandler<Round> {
  return async (_event, context) => {
    let [sent, work]: [number, Work | null] = [0, null];
    const say = (event: WorkerEvent) => {
      if (event.kind === 'reconciled') sent = event.sent;
      if (event.kind === 'counted') work = event.work;
      if (event.kind === 'counted') emf?.counted(event.work);
      workerLog(log, event);
    };
    await inParts({
      async jobs(signal) {
        const memory = await readWalkMemory(store, clock.nowMs(), { signal });
        try {
          await new Reconciler({ store, queue, clock, outbox, memory, runs: () => false, say }).walk(false, signal);
        } finally {
          // Also of a walk that had no time to be through, or nobody after it would know more than it did.
          using late = clock.timeout(MEMORY_MS_MAX);
          await writeWalkMemory(store, memory, { signal: late.signal });
        }
      },
      batches: (signal) => batches.walk({ signal }),
      // Last: what has ended above is told at once.
      webhooks: (signal) => deliverer.deliverDue({ signal }),
    }, context, { clock, log });
    return { sent, work };
  };
}

let opened: ScheduledHandler<Round> | null = null;

/** From RUMINATE_* and AWS's own variables; while the configuration is wrong every invocation fails and says what is. */
export const handler: ScheduledHandler<Round> = async (event, context) => await (opened ??= open(processEnvironment()))(event, context);

function open(environment: Environment): ScheduledHandler<Round> {
  const config = readReconcilerEnv(environment);
  if (config.queue === null) throw new EngineError('ERR_OPTION', 'RUMINATE_QUEUE must be the address of an SQS queue: without one there is nothing to send again, and workers walk by themselves.');
  const { store, keys, queue, outbox, platform, log } = openServices(config);
  const deliverer = new Deliverer({
    store, keys, publicUrl: config.publicUrl,
    sender: createNodeSender({ allowLoopback: config.webhooksToLoopback }),
    onEvent: (event) => webhookLog(log, event),
  });
  const { batches } = openBatches({ store, keys, platform, outbox, log });
  // Lambda's console begins each line with a time and an id, and CloudWatch takes nothing but the whole line as JSON.
  const write = (line: string) => void process.stdout.write(`${line}\n`);
  const emf = config.emfNamespace === null ? null : new Emf({ namespace: config.emfNamespace, service: 'reconciler', write });
  return reconcilerFunction({ store, queue, outbox, batches, deliverer, emf, log });
}
