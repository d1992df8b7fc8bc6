/**
 * Signals as CloudWatch's embedded metric format: a line of JSON in the log, of which CloudWatch makes metrics, without a call or an agent. The format is small,
 * and what there is for it (aws-embedded-metrics, Powertools) wants Node's sockets or Lambda; docs/QUEUE.md, Scaling, has the names.
 * https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
 */
import type { Work } from '../engine/control/work.ts';
import { type Clock, systemClock, wallClockMs } from '../engine/core/clock.ts';

type Unit = 'Seconds' | 'Count' | 'Percent';
type Values = Readonly<Record<string, readonly [number, Unit]>>;

export interface EmfOptions {
  /** Of the metrics, as `isNamespace` takes it. */
  readonly namespace: string;
  /** Their one dimension. */
  readonly service: 'worker' | 'serve' | 'reconciler';
  /** Default: the console. */
  readonly write?: ((line: string) => void) | undefined;
  readonly clock?: Clock | undefined;
  /** Of the wall clock. */
  readonly nowMs?: (() => number) | undefined;
}

/** As of Worker. */
export interface Occupancy {
  readonly slots: number;
  readonly slotMs: number;
}

export const NAMESPACE_RULE = 'a namespace of CloudWatch: 1 to 255 letters, digits and . - _ / # :, and not AWS/…';

/** CloudWatch's own rule, and its own namespaces left out. */
export function isNamespace(text: string): boolean {
  return /^[A-Za-z0-9_.\-/#][A-Za-z0-9_.\-/#:]{0,254}$/.test(text) && !text.startsWith('AWS/');
}

function wholeOf(work: Work): Values {
  return {
    BacklogSeconds: [work.backlogSeconds, 'Seconds'],
    WaitingSeconds: [work.waitingSeconds, 'Seconds'],
    QueueAgeSeconds: [work.oldestSeconds, 'Seconds'],
    JobsWaiting: [work.waiting, 'Count'],
    JobsRunning: [work.running, 'Count'],
  };
}

/** Under other names: who scales by what is all would take machines away from what was not met. */
function partOf(work: Work): Values {
  return { BacklogSecondsAtLeast: [work.backlogSeconds, 'Seconds'], JobsAtLeast: [work.waiting + work.running, 'Count'] };
}

export class Emf {
  readonly #o: EmfOptions;
  readonly #clock: Clock;
  #last: { readonly atMs: number; readonly slotMs: number };

  constructor(options: EmfOptions) {
    this.#o = options;
    this.#clock = options.clock ?? systemClock;
    this.#last = { atMs: this.#clock.nowMs(), slotMs: 0 };
  }

  /** After a count. @param occupancy of the worker in this process; the mean since the last line is told. */
  counted(work: Work, occupancy?: Occupancy): void {
    this.#write({
      ...(work.isWhole ? wholeOf(work) : partOf(work)),
      ...(occupancy === undefined ? {} : this.#occupied(occupancy)),
    });
  }

  #occupied({ slots, slotMs }: Occupancy): Values {
    const { atMs, slotMs: before } = this.#last;
    const nowMs = this.#clock.nowMs();
    this.#last = { atMs: nowMs, slotMs };
    const passedMs = nowMs - atMs;
    return { WorkerOccupancy: [passedMs <= 0 ? 0 : Math.min(100, (100 * (slotMs - before)) / (passedMs * slots)), 'Percent'], WorkerSlots: [slots, 'Count'] };
  }

  #write(values: Values): void {
    const { namespace, service, nowMs = wallClockMs, write = console.log } = this.#o;
    const Metrics = Object.entries(values).map(([Name, [, Unit]]) => ({ Name, Unit }));
    write(JSON.stringify({
      _aws: { Timestamp: Math.round(nowMs()), CloudWatchMetrics: [{ Namespace: namespace, Dimensions: [['Service']], Metrics }] },
      Service: service,
      ...Object.fromEntries(Object.entries(values).map(([name, [value]]) => [name, value])),
    }));
  }
}
