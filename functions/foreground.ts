/** A job whose client waits for it: read to its end within a deadline, cancelled when the client goes. */
import { ERROR_CODES, EngineError, type ErrorCode } from '../engine/core/errors.ts';
import type { JobResult } from '../engine/job/generate.ts';
import type { Services } from './context.ts';
import { ENGINE_CODES, HttpError } from './errors.ts';
import { HTTP_LIMITS } from './limits.ts';
import { Transcript } from './transcript.ts';

export interface Waited {
  readonly transcript: Transcript;
  readonly result: Omit<JobResult, 'timing'>;
}

/**
 * @param keep the job goes on without its client, who has a key to ask again with.
 * @throws EngineError: it was refused when it was taken; HttpError job_failed, job_cancelled, job_expired; still_running after foregroundMs: the job goes on.
 */
export async function waitFor(services: Services, job: string, tenant: string, gone: AbortSignal, keep: boolean): Promise<Waited> {
  using late = services.clock.timeout(services.foregroundMs);
  const stop = new AbortController();
  const abort = () => stop.abort();
  for (const signal of [late.signal, gone]) signal.addEventListener('abort', abort, { once: true });
  if (gone.aborted) abort();
  const transcript = new Transcript();
  try {
    for await (const event of services.platform.events(job, { tenant, signal: stop.signal })) transcript.take(event);
    return { transcript, result: endOf(transcript, job) };
  } catch (error) {
    if (gone.aborted && !keep) await cancelQuietly(services, job, tenant);
    if (late.signal.aborted && !gone.aborted) {
      const message = `The job ${job} still runs after ${services.foregroundMs} ms and goes on; GET /v1/jobs/${job}/events reads it.`;
      throw new HttpError('still_running', message, { headers: { 'x-should-retry': 'false' } });
    }
    throw error;
  } finally {
    gone.removeEventListener('abort', abort);
  }
}

/** The result of a job whose events have ended. @throws HttpError if it ended without one. */
export function endOf(transcript: Transcript, job: string): Omit<JobResult, 'timing'> {
  if (transcript.result !== null) return transcript.result;
  throw endError(transcript, job);
}

/** OpenAI's clients retry 409 and 5xx: this end is final. A job that was refused when it was taken is refused as it would have been at once. */
export function endError({ state, fault }: Pick<Transcript, 'state' | 'fault'>, job: string): HttpError | EngineError {
  if (state === 'failed' && isRefusal(fault)) return new EngineError(fault, `The job ${job} was refused. ${ERROR_CODES[fault][1]}`);
  const headers = { 'x-should-retry': 'false' };
  switch (state) {
    case 'cancelled': return new HttpError('job_cancelled', `The job ${job} was cancelled.`, { headers });
    case 'expired': return new HttpError('job_expired', `The job ${job} did not end before its deadline.`, { headers });
    case 'erased': return new HttpError('not_found', `The job ${job} was erased.`, { headers });
    default: return new HttpError('job_failed', `The job ${job} failed.`, { headers });
  }
}

function isRefusal(code: string | null): code is ErrorCode {
  return code !== null && Object.hasOwn(ENGINE_CODES, code) && ENGINE_CODES[code as ErrorCode][0] < 500;
}

/**
 * A request that nothing is kept of was answered, or its client has gone. What a store that fails now keeps is found under the job's id. A server
 * that stops has not answered: whoever starts it again goes on with the job.
 */
export async function forget({ platform, clock, log }: Services, job: string, tenant: string): Promise<void> {
  if ((await platform.health()).state === 'draining') return;
  using timer = clock.timeout(HTTP_LIMITS.CLEAN_UP_MS);
  try {
    await platform.erase(job, { tenant, signal: timer.signal });
  } catch (error) {
    log.warn({ job, tenant, err: error }, 'a job that was not to be stored could not be erased');
  }
}

/** What `work` answers; of a request that is not to be stored nothing is left then, unless its job goes on. */
export async function answering<T>(services: Services, { job, tenant, store }: { readonly job: string; readonly tenant: string; readonly store: boolean | undefined }, work: () => Promise<T>): Promise<T> {
  let isOver = true;
  try {
    return await work();
  } catch (error) {
    isOver = !(error instanceof HttpError && error.code === 'still_running');
    throw error;
  } finally {
    if (store === false && isOver) await forget(services, job, tenant);
  }
}

/** @throws HttpError: what is not stored cannot be come back to. */
export function refuseUnstored(store: boolean | undefined, { key, background }: { readonly key: string | undefined; readonly background?: boolean | undefined }): void {
  if (store !== false) return;
  const clash = background === true ? 'background' : key === undefined ? null : 'an Idempotency-Key';
  if (clash !== null) throw new HttpError('invalid_value', `store must not be false with ${clash}: there would be nothing to come back to.`, { param: 'store' });
}

/** Nobody is there to be told; whoever looks at the job finds it cancelled or still running. A server that stops has left its clients, not they it. */
export async function cancelQuietly({ platform, clock, log }: Services, job: string, tenant: string): Promise<void> {
  if ((await platform.health()).state === 'draining') return;
  using timer = clock.timeout(HTTP_LIMITS.CLEAN_UP_MS);
  try {
    await platform.cancel(job, { tenant, signal: timer.signal });
  } catch (error) {
    log.warn({ job, tenant, err: error }, 'a job whose client has gone could not be cancelled');
  }
}
