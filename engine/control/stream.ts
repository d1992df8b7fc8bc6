/** What one reader of a job gets: the events of its log from where he left off, and beside them how the job fares. */
import { setImmediate as turn } from 'node:timers/promises';
import { throwIfCancelled } from '../core/waiting.ts';
import { EventLog, type LogEvent } from '../job/event-log.ts';
import { endReason } from '../job/journals.ts';
import { closed, resultOf } from '../job/run.ts';
import { type JobState, isTerminal } from '../kv/head.ts';
import type { Shelf } from '../ports/shelf.ts';
import { type FollowOptions, Follower } from './follower.ts';
import type { JobEvent } from './platform.ts';
import { type JobRecord, readRecord } from './record.ts';

/** So long nothing comes before the reader is told so: proxies close connections on which nothing comes. */
const IDLE_MS = 15_000;
/** Events made before others in this process have their turn. */
const EVENTS_A_TURN = 256;

export interface StreamOptions extends FollowOptions {
  readonly shelf: Shelf;
  /** The last number that the reader has; -1: none. */
  readonly after: number;
}

/**
 * Reports of a live run and of the store are made into the same events, so that going from one to the other neither misses nor repeats any.
 * @throws EngineError ERR_JOB_NOT_FOUND (also when it is erased meanwhile), ERR_CHECKPOINT, ERR_KEY, ERR_STORE, ERR_CANCELLED.
 */
export async function* streamJob(where: JobRecord['where'], options: StreamOptions): AsyncGenerator<JobEvent, void, undefined> {
  const { store, shelf, clock, after, signal } = options;
  const record = await readRecord(store, where, { signal });
  const job = await shelf.restore(record.spec, where.job, { signal });
  using follower = new Follower(record, job, options);
  const log = new EventLog(job);
  let state: JobState | null = null;
  let heardMs = clock.nowMs();
  for (;;) {
    const sight = await follower.look();
    const seq = log.seq;
    if (sight.report !== null && hasResult(sight.state)) {
      const ended = endReason(sight.state, follower.found.manifest);
      yield* paced(log.push(closed(sight.report), ended), after, signal);
      if (log.seq > after) yield { kind: 'result', seq: log.seq, state: sight.state, result: resultOf(job, sight.report, ended) };
      return;
    }
    const over = isTerminal(sight.state);
    if (sight.state !== state && !over) yield { kind: 'state', state: sight.state };
    if (sight.report !== null) yield* paced(log.push(sight.report, null), after, signal);
    if (over) return yield { kind: 'state', state: sight.state };
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

async function* paced(events: Iterable<LogEvent>, after: number, signal: AbortSignal | undefined): AsyncGenerator<LogEvent> {
  let made = 0;
  for (const event of events) {
    if (event.seq > after) yield event;
    if (++made % EVENTS_A_TURN === 0) await turn();
    throwIfCancelled(signal);
  }
}
