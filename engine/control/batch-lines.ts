/** The lines of a batch's input: what each asks for, and everything that is wrong with them, before any of them runs. */
import { crowdOf } from '../core/json-size.ts';
import { LIMITS } from '../core/limits.ts';
import { nextTurn } from '../core/turns.ts';
import { inParallel } from '../core/waiting.ts';
import type { JobSpec } from '../job/spec.ts';
import { ulidOf } from './ids.ts';
import type { CallerOptions, JobView, Platform } from './platform.ts';
import type { Fault } from './records.ts';

/** How an endpoint reads a request and writes its answer: its own functions, so that a line is what the same request alone would be. */
export interface BatchEndpoint {
  /** `/v1/chat/completions` */
  readonly url: string;
  /** @throws whatever refuses the request. */
  parse(body: unknown, options: CallerOptions): Promise<LineRequest>;
  /** What a client is told in place of an answer to `body`. */
  failure(error: unknown, body: unknown): LineFailure;
}

export interface LineRequest {
  readonly spec: JobSpec;
  /** Of a job that has ended. @throws whatever kept it from an answer. */
  answer(job: JobView, options: CallerOptions): Promise<unknown>;
}

export interface LineFailure {
  readonly status: number;
  readonly body: unknown;
  readonly fault: Omit<Fault, 'line'>;
}

export interface Line {
  readonly customId: string;
  readonly body: unknown;
}

export interface ParsedLines {
  readonly lines: readonly Line[];
  readonly faults: readonly Fault[];
}

/** Of the platform at a time. */
const AT_ONCE = 4;
/** JSON read before others in this process have their turn: milliseconds. */
const CHARS_A_TURN = 256 << 10;
/** Of a fault, for people. */
const TEXT_CHARS_MAX = 400;
const FIELDS = ['custom_id', 'method', 'url', 'body'];

/** The form of every line; not yet what its body asks for. @param input bounded by LIMITS.FILE_BYTES_MAX. */
export async function parseLines(input: Uint8Array, url: string): Promise<ParsedLines> {
  const whole = (code: string, message: string): ParsedLines => ({ lines: [], faults: [{ code, message, param: null, line: null }] });
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(input);
  } catch {
    return whole('invalid_encoding', 'The file must be UTF-8.');
  }
  // One more than there may be, to see that there are too many; the last line may end with a newline.
  const texts = text.split('\n', LIMITS.BATCH_LINES_MAX + 2);
  if (texts.at(-1) === '') texts.pop();
  if (texts.length === 0) return whole('empty_file', 'The file has no lines.');
  if (texts.length > LIMITS.BATCH_LINES_MAX) return whole('too_many_lines', `The file must have at most ${LIMITS.BATCH_LINES_MAX} lines.`);
  const lines: Line[] = [];
  const faults: Fault[] = [];
  const seen = new Map<string, number>();
  let chars = 0;
  for (const [index, one] of texts.entries()) {
    chars += one.length;
    if (chars > CHARS_A_TURN) {
      chars = 0;
      await nextTurn();
    }
    const parsed = parseLine(one, url);
    if ('code' in parsed) {
      faults.push({ ...parsed, line: index + 1 });
      continue;
    }
    const first = seen.get(parsed.customId);
    if (first !== undefined) faults.push({ code: 'duplicate_custom_id', message: `custom_id is that of line ${first} too.`, param: 'custom_id', line: index + 1 });
    seen.set(parsed.customId, index + 1);
    lines.push(parsed);
  }
  return { lines, faults };
}

/** What the endpoint and the platform would refuse, line by line: each is parsed and quoted. Stops at LIMITS.BATCH_FAULTS_MAX. */
export async function judgeLines(lines: readonly Line[], endpoint: BatchEndpoint, platform: Pick<Platform, 'quote'>, options: CallerOptions): Promise<readonly Fault[]> {
  const faults: Fault[] = [];
  await inParallel(lines.length, AT_ONCE, options.signal, async (i, signal) => {
    if (faults.length >= LIMITS.BATCH_FAULTS_MAX) return;
    // Models that are known answer at once: without turns a thousand quotes would be one.
    await nextTurn();
    const fault = await faultOf(lines[i]?.body, endpoint, platform, { ...options, signal });
    if (fault !== null) faults.push({ ...fault, line: i + 1 });
  });
  return faults.toSorted((a, b) => (a.line ?? 0) - (b.line ?? 0)).slice(0, LIMITS.BATCH_FAULTS_MAX);
}

/**
 * The job of a line is always the same one, so that whoever goes on with a batch makes none twice: a ULID with the batch's time, and a hash
 * in the place of chance. https://github.com/ulid/spec
 * @param batch `batch_<ulid>`.
 */
export function lineJobId(batch: string, index: number): string {
  return ulidOf(batch.slice('batch_'.length, 'batch_'.length + 10), `${batch}/${index}`);
}

type FormFault = Omit<Fault, 'line'>;

function parseLine(text: string, url: string): Line | FormFault {
  const wrong = (code: string, param: string | null, message: string): FormFault => ({ code, param, message });
  let value: unknown;
  const crowd = crowdOf(text);
  if (crowd !== null) return wrong('invalid_json_line', null, `The line ${crowd}.`);
  try {
    value = JSON.parse(text);
  } catch {
    return wrong('invalid_json_line', null, 'The line is not JSON.');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return wrong('invalid_json_line', null, 'The line must be a JSON object.');
  const unknown = Object.keys(value).find((field) => !FIELDS.includes(field));
  if (unknown !== undefined) return wrong('unsupported_parameter', unknown.slice(0, 64), `${unknown.slice(0, 64)} is not supported.`);
  const { custom_id: customId, method, url: asked, body } = value as Record<string, unknown>;
  if (typeof customId !== 'string' || customId.length < 1 || customId.length > LIMITS.CUSTOM_ID_CHARS_MAX) {
    return wrong('invalid_custom_id', 'custom_id', `custom_id must be text of 1 to ${LIMITS.CUSTOM_ID_CHARS_MAX} characters.`);
  }
  if (method !== 'POST') return wrong('invalid_method', 'method', 'method must be POST.');
  if (asked !== url) return wrong('mismatched_url', 'url', `url must be ${url}, the endpoint of the batch.`);
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return wrong('invalid_body', 'body', 'body must be a JSON object.');
  return { customId, body };
}

async function faultOf(body: unknown, endpoint: BatchEndpoint, platform: Pick<Platform, 'quote'>, options: CallerOptions): Promise<FormFault | null> {
  try {
    const { refusal } = await platform.quote((await endpoint.parse(body, options)).spec, options);
    return refusal === null ? null : { code: refusal.code, message: refusal.message, param: null };
  } catch (error) {
    const { status, fault } = endpoint.failure(error, body);
    // Of the machine, not of the line: it is asked again.
    if (status >= 500 || options.signal?.aborted === true) throw error;
    // Both may hold what the client wrote, of any length.
    return { code: fault.code, message: fault.message.slice(0, TEXT_CHARS_MAX), param: fault.param?.slice(0, TEXT_CHARS_MAX) ?? null };
  }
}
