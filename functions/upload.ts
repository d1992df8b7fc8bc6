/** A form with one file, bounded before it is taken apart. */
import { LIMITS } from '../engine/core/limits.ts';
import type { Clock } from '../engine/core/clock.ts';
import { nextTurn } from '../engine/core/turns.ts';
import { readBytes } from './body.ts';
import { HttpError } from './errors.ts';
import { HTTP_LIMITS } from './limits.ts';

export interface Upload {
  readonly filename: string;
  readonly content: Uint8Array;
  /** The other fields, by name. */
  readonly fields: Readonly<Record<string, string>>;
}

/** @param name the field of the file. @throws HttpError unsupported_media_type, body_too_large, body_timeout, invalid_value */
export async function readUpload(request: Request, clock: Clock, name: string): Promise<Upload> {
  const type = request.headers.get('content-type') ?? '';
  const boundary = /^multipart\/form-data\s*;.*\bboundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))/i.exec(type);
  if (boundary === null) throw new HttpError('unsupported_media_type', 'content-type must be multipart/form-data with a boundary.', { param: 'content-type' });
  const bytes = await readBytes(request, clock, { bytesMax: LIMITS.FILE_BYTES_MAX + HTTP_LIMITS.FORM_BYTES_MAX, msMax: HTTP_LIMITS.UPLOAD_MS_MAX });
  // Each part becomes objects many times its size: counted before, in one pass.
  const delimiter = `--${boundary[1] ?? boundary[2] ?? ''}`;
  if ((await countOf(bytes, delimiter, HTTP_LIMITS.FORM_PARTS_MAX + 2)) > HTTP_LIMITS.FORM_PARTS_MAX + 1) {
    throw new HttpError('invalid_value', `The form must have at most ${HTTP_LIMITS.FORM_PARTS_MAX} parts.`);
  }
  const form = await new Response(bytes, { headers: { 'content-type': type } }).formData().catch((): never => {
    throw new HttpError('invalid_value', 'The body must be a form as its boundary says.');
  });
  const fields: Record<string, string> = {};
  let file: File | null = null;
  for (const [key, value] of form as unknown as Iterable<[string, string | File]>) {
    if (Object.hasOwn(fields, key) || (key === name && file !== null)) throw new HttpError('invalid_value', `${key.slice(0, 64)} must be given once.`, { param: key.slice(0, 64) });
    if (typeof value === 'string') fields[key] = value;
    else if (key === name) file = value;
    else throw new HttpError('unsupported_parameter', `${key.slice(0, 64)} is not supported.`, { param: key.slice(0, 64) });
  }
  if (file === null) throw new HttpError('invalid_value', `${name} must be a file.`, { param: name });
  return { filename: file.name, content: new Uint8Array(await file.arrayBuffer()), fields };
}

/** A millisecond's work. */
const BYTES_A_TURN = 1 << 20;

/** How often a text without overlaps is among the bytes, counted up to `most`. */
async function countOf(bytes: Uint8Array, text: string, most: number): Promise<number> {
  let count = 0;
  for (let from = 0; from < bytes.length && count < most; from += BYTES_A_TURN) {
    await nextTurn();
    // What begins here may end in the next piece.
    count += new TextDecoder('latin1').decode(bytes.subarray(from, from + BYTES_A_TURN + text.length - 1)).split(text, most + 1).length - 1;
  }
  return count;
}
