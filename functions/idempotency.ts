/** Idempotency-Key: the same key and body are the same job, another body is refused. https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/ */
import { z } from '@hono/zod-openapi';

import type { ChildNames, JobView } from '../engine/control/platform.ts';
import type { JobSpec } from '../engine/job/spec.ts';
import type { NameConflict } from '../engine/kv/create.ts';
import type { Services } from './context.ts';
import { HttpError, failureOf } from './errors.ts';
import { HTTP_LIMITS } from './limits.ts';

export const idempotencyHeaders = z.object({
  'idempotency-key': z.string().min(1).max(HTTP_LIMITS.IDEMPOTENCY_KEY_CHARS_MAX).optional(),
});

/** undefined: none was given. @throws HttpError */
export function idempotencyKey(request: Request): string | undefined {
  const key = request.headers.get('idempotency-key');
  if (key === null) return undefined;
  if (key.length > 0 && key.length <= HTTP_LIMITS.IDEMPOTENCY_KEY_CHARS_MAX && /^[\x20-\x7e]+$/.test(key)) return key;
  const message = `Idempotency-Key must have 1 to ${HTTP_LIMITS.IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII characters.`;
  throw new HttpError('invalid_value', message, { param: 'idempotency-key' });
}

/** Of an endpoint that cannot honour one: a retry would make a second thing in silence. @throws HttpError */
export function refuseKey(request: Request, instead: string): void {
  if (request.headers.has('idempotency-key')) throw new HttpError('unsupported_parameter', `Idempotency-Key is not supported here: ${instead}`, { param: 'idempotency-key' });
}

/**
 * A job made of another, under the client's name of it or its key: whoever asks again gets the same job.
 * @throws HttpError used_for_another, erased, invalid_value; what `make` throws.
 */
export async function child(request: Request, id: string | undefined, admit: () => Promise<void>, make: (names: ChildNames) => Promise<JobView>): Promise<JobView> {
  const key = idempotencyKey(request);
  if (key === undefined) return await once(id === undefined ? null : 'id', async () => await make({ as: id, admit }));
  if (id !== undefined) throw new HttpError('invalid_value', 'id must not be given with an Idempotency-Key: either of them names the job.', { param: 'id' });
  return await once('idempotency-key', async () => await make({ idempotencyKey: key, admit }));
}

export interface SubmitAs {
  readonly tenant: string;
  /** The client's own name of the job (PUT). */
  readonly id?: string | undefined;
  readonly key: string | undefined;
  /** Of Asked. Default: there is always room. */
  readonly admit?: (() => Promise<void>) | undefined;
  /** The job whose answer the request goes on from, by the name that the client gave it. */
  readonly previous?: { readonly job: string; readonly param: string } | undefined;
  /** As what it is asked for, for webhooks. Default: as a job. */
  readonly via?: 'response' | undefined;
  /** `c.get('trace')`: what the job is linked to. */
  readonly trace?: string | undefined;
}

/**
 * Not cut short by a client that goes: half a job could be neither found nor cancelled.
 * @throws HttpError used_for_another, erased, previous_response_not_found, overloaded, EngineError
 */
export async function submit({ platform, clock }: Services, spec: JobSpec, { tenant, id, key, admit, previous, via, trace }: SubmitAs): Promise<JobView> {
  using timer = clock.timeout(HTTP_LIMITS.SUBMIT_MS);
  const options = { tenant, id, idempotencyKey: key, admit, previous: previous?.job, via, traceparent: trace, signal: timer.signal };
  try {
    return await once(id !== undefined ? 'id' : key !== undefined ? 'idempotency-key' : null, async () => await platform.submit(spec, options));
  } catch (error) {
    // Nobody has cancelled it: the store or the queue was too slow, and may be faster next time.
    if (timer.signal.aborted && failureOf(error).code === 'cancelled') {
      throw new HttpError('overloaded', `The job could not be made within ${HTTP_LIMITS.SUBMIT_MS / 1_000} s; ask again, under the same id or Idempotency-Key if it has one.`, { headers: { 'retry-after': '1' } });
    }
    // A job that is being made cannot be missing itself.
    if (previous === undefined || failureOf(error).code !== 'job_not_found') throw error;
    throw new HttpError('previous_response_not_found', `${previous.param} names no response of yours.`, { param: previous.param });
  }
}

/** @param param what stands for the request; null: nothing does, and only what it has made can be erased. @throws HttpError used_for_another, erased; what `make` throws. */
export async function once<T>(param: 'idempotency-key' | 'id' | null, make: () => Promise<T>): Promise<T> {
  try {
    return await make();
  } catch (error) {
    const why = failureOf(error).code === 'job_conflict' ? (error as Partial<NameConflict>).why : undefined;
    if (why === undefined) throw error;
    if (param === null) throw new HttpError('erased', 'The job was erased while it was being made; the same request makes another.');
    if (why === 'erased') throw new HttpError('erased', `What ${param} stands for was erased, and is not made again; a new request needs another.`, { param });
    throw new HttpError('used_for_another', `${param} was used for another request: the same one again gives what it made, another one needs another.`, { param });
  }
}
