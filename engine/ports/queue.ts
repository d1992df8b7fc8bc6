/** What carries the news that a job wants a worker. Messages are hints: losing, repeating or reordering any of them changes nothing. */
import type { CallOptions } from './object-store.ts';

/** `batch`: nobody waits for it; handed out only while nothing interactive waits. */
export type Priority = 'interactive' | 'batch';

/** Under 1 kB. `slice`: of the head that the sender saw; a message older than the head's is done with, unless it has come back and the head's last take may be its own. */
export interface SliceMessage {
  readonly v: 1;
  readonly tenant: string;
  readonly job: string;
  readonly slice: number;
  /** Absent: interactive. */
  readonly priority?: 'batch' | undefined;
  /** Of the wall clock: who has not begun by then need not, if its spec says so too. Absent: never. */
  readonly expiresMs?: number | undefined;
  /** Slices before it, in a row, that the place where they ran has ended (a full store, say): it waits the longer. Absent: none. */
  readonly failures?: number | undefined;
  /** Of what asked for the job, for whoever traces: slices are linked to it. Of W3C's form. */
  readonly traceparent?: string | undefined;
}

export function priorityOf({ priority }: Pick<SliceMessage, 'priority'>): Priority {
  return priority ?? 'interactive';
}

export interface ReceivedMessage {
  /** null: the queue holds something that is none of ours. */
  readonly message: SliceMessage | null;
  /** For `extend`, `release` and `remove`; worth nothing once the visibility timeout is over: then they change nothing. */
  readonly receipt: string;
  /** How often it was received, this time included. */
  readonly received: number;
}

export interface ClassDepth {
  readonly visible: number;
  readonly inFlight: number;
  /** Of the oldest visible message, since it was sent or became visible again; 0: there is none; null: the queue does not tell. */
  readonly oldestAgeMs: number | null;
}

/** Of interactive messages; those of batches apart, because waiting is what they are for. */
export interface QueueDepth extends ClassDepth {
  readonly batch: ClassDepth;
  /** The queue does not tell one class from the other: messages of batches are counted among the others. Absent: it does. */
  readonly isMixed?: boolean;
}

const EMPTY: ClassDepth = { visible: 0, inFlight: 0, oldestAgeMs: 0 };
export const EMPTY_DEPTH: QueueDepth = { ...EMPTY, batch: EMPTY };

export interface SendOptions extends CallOptions {
  /** Nobody sees it before; what is above `DELAY_MS_MAX` is cut to it. */
  readonly delayMs?: number | undefined;
}

/** A message that was received too often without being removed. */
export interface DeadMessage {
  /** null: none of ours. */
  readonly message: SliceMessage | null;
  /** null: the queue does not tell. */
  readonly received: number | null;
  readonly sentMs: number | null;
}

/** Where messages go that were received too often: a backstop, for a job that strikes is poisoned long before. */
export interface DeadLetters {
  /** At most `max`, oldest first where the queue has an order. They stay. */
  list(options: CallOptions & { readonly max: number }): Promise<readonly DeadMessage[]>;
  /** Sends them again, as if they were new. How many. */
  redrive(options?: CallOptions): Promise<number>;
  /** Forgets them; their jobs stay what they are. How many. */
  purge(options?: CallOptions): Promise<number>;
}

/**
 * Tenants take turns: many messages of one hold up no other's. Changes of a receipt happen in the order in which they were asked for, also when the first is still on its way. Every method throws EngineError ERR_QUEUE, ERR_QUEUE_CONFIG or ERR_CANCELLED.
 */
export interface Queue {
  readonly url: string;
  send(message: SliceMessage, options?: SendOptions): Promise<void>;
  /** In any order; after a failure some of them may have been sent. */
  sendAll(messages: readonly SliceMessage[], options?: CallOptions): Promise<void>;
  /** At most `max` messages, as soon as there is one; none after `waitMs`. Others do not see them for `visibilityMs`. */
  receive(options: CallOptions & { readonly max: number; readonly waitMs: number; readonly visibilityMs: number }): Promise<readonly ReceivedMessage[]>;
  /** From now on; never longer than `HELD_MS_MAX` after it was received. */
  extend(receipt: string, visibilityMs: number, options?: CallOptions): Promise<void>;
  /** Others may have it after `delayMs`. */
  release(receipt: string, delayMs: number, options?: CallOptions): Promise<void>;
  remove(receipt: string, options?: CallOptions): Promise<void>;
  depth(options?: CallOptions): Promise<QueueDepth>;
  readonly dead: DeadLetters;
}

/** SQS's, and so everyone's: a message can be kept from others for so long in all, */
export const HELD_MS_MAX = 12 * 3_600_000;
/** and wait for so long after it was sent. */
export const DELAY_MS_MAX = 15 * 60_000;
/** Of the queues that we make ourselves. */
export const RECEIVES_MAX = 100;
