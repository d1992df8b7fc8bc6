/**
 * Notices of EventBridge, for workers that nobody else tells (a container that does not reach its machine's metadata): a rule of the account sends them to a
 * queue of SQS that all workers share. A message goes to one receiver, so that whoever it is not about passes it on, and one that is too old
 * to be about anybody is removed.
 */
import { ChangeMessageVisibilityCommand, DeleteMessageCommand, ReceiveMessageCommand, type SQSClient } from '@aws-sdk/client-sqs';

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

const WAIT_S = 20;
const RECEIVE_MAX = 10;
/** Who reads a message passes it on, or dies. */
const HIDDEN_S = 5;
/** Longer than for others to see it first. */
const AFTER_PASSING_MS = 1_000;
const AGAIN_MS = 5_000;
const DEADLINE_MS = 60_000;
/** A machine has two minutes. */
const OLD_MS = 300_000;

/** Resolves with the notice that is about this worker; null when `signal` aborts. */
export async function untilNoticed({ client, url, self, clock, signal, nowMs = wallClockMs, onTrouble }: NoticesOptions): Promise<Interruption | null> {
  const calls = { client, clock, random: Math.random, deadlineMs: DEADLINE_MS };
  let isTroubled = false;
  while (!signal.aborted) {
    try {
      const found = await insistOnSqs(calls, { url, waitMs: WAIT_S * 1_000, signal }, (options) => client.send(new ReceiveMessageCommand({ QueueUrl: url, MaxNumberOfMessages: RECEIVE_MAX, WaitTimeSeconds: WAIT_S, VisibilityTimeout: HIDDEN_S }), options));
      let mine: Interruption | null = null;
      let passed = 0;
      for (const { Body = '', ReceiptHandle } of found?.Messages ?? []) {
        const notice = interruptionOf(parse(Body));
        const isMine = notice !== null && ((notice.instance !== null && notice.instance === self.instance) || (notice.task !== null && notice.task === self.task));
        if (isMine) mine = notice;
        const isOver = notice === null || isMine || nowMs() - Date.parse(notice.at ?? '') > OLD_MS;
        if (!isOver) passed++;
        await insistOnSqs(calls, { url, signal }, (options) => (isOver
          ? client.send(new DeleteMessageCommand({ QueueUrl: url, ReceiptHandle }), options)
          : client.send(new ChangeMessageVisibilityCommand({ QueueUrl: url, ReceiptHandle, VisibilityTimeout: 0 }), options)));
      }
      if (mine !== null) return mine;
      isTroubled = false;
      if (passed > 0) await untilAborted(clock, AFTER_PASSING_MS, signal);
    } catch (error) {
      if (signal.aborted) return null;
      if (!isTroubled) onTrouble?.(error);
      isTroubled = true;
      await untilAborted(clock, AGAIN_MS, signal);
    }
  }
  return null;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
