/** Arithmetic on bodies: lists of chunks that are never joined without need. */
import type { Body, GetOptions } from '../ports/object-store.ts';
import { joined } from '../core/bytes.ts';
import { EngineError } from '../core/errors.ts';

export function bytesOf(body: Body): number {
  return body.reduce((sum, chunk) => sum + chunk.byteLength, 0);
}

/** One buffer with the bytes [from, to) of the body: a view where they lie in one chunk, else a copy. */
export function sliceOf(body: Body, from: number, to: number): Uint8Array {
  const pieces: Uint8Array[] = [];
  let at = 0;
  for (const chunk of body) {
    const [start, end] = [Math.max(from - at, 0), Math.min(to - at, chunk.byteLength)];
    if (start < end) pieces.push(chunk.subarray(start, end));
    at += chunk.byteLength;
  }
  return pieces.length === 1 && pieces[0] !== undefined ? pieces[0] : joined(pieces);
}

/** The part of an object of `size` bytes that a get asks for. @throws EngineError ERR_STORE if that is more than the caller can take. */
export function wantedOf(size: number, { range, bytesMax }: GetOptions, key: string): { readonly offset: number; readonly bytes: number } {
  const offset = Math.min(range?.offset ?? 0, size);
  const bytes = Math.min(range?.bytes ?? size, size - offset);
  if (bytes > bytesMax) throw new EngineError('ERR_STORE', `The object ${key} has ${bytes} bytes where at most ${bytesMax} were expected; nothing was read.`);
  return { offset, bytes };
}
