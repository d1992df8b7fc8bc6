/** What carries the news that a job wants a worker. Messages are hints: losing, repeating or reordering any of them changes nothing. */
import type { CallOptions } from './object-store.ts';

/** Under 1 kB. `slice`: of the head that the sender saw; a message older than the head's is done with. */
export interface SliceMessage {
  readonly v: 1;
  readonly tenant: string;
  readonly job: string;
  readonly slice: number;
}

export interface ReceivedMessage {
  readonly message: SliceMessage;
  /** For `extend`, `release` and `remove`; worth nothing once the visibility timeout is over: then they change nothing. */
  readonly receipt: string;
  /** How often it was received, this time included. */
  readonly received: number;
}

export interface QueueDepth {
  readonly visible: number;
  readonly inFlight: number;
  /** Of the oldest visible message, since it was sent or became visible again; 0: there is none. */
  readonly oldestAgeMs: number;
}

export interface Queue {
  readonly url: string;
  send(message: SliceMessage, options?: CallOptions & { readonly delayMs?: number | undefined }): Promise<void>;
  /** At most `max` messages, as soon as there is one; none after `waitMs`. Others do not see them for `visibilityMs`. */
  receive(options: CallOptions & { readonly max: number; readonly waitMs: number; readonly visibilityMs: number }): Promise<readonly ReceivedMessage[]>;
  extend(receipt: string, visibilityMs: number, options?: CallOptions): Promise<void>;
  /** Others may have it after `delayMs`. */
  release(receipt: string, delayMs: number, options?: CallOptions): Promise<void>;
  remove(receipt: string, options?: CallOptions): Promise<void>;
  depth(options?: CallOptions): Promise<QueueDepth>;
}
