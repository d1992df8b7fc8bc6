/** What one reader of a job gets: the events of its log from where he left off, and beside them how the job fares. */
import { nextTurn } from '../core/turns.ts';
import { throwIfCancelled } from '../core/waiting.ts';
import { EventLog } from '../job/event-log.ts';
import { endReason } from '../job/journals.ts';
import { closed, resultOf } from '../job/run.ts';
import { type JobState, isTerminal } from '../kv/head.ts';
import { type FollowOptions, Follower } from './follower.ts';
import type { JobEvent } from './platform.ts';
import { keyOf, readRecord } from './record.ts';
import type { RestoredJobs } from './restored.ts';

/** So long nothing comes before the reader is told so: proxies close connections on which nothing comes. */
const IDLE_MS = 15_000;
/** Events made before others in this process have their turn: a millisecond or two. */
const EVENTS_A_TURN = 64;

export interface StreamOptions extends FollowOptions {
  readonly jobs: RestoredJobs;
  /** The last number that the reader has; -1: none. */
  readonly after: number;
}

/**
 * Reports of a live run and of the store are made into the same events, so that going from one to the other neither misses nor repeats any.
 * @throws EngineError ERR_JOB_NOT_FOUND (also when it is erased meanwhile), ERR_CHECKPOINT, ERR_KEY, ERR_STORE, ERR_CANCELLED.
 */
export async function* streamJob(tenant: string, id: string, options: StreamOptions): AsyncGenerator<JobEvent, void, undefined> {
  const { store, jobs, clock, after, signal } = options;
  const record = await readRecord(store, keyOf(tenant, id), { signal });
  const job = await jobs.restore(record, signal);
  using follower = new Follower(record, job, options);
  const log = new EventLog(job);
  let state: JobState | null = null;
  let heardMs = clock.nowMs();
  for (;;) {
    await nextTurn();
    const sight = await follower.look();
    const over = isTerminal(sight.state);
    const ends = hasResult(sight.state);
    const ended = ends ? endReason(sight.state, follower.found.manifest) : null;
    if (sight.state !== state && !over) yield { kind: 'state', state: sight.state };
    const { seq } = log;
    if (sight.report !== null) {
      for (const event of log.push(ends ? closed(sight.report) : sight.report, ended)) {
        if (event.seq > after) yield event;
        if (log.seq % EVENTS_A_TURN !== 0) continue;
        await nextTurn();
        throwIfCancelled(signal);
      }
      if (ends && log.seq > after) yield { kind: 'result', seq: log.seq, state: sight.state, result: resultOf(job, sight.report, ended) };
    }
    if (over && !ends) yield { kind: 'state', state: sight.state };
    if (over) return;
    if (sight.state !== state || log.seq !== seq) heardMs = clock.nowMs();
    state = sight.state;
    await follower.wait(Math.max(1, heardMs + IDLE_MS - clock.nowMs()));
    if (clock.nowMs() - heardMs < IDLE_MS) continue;
    yield { kind: 'idle' };
    heardMs = clock.nowMs();
  }
}

/** It ended by itself or its budget; whatever else ended it, there is no result that it would have come to. */
export function hasResult(state: JobState): boolean {
  return state === 'done' || state === 'incomplete';
}
