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
  const { compact, contentOf } = await withoutLongParts(bytes, boundary[1] ?? boundary[2] ?? '');
  const form = await new Response(compact, { headers: { 'content-type': type } }).formData().catch(refuseForm);
  const fields: Record<string, string> = {};
  let file: File | null = null;
  for (const [key, value] of form as unknown as Iterable<[string, string | File]>) {
    if (Object.hasOwn(fields, key) || (key === name && file !== null)) throw new HttpError('invalid_value', `${key.slice(0, 64)} must be given once.`, { param: key.slice(0, 64) });
    if (typeof value === 'string') fields[key] = textOf(value, contentOf(value));
    else if (key === name) file = value;
    else throw new HttpError('unsupported_parameter', `${key.slice(0, 64)} is not supported.`, { param: key.slice(0, 64) });
  }
  if (file === null) throw new HttpError('invalid_value', `${name} must be a file.`, { param: name });
  const content = new Uint8Array(await file.arrayBuffer());
  return { filename: file.name, content: contentOf(new TextDecoder('latin1').decode(content.subarray(0, MARK_BYTES_MAX + 1))) ?? content, fields };
}

function textOf(value: string, cut: Uint8Array | null): string {
  return cut === null ? value : new TextDecoder().decode(cut);
}

function refuseForm(): never {
  throw new HttpError('invalid_value', 'The body must be a form as its boundary says.');
}

/** A millisecond's work. */
const BYTES_A_TURN = 1 << 20;
/** What is longer is cut out. */
const LONG_BYTES = 64 << 10;
const PART_HEADERS_BYTES_MAX = 8 << 10;
const MARK_BYTES_MAX = 64;

interface Cut {
  /** The form with a mark in the place of each long content: whoever takes forms apart holds the thread for the length of what is in them. */
  readonly compact: Blob;
  /** Of a mark; null for anything else. */
  contentOf(text: string): Uint8Array | null;
}

async function withoutLongParts(bytes: Uint8Array<ArrayBuffer>, boundary: string): Promise<Cut> {
  // The first stands at the beginning, without a line's end before it. Each part becomes objects many times its size, so they are counted before.
  const later = await placesOf(bytes, `\r\n--${boundary}`, HTTP_LIMITS.FORM_PARTS_MAX + 1);
  if (later.length > HTTP_LIMITS.FORM_PARTS_MAX) throw new HttpError('invalid_value', `The form must have at most ${HTTP_LIMITS.FORM_PARTS_MAX} parts.`);
  const contents = new Map<string, Uint8Array>();
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let from = 0;
  for (const end of later) {
    if (end - from > LONG_BYTES) {
      const headers = new TextDecoder('latin1').decode(bytes.subarray(from, from + PART_HEADERS_BYTES_MAX)).indexOf('\r\n\r\n');
      if (headers < 0) refuseForm();
      const mark = `cut-${crypto.randomUUID()}`;
      contents.set(mark, bytes.subarray(from + headers + 4, end));
      pieces.push(bytes.subarray(from, from + headers + 4), new TextEncoder().encode(mark));
    } else {
      pieces.push(bytes.subarray(from, end));
    }
    from = end;
  }
  if (bytes.length - from > LONG_BYTES) refuseForm();
  pieces.push(bytes.subarray(from));
  return { compact: new Blob(pieces), contentOf: (text) => contents.get(text) ?? null };
}

/** Where a text without overlaps begins among the bytes, the first `most`. */
async function placesOf(bytes: Uint8Array, text: string, most: number): Promise<readonly number[]> {
  const places: number[] = [];
  for (let from = 0; from < bytes.length && places.length < most; from += BYTES_A_TURN) {
    await nextTurn();
    // What begins here may end in the next piece.
    const piece = new TextDecoder('latin1').decode(bytes.subarray(from, from + BYTES_A_TURN + text.length - 1));
    for (let at = piece.indexOf(text); at >= 0 && places.length < most; at = piece.indexOf(text, at + text.length)) places.push(from + at);
  }
  return places;
}
