/**
 * Protection of a task from being taken away when a service of ECS has fewer workers or other ones: asked of ECS's agent on the same machine, while jobs run. ECS
 * then takes another task, or waits. It is a courtesy that saves restores, and no promise: a worker that is told to stop all the same parks what it runs.
 * https://docs.aws.amazon.com/AmazonECS/latest/developerguide/managed-instance-task-scale-in-protection-endpoint.html
 */
import type { Clock } from '../core/clock.ts';
import { linkSignals, untilAborted } from '../core/waiting.ts';

export interface TaskProtectionOptions {
  readonly clock: Clock;
  /** Ends it: what is protected is released. */
  readonly signal: AbortSignal;
  /** Of the agent, as ECS tells every task in ECS_AGENT_URI. */
  readonly agent: string;
  readonly isBusy: () => boolean;
  /** The longest in a row; then ECS has its way for a while, or a worker that is never idle would keep every other version of it away. Default: 15 minutes. */
  readonly longestMs?: number | undefined;
  /** The first failure of a row of them. */
  readonly onTrouble?: ((error: unknown) => void) | undefined;
}

const LOOK_MS = 1_000;
const CALL_MS = 2_000;
const RETRY_MS = 30_000;
/** Between two slices a worker is idle for a moment, which is none to tell of. */
const IDLE_MS = 10_000;
const LONGEST_MS = 15 * 60_000;
/** In which ECS takes a worker that it wants to take. */
const GAP_MS = 60_000;
/** What is left of a protection when it is asked for again. */
const RENEW_MS = 120_000;
/** Of one request, so that a worker which hangs is not kept for long. */
const EXPIRES_MINUTES = 5;
const BYTES_MAX = 10_000;

/** Resolves when `signal` has aborted and the task is released, or that failed. Throws nothing: whatever the agent answers, work goes on. */
export async function protectWhileBusy({ clock, signal, agent, isBusy, longestMs = LONGEST_MS, onTrouble }: TaskProtectionOptions): Promise<void> {
  let isTroubled = false;
  const put = async (enabled: boolean, until: AbortSignal | null): Promise<boolean> => {
    try {
      await ask(agent, enabled, { clock, signal: until });
      isTroubled = false;
      return true;
    } catch (error) {
      if (until?.aborted === true) return false;
      if (!isTroubled) onTrouble?.(error);
      isTroubled = true;
      return false;
    }
  };
  let [sinceMs, renewMs, busyMs, notBeforeMs] = [Number.NaN, 0, -Infinity, -Infinity];
  // Also what was asked for and not answered may hold.
  let isProtected = false;
  while (!signal.aborted) {
    const nowMs = clock.nowMs();
    if (isBusy()) busyMs = nowMs;
    const isOver: boolean = isProtected && nowMs - sinceMs >= longestMs;
    const wanted: boolean = nowMs - busyMs < IDLE_MS && !isOver;
    if (nowMs >= notBeforeMs && (wanted !== isProtected || (wanted && nowMs >= renewMs))) {
      if (wanted && !isProtected) sinceMs = nowMs;
      isProtected ||= wanted;
      const isDone = await put(wanted, signal);
      if (isDone) isProtected = wanted;
      renewMs = isDone ? nowMs + EXPIRES_MINUTES * 60_000 - RENEW_MS : -Infinity;
      notBeforeMs = !isDone ? nowMs + RETRY_MS : isOver ? nowMs + GAP_MS : -Infinity;
    }
    await untilAborted(clock, LOOK_MS, signal);
  }
  if (isProtected) await put(false, null);
}

/** @throws Error: it was refused, or there was no answer in time. */
async function ask(agent: string, enabled: boolean, { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal | null }): Promise<void> {
  using late = clock.timeout(CALL_MS);
  using either = linkSignals(signal ?? undefined, late.signal);
  const response = await fetch(`${agent.replace(/\/$/, '')}/task-protection/v1/state`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(enabled ? { ProtectionEnabled: true, ExpiresInMinutes: EXPIRES_MINUTES } : { ProtectionEnabled: false }),
    signal: either.signal,
    redirect: 'error',
  });
  const text = (await response.text()).slice(0, BYTES_MAX);
  // What the API of ECS refuses comes as a failure of an answer that is none itself.
  if (!response.ok || (parse(text) as { readonly protection?: { readonly ProtectionEnabled?: unknown } } | null)?.protection?.ProtectionEnabled !== enabled) {
    throw new Error(`ECS's agent did not ${enabled ? 'protect' : 'release'} this task: ${response.status} ${text.slice(0, 300)}`);
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
