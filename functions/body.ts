/** Bodies, bounded while they are read: a length that a client claims is not believed. */
import type { Clock } from '../engine/core/clock.ts';
import { EngineError } from '../engine/core/errors.ts';
import { crowdOf } from '../engine/core/json-size.ts';
import { nextTurn } from '../engine/core/turns.ts';
import { HttpError } from './errors.ts';
import { HTTP_LIMITS } from './limits.ts';

/** @throws HttpError unsupported_media_type, body_too_large, body_timeout, invalid_json */
export async function readJson(request: Request, clock: Clock): Promise<unknown> {
  const type = request.headers.get('content-type') ?? '';
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new HttpError('unsupported_media_type', 'content-type must be application/json.', { param: 'content-type' });
  }
  const bytes = await readBytes(request, clock, { bytesMax: HTTP_LIMITS.BODY_BYTES_MAX, msMax: HTTP_LIMITS.BODY_MS_MAX });
  try {
    // fatal: text that is not UTF-8 would become other text.
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    const turn = async () => await (bytes.byteLength < HTTP_LIMITS.BODY_TURNS_BYTES ? undefined : nextTurn());
    await turn();
    const crowd = crowdOf(text);
    if (crowd !== null) throw new HttpError('invalid_value', `The body ${crowd}.`);
    await turn();
    const value: unknown = JSON.parse(text);
    // It is looked at by whoever has asked for it.
    await turn();
    return value;
  } catch (error) {
    if (error instanceof HttpError) throw error;
    throw new HttpError('invalid_json', 'The body must be JSON in UTF-8.');
  }
}

export interface BodyBounds {
  readonly bytesMax: number;
  readonly msMax: number;
}

/** @throws HttpError body_too_large, body_timeout; EngineError ERR_CANCELLED: the client has gone. */
export async function readBytes(request: Request, clock: Clock, { bytesMax, msMax }: BodyBounds): Promise<Uint8Array<ArrayBuffer>> {
  const length = Number(request.headers.get('content-length') ?? NaN);
  if (length > bytesMax) throw tooLarge(bytesMax);
  if (length <= SHORT_BYTES) return await readShort(request, clock, msMax);
  if (request.body === null) return new Uint8Array(0);
  const reader = request.body.getReader();
  using late = clock.timeout(msMax);
  const stop = () => void reader.cancel().catch(() => undefined);
  late.signal.addEventListener('abort', stop, { once: true });
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((cause: unknown): never => {
        throw new EngineError('ERR_CANCELLED', 'The body ended before its end.', { cause });
      });
      if (late.signal.aborted) throw new HttpError('body_timeout', `The body must arrive within ${msMax} ms.`);
      if (done) break;
      size += value.byteLength;
      if (size > bytesMax) {
        stop();
        throw tooLarge(bytesMax);
      }
      parts.push(value);
    }
  } finally {
    late.signal.removeEventListener('abort', stop);
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}

/** What says its length has no more, whoever carries it sees to that; without a stream it takes half as long. */
const SHORT_BYTES = 64 << 10;

async function readShort(request: Request, clock: Clock, msMax: number): Promise<Uint8Array<ArrayBuffer>> {
  using late = clock.timeout(msMax);
  return await new Promise((resolve, reject) => {
    late.signal.addEventListener('abort', () => reject(new HttpError('body_timeout', `The body must arrive within ${msMax} ms.`)), { once: true });
    request.arrayBuffer().then(
      (bytes) => (bytes.byteLength > SHORT_BYTES ? reject(tooLarge(SHORT_BYTES)) : resolve(new Uint8Array(bytes))),
      (cause: unknown) => reject(new EngineError('ERR_CANCELLED', 'The body ended before its end.', { cause })),
    );
  });
}

function tooLarge(bytesMax: number): HttpError {
  return new HttpError('body_too_large', `The body must have at most ${bytesMax} bytes.`);
}
