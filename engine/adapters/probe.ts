/** The question that every store has to answer before a job begins: do you honour conditional writes? */
import { hexOf, randomBytes, textOfBytes, utf8Of } from '../core/bytes.ts';
import { systemClock } from '../core/clock.ts';
import { EngineError } from '../core/errors.ts';
import { linkSignals } from '../core/waiting.ts';
import type { Body, CallOptions, Condition, ObjectStore, PutOutcome } from '../ports/object-store.ts';
import { withRetries } from './retry.ts';

const RACERS = 4;
const BYTES_MAX = 64;
const ANSWER_MS_MAX = 20_000;
const REMOVE_MS_MAX = 5_000;

/**
 * A write without an answer says nothing of the store, which may be starting or busy: all of it is asked again, of another object.
 * @throws EngineError ERR_STORE_CONFIG if the store ignores conditions, ERR_STORE if it does not answer.
 */
export async function probeConditions(store: ObjectStore, { signal }: CallOptions = {}): Promise<void> {
  await withRetries((stop) => probeOnce(store, stop), {
    clock: systemClock, random: Math.random, signal, attemptMs: ANSWER_MS_MAX, deadlineMs: ANSWER_MS_MAX,
    // Cancelled by nobody who called: its time was over.
    final: (error) => (error instanceof Unanswered || (error as EngineError).code === 'ERR_CANCELLED' ? null : (error as Error)),
    late: (error) => new EngineError('ERR_STORE', `${store.url} did not answer a conditional write; try again.`, { cause: error }),
  });
}

class Unanswered extends Error {}

async function probeOnce(store: ObjectStore, signal: AbortSignal): Promise<void> {
  const key = `probe/${hexOf(randomBytes(12))}`;
  const put = async (text: string, condition: Condition): Promise<PutOutcome> => {
    const outcome = await store.put(key, bodyOf(text), { condition, signal });
    if (outcome.kind !== 'unknown') return outcome;
    throw new Unanswered('A conditional write had no answer.', { cause: outcome.cause });
  };
  try {
    const first = await put('first', { kind: 'if_absent' });
    if (first.kind !== 'written') throw unsuitable(store, 'refuses to create an object that is not there');
    if ((await put('again', { kind: 'if_absent' })).kind === 'written') throw unsuitable(store, 'ignores If-None-Match: it overwrote an object');
    const racers = Array.from({ length: RACERS }, (_, i) => put(`racer ${i}`, { kind: 'if_match', etag: first.etag }));
    const winners = (await Promise.all(racers)).filter(({ kind }) => kind === 'written').length;
    if (winners > 1) throw unsuitable(store, `ignores If-Match: ${winners} of ${RACERS} racing writers were told that they had won`);
    if (winners === 0) throw unsuitable(store, 'refuses If-Match with the etag it gave itself');
    const found = await store.get(key, { bytesMax: BYTES_MAX, signal });
    if (found === null || !textOfBytes(found.chunks).startsWith('racer')) throw unsuitable(store, 'gives back another object than was written last');
  } finally {
    using late = systemClock.timeout(REMOVE_MS_MAX);
    using either = linkSignals(signal, late.signal);
    await store.delete([key], { signal: either.signal }).catch(() => undefined);
  }
}

function bodyOf(text: string): Body {
  return [utf8Of(text)];
}

function unsuitable(store: ObjectStore, what: string): EngineError {
  return new EngineError('ERR_STORE_CONFIG', `${store.url} ${what}. Checkpoints need a store with conditional writes (S3, MinIO, versitygw, a directory).`);
}
