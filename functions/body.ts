/** A JSON body, bounded while it is read: a length that a client claims is not believed. */
import type { Clock } from '../engine/core/clock.ts';
import { HttpError } from './errors.ts';
import { HTTP_LIMITS } from './limits.ts';

/** @throws HttpError unsupported_media_type, body_too_large, body_timeout, invalid_json */
export async function readJson(request: Request, clock: Clock): Promise<unknown> {
  const type = request.headers.get('content-type') ?? '';
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new HttpError('unsupported_media_type', 'content-type must be application/json.', { param: 'content-type' });
  }
  if (Number(request.headers.get('content-length') ?? 0) > HTTP_LIMITS.BODY_BYTES_MAX) throw tooLarge();
  const bytes = await readBytes(request, clock);
  try {
    // fatal: text that is not UTF-8 would become other text.
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw new HttpError('invalid_json', 'The body must be JSON in UTF-8.');
  }
}

async function readBytes(request: Request, clock: Clock): Promise<Uint8Array> {
  if (request.body === null) return new Uint8Array(0);
  const reader = request.body.getReader();
  using late = clock.timeout(HTTP_LIMITS.BODY_MS_MAX);
  const stop = () => void reader.cancel().catch(() => undefined);
  late.signal.addEventListener('abort', stop, { once: true });
  const parts: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (late.signal.aborted) throw new HttpError('body_timeout', `The body must arrive within ${HTTP_LIMITS.BODY_MS_MAX} ms.`);
      if (done) break;
      size += value.byteLength;
      if (size > HTTP_LIMITS.BODY_BYTES_MAX) {
        stop();
        throw tooLarge();
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

function tooLarge(): HttpError {
  return new HttpError('body_too_large', `The body must have at most ${HTTP_LIMITS.BODY_BYTES_MAX} bytes.`);
}
