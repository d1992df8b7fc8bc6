/** What carries a webhook to its receiver. One attempt: when to try again is engine/webhook's. */
import type { CallOptions } from './object-store.ts';

export interface Outgoing {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/**
 * What every adapter promises: an answer within its own deadline, whatever the receiver does; not a byte to an address that engine/webhook/address.ts
 * refuses, whatever a name resolves to at whichever moment; no redirect is followed, and of an answer only its status is believed.
 */
export interface Sender {
  /** @throws EngineError ERR_CANCELLED. */
  send(message: Outgoing, options?: CallOptions): Promise<Reply>;
}

export type Reply =
  | { readonly kind: 'answered'; readonly status: number }
  /** Nobody has answered. */
  | { readonly kind: 'failed'; readonly why: SendFault };

export const SEND_FAULTS = ['address_refused', 'host_not_found', 'timeout', 'tls', 'connection'] as const;
export type SendFault = (typeof SEND_FAULTS)[number];
