/**
 * Notices of EventBridge, for workers that nobody else tells (a container that does not reach its machine's metadata): a rule of the account sends them to a
 * queue of SQS that all workers share. A message goes to one receiver, so that whoever it is not about passes it on, and one that is too old
 * to be about anybody is removed.
 */
import { ChangeMessageVisibilityCommand, DeleteMessageCommand, type Message, ReceiveMessageCommand, type SQSClient } from '@aws-sdk/client-sqs';

import { type Clock, wallClockMs } from '../core/clock.ts';
import { untilAborted } from '../core/waiting.ts';
import { type Interruption, interruptionOf, type Whoami } from './spot.ts';
import { insistOnSqs } from './sqs-calls.ts';

export interface NoticesOptions {
  readonly client: SQSClient;
  readonly url: string;
  readonly self: Whoami;
  readonly clock: Clock;
  /** Stops listening. */
  readonly signal: AbortSignal;
  /** Of the wall clock. */
  readonly nowMs?: (() => number) | undefined;
  /** The first failure of a row of them. */
  readonly onTrouble?: ((error: unknown) => void) | undefined;
}

/** A notice that is about this worker. */
export interface Noticed extends Interruption {
  /** What came with it is passed on, and it is removed, as far as that can be done in seconds. Never rejects. */
  readonly settled: Promise<void>;
}

const WAIT_S = 20;
const RECEIVE_MAX = 10;
/** Who reads a message passes it on, or dies, or cannot: then others see it by themselves. */
const HIDDEN_S = 5;
/** Longer than for others to see it first. */
const AFTER_PASSING_MS = 1_000;
const AGAIN_MS = 5_000;
const DEADLINE_MS = 60_000;
/** A machine has two minutes. */
const OLD_MS = 300_000;

/** Resolves with the notice that is about this worker, at once; null when `signal` aborts. */
export async function untilNoticed({ client, url, self, clock, signal, nowMs = wallClockMs, onTrouble }: NoticesOptions): Promise<Noticed | null> {
  const calls = { client, clock, random: Math.random, deadlineMs: DEADLINE_MS };
  let isTroubled = false;
  const trouble = (error: unknown) => {
    if (!isTroubled) onTrouble?.(error);
    isTroubled = true;
  };
  /** Side by side, and no longer than they are hidden: meanwhile nobody listens. */
  const settle = async (received: readonly Received[], stop?: AbortSignal) => {
    const settled = await Promise.allSettled(received.map(({ receipt, isOver }) => insistOnSqs({ ...calls, deadlineMs: HIDDEN_S * 1_000 }, { url, signal: stop }, (options) => (isOver
      ? client.send(new DeleteMessageCommand({ QueueUrl: url, ReceiptHandle: receipt }), options)
      : client.send(new ChangeMessageVisibilityCommand({ QueueUrl: url, ReceiptHandle: receipt, VisibilityTimeout: 0 }), options)))));
    for (const each of settled) if (each.status === 'rejected') throw each.reason;
  };
  while (!signal.aborted) {
    try {
      const found = await insistOnSqs(calls, { url, waitMs: WAIT_S * 1_000, signal }, (options) => client.send(new ReceiveMessageCommand({ QueueUrl: url, MaxNumberOfMessages: RECEIVE_MAX, WaitTimeSeconds: WAIT_S, VisibilityTimeout: HIDDEN_S }), options));
      const received = (found?.Messages ?? []).map((message) => receivedAs(message, self, nowMs()));
      const mine = received.find(({ isMine }) => isMine)?.notice;
      // It stops whoever listens, and is read once: whatever becomes of the others.
      if (mine != null) return { ...mine, settled: settle(received).catch(trouble) };
      await settle(received, signal);
      isTroubled = false;
      if (received.some(({ isOver }) => !isOver)) await untilAborted(clock, AFTER_PASSING_MS, signal);
    } catch (error) {
      if (signal.aborted) return null;
      trouble(error);
      await untilAborted(clock, AGAIN_MS, signal);
    }
  }
  return null;
}

interface Received {
  readonly receipt: string | undefined;
  /** null: it is none. */
  readonly notice: Interruption | null;
  readonly isMine: boolean;
  /** Nobody else needs it. */
  readonly isOver: boolean;
}

function receivedAs({ Body = '', ReceiptHandle }: Message, self: Whoami, nowMs: number): Received {
  const notice = interruptionOf(parse(Body));
  const isMine = notice !== null && ((notice.instance !== null && notice.instance === self.instance) || (notice.task !== null && notice.task === self.task));
  return { receipt: ReceiptHandle, notice, isMine, isOver: notice === null || isMine || nowMs - Date.parse(notice.at ?? '') > OLD_MS };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
