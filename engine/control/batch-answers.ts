/**
 * What a batch hands out when it is over: a file of answers and one of what became of the rest, in the order of the lines. Both are
 * functions of the batch and its jobs, under names of the batch's own, so that it does not matter who writes them or how often.
 */
import { EngineError } from '../core/errors.ts';
import { nextTurn } from '../core/turns.ts';
import { inParallel } from '../core/waiting.ts';
import { type JobState, hasResult } from '../kv/head.ts';
import { type BatchEndpoint, type Line, lineJobId } from './batch-lines.ts';
import { WINDOW_MS } from './batch-view.ts';
import type { BlobWriter } from './blob.ts';
import type { Files } from './files.ts';
import type { Platform } from './platform.ts';
import type { BatchRecord, End, Stop } from './records.ts';

export interface AnswersOptions {
  readonly record: BatchRecord;
  readonly stop: Stop | null;
  readonly jobs: readonly (JobState | null)[];
  readonly lines: readonly Line[];
  readonly endpoint: BatchEndpoint;
  readonly files: Files;
  readonly platform: Platform;
  /** Of the wall clock. */
  readonly nowMs: () => number;
  readonly signal: AbortSignal;
}

interface Answered {
  readonly isAnswer: boolean;
  readonly text: string;
}

/** Jobs read at a time, which also bounds the answers that are held. */
const AT_ONCE = 4;
const utf8 = new TextEncoder();

export async function writeAnswers(options: AnswersOptions): Promise<Pick<End, 'completed' | 'failed' | 'outputFileId' | 'errorFileId'>> {
  const { lines, signal } = options;
  const outputs = new LazyFile('output', options);
  const errors = new LazyFile('errors', options);
  let completed = 0;
  for (let first = 0; first < lines.length; first += AT_ONCE) {
    const some = await inParallel(Math.min(AT_ONCE, lines.length - first), AT_ONCE, signal, async (i, stop) => await answered(options, first + i, stop));
    for (const { isAnswer, text } of some) {
      if (isAnswer) completed++;
      await (isAnswer ? outputs : errors).add(utf8.encode(`${text}\n`));
    }
  }
  return { completed, failed: lines.length - completed, outputFileId: await outputs.publish(), errorFileId: await errors.publish() };
}

/** As OpenAI's: https://platform.openai.com/docs/api-reference/batch/request-output */
async function answered({ record, stop, jobs, lines, endpoint, platform, nowMs }: AnswersOptions, index: number, signal: AbortSignal): Promise<Answered> {
  await nextTurn();
  const { tenant } = record;
  const job = lineJobId(record.id, index);
  const line = lines[index];
  const head = { id: `batch_req_${job}`, custom_id: line?.customId ?? '' };
  const state = jobs[index] ?? null;
  const response = (status: number, body: unknown) => ({ status_code: status, request_id: job, body });
  if (stop !== null && (state === null || !hasResult(state))) {
    const error = stop.why === 'cancelled'
      ? { code: 'batch_cancelled', message: 'The batch was cancelled before this request was answered.' }
      : { code: 'batch_expired', message: 'This request was not answered within the completion window.' };
    return { isAnswer: false, text: JSON.stringify({ ...head, response: null, error }) };
  }
  try {
    const request = await endpoint.parse(line?.body, { tenant, signal });
    const body = await request.answer(await platform.get(job, { tenant, signal }), { tenant, signal });
    return { isAnswer: true, text: JSON.stringify({ ...head, response: response(200, body), error: null }) };
  } catch (error) {
    if (signal.aborted || (!isFinal(error) && nowMs() < record.createdMs + WINDOW_MS)) throw error;
    const { status, body } = endpoint.failure(error, line?.body);
    return { isAnswer: false, text: JSON.stringify({ ...head, response: response(status, body), error: null }) };
  }
}

/** How the job ended. Else this machine has no key, model or store for it now, and the batch waits for one that has, until it expires. */
function isFinal(error: unknown): boolean {
  return !(error instanceof EngineError) || ['ERR_JOB_NOT_FOUND', 'ERR_RESULT_EXPIRED', 'ERR_CHECKPOINT'].includes(error.code);
}

/** There is no file without lines. */
class LazyFile {
  readonly #options: AnswersOptions;
  readonly #what: 'output' | 'errors';
  readonly #id: string;
  #writer: BlobWriter | null = null;

  constructor(what: 'output' | 'errors', options: AnswersOptions) {
    this.#what = what;
    this.#options = options;
    this.#id = `file-${options.record.id.slice('batch_'.length)}-${what}`;
  }

  async add(bytes: Uint8Array): Promise<void> {
    const { files, record: { tenant }, signal } = this.#options;
    this.#writer ??= await files.writer(this.#id, { tenant, signal });
    await this.#writer.add(bytes);
  }

  /** Its id; null: nothing was added. */
  async publish(): Promise<string | null> {
    if (this.#writer === null) return null;
    const { files, record: { tenant, id }, nowMs, signal } = this.#options;
    await files.publish(this.#writer, { kind: 'file', tenant, id: this.#id, createdMs: nowMs(), filename: `${id}_${this.#what}.jsonl`, purpose: 'batch_output' }, { signal });
    return this.#id;
  }
}
