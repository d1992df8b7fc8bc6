/** What hooks are told of, by name. `response.*` and `batch.*` are OpenAI's (https://platform.openai.com/docs/api-reference/webhook-events). */
import type { JobState } from '../kv/head.ts';

export const EVENT_TYPES = [
  'job.completed', 'job.incomplete', 'job.failed', 'job.cancelled', 'job.expired', 'job.poisoned',
  'response.completed', 'response.incomplete', 'response.failed', 'response.cancelled',
  'batch.completed', 'batch.failed', 'batch.expired', 'batch.cancelled',
] as const;

export type EventType = (typeof EVENT_TYPES)[number];
export type Family = 'job' | 'response' | 'batch';

/** `job.*`: all of a family. */
export const EVENT_PATTERNS = [...EVENT_TYPES, 'job.*', 'response.*', 'batch.*'] as const;

export function wants(events: readonly string[], type: EventType): boolean {
  return events.includes(type) || events.includes(`${familyOf(type)}.*`);
}

export function familyOf(type: string): Family {
  return type.split('.')[0] as Family;
}

/**
 * A job is told of as a job, and one that was asked for as a background response also as that. The lines of a batch are told of as the batch.
 * @param via what asked for it, as its marker says. @param whole it ended by itself and not by a bound.
 */
export function eventsOf(state: JobState, via: string | null, whole: boolean): readonly EventType[] {
  if (via === 'batch') return [];
  const job = JOB_EVENTS[state];
  if (job === undefined) return [];
  return via === 'response' ? [job, responseEvent(state, whole)] : [job];
}

const JOB_EVENTS: Readonly<Partial<Record<JobState, EventType>>> = {
  done: 'job.completed', incomplete: 'job.incomplete', failed: 'job.failed', cancelled: 'job.cancelled', expired: 'job.expired', poisoned: 'job.poisoned',
};

function responseEvent(state: JobState, whole: boolean): EventType {
  switch (state) {
    case 'done': return whole ? 'response.completed' : 'response.incomplete';
    case 'incomplete': return 'response.incomplete';
    case 'cancelled': return 'response.cancelled';
    default: return 'response.failed';
  }
}
