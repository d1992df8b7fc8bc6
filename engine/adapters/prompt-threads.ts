/** Prompts on threads of their own: a long one is seconds of template and tokenizer, in which the JavaScript thread answers everybody else. */
import { Worker } from 'node:worker_threads';

import { type Clock, systemClock } from '../core/clock.ts';
import { EngineError, type ErrorCode } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import { cancelled, throwIfCancelled } from '../core/waiting.ts';
import { type LoadedModel, promptModel } from '../job/prepare.ts';
import { type Prompt, promptOf } from '../job/prompt.ts';
import type { JobSpec } from '../job/spec.ts';
import type { CallOptions } from '../ports/object-store.ts';
import type { Prompts } from '../ports/prompts.ts';

/** What a thread is asked: the model by where it is, and by what it must be. */
export interface PromptRequest {
  readonly spec: JobSpec;
  readonly name: string;
  readonly directory: string;
  readonly tokenizerDigest: string;
  /** null: the model has none. */
  readonly template: string | null;
  /** For chats with tools; null: the same. */
  readonly toolTemplate: string | null;
  readonly vocabSize: number;
  readonly context: number;
}

export type PromptAnswer =
  | { readonly kind: 'prompt'; readonly ids: Int32Array; readonly end: string; readonly syntax: Prompt['syntax']; readonly ignored: Prompt['ignored'] }
  | { readonly kind: 'refused'; readonly code: ErrorCode; readonly message: string };

export interface PromptThreadsOptions {
  /** The thread's program; default: what the build puts beside this file. */
  readonly program?: URL | undefined;
  readonly clock?: Clock | undefined;
  readonly threads?: number | undefined;
}

/** Prompts that wait for a thread, and how long one may take, waiting included. */
const WAITING_MAX = 16;
const ENCODE_MS_MAX = LIMITS.TOKENIZER_MS_MAX + LIMITS.TEMPLATE_MS_MAX;
/** Encoded where it is asked for: a millisecond or two, less than handing it over. */
const INLINE_CHARS = 4_096;
/** A turn of a chat is more than its text to a template. */
const ENTRY_CHARS = 32;
const THREADS = 2;
/** A thread holds a tokenizer of its own, which may be hundreds of megabytes. */
const IDLE_MS = 60_000;

interface Asked {
  readonly request: PromptRequest;
  readonly settle: (answer: PromptAnswer | Error) => void;
}

/**
 * @example
 * using prompts = new PromptThreads();
 * const worker = new Worker({ store, queue, prompts });
 */
export class PromptThreads implements Prompts, Disposable {
  readonly #program: URL;
  readonly #clock: Clock;
  readonly #threads: readonly PromptThread[];
  #waiting: Asked[] = [];
  #disposed = false;

  constructor({ program, clock = systemClock, threads = THREADS }: PromptThreadsOptions = {}) {
    this.#program = program ?? new URL('./prompt-thread.mjs', import.meta.url);
    this.#clock = clock;
    this.#threads = Array.from({ length: threads }, () => new PromptThread(this.#program, this.#clock));
  }

  async encode(spec: JobSpec, model: LoadedModel, { signal }: CallOptions = {}): Promise<Prompt> {
    throwIfCancelled(signal);
    const { messages, prompt, raw_prompt: raw, instructions, tools, documents, template_variables: variables } = spec;
    // Of token ids there is nothing to encode.
    if (Array.isArray(raw) || isShort([messages, prompt, raw, instructions, tools, documents, variables])) return promptOf(spec, promptModel(model));
    const answer = await this.#ask(requestOf(spec, model), signal);
    if (answer.kind === 'refused') throw new EngineError(answer.code, answer.message);
    return { ids: [...answer.ids], end: answer.end, syntax: answer.syntax, ignored: answer.ignored };
  }

  async #ask(request: PromptRequest, signal: AbortSignal | undefined): Promise<PromptAnswer> {
    if (this.#disposed) throw new EngineError('ERR_DISPOSED', 'The threads were used after they were disposed.');
    if (this.#waiting.length >= WAITING_MAX) {
      throw new EngineError('ERR_OVERLOADED', `${this.#waiting.length} long prompts wait to be encoded; try again later.`);
    }
    using late = this.#clock.timeout(ENCODE_MS_MAX);
    const stop = new AbortController();
    try {
      return await new Promise<PromptAnswer>((resolve, reject) => {
        const asked: Asked = { request, settle: (answer) => (answer instanceof Error ? reject(answer) : resolve(answer)) };
        const leave = (error: EngineError): void => {
          this.#waiting = this.#waiting.filter((other) => other !== asked);
          // Nobody wants what it would come to.
          this.#threads.find((thread) => thread.asked === asked)?.end();
          asked.settle(error);
        };
        const once = { once: true, signal: stop.signal };
        signal?.addEventListener('abort', () => leave(cancelled()), once);
        late.signal.addEventListener('abort', () => leave(new EngineError('ERR_OVERLOADED', `The prompt was not encoded within ${ENCODE_MS_MAX / 1_000} s.`)), once);
        this.#waiting.push(asked);
        this.#next();
      });
    } finally {
      stop.abort();
      this.#next();
    }
  }

  #next(): void {
    for (const thread of this.#threads) {
      if (thread.asked !== null) continue;
      const asked = this.#waiting.shift();
      if (asked === undefined) return;
      thread.ask(asked);
    }
  }

  /** What waits is refused; idempotent. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    for (const { settle } of this.#waiting.splice(0)) settle(cancelled());
    for (const thread of this.#threads) {
      thread.asked?.settle(cancelled());
      thread.end();
    }
  }
}

/** At most one thread, begun when it is needed, which does one thing at a time. */
class PromptThread {
  readonly #program: URL;
  readonly #clock: Clock;
  #worker: Worker | null = null;
  #idle: Disposable | null = null;
  asked: Asked | null = null;

  constructor(program: URL, clock: Clock) {
    this.#program = program;
    this.#clock = clock;
  }

  ask(asked: Asked): void {
    this.#idle?.[Symbol.dispose]();
    this.asked = asked;
    this.#worker ??= this.#start();
    this.#worker.postMessage(asked.request);
  }

  /** Whatever it does is lost. */
  end(): void {
    this.#idle?.[Symbol.dispose]();
    this.asked = null;
    void this.#worker?.terminate();
    this.#worker = null;
  }

  #start(): Worker {
    const worker = new Worker(this.#program);
    // A process that has nothing else to do may end.
    worker.unref();
    worker.on('message', (answer: PromptAnswer) => this.#answer(worker, answer));
    worker.on('error', (cause) => this.#fail(worker, cause));
    worker.on('exit', (code) => this.#fail(worker, new Error(`it ended with ${code}`)));
    return worker;
  }

  #answer(worker: Worker, answer: PromptAnswer): void {
    if (worker !== this.#worker) return;
    const { asked } = this;
    this.asked = null;
    const idle = this.#clock.timeout(IDLE_MS);
    this.#idle = idle;
    idle.signal.addEventListener('abort', () => this.end(), { once: true });
    asked?.settle(answer);
  }

  #fail(worker: Worker, cause: Error): void {
    if (worker !== this.#worker) return;
    const { asked } = this;
    this.end();
    const isMemory = (cause as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY';
    asked?.settle(new EngineError(isMemory ? 'ERR_OVERLOADED' : 'ERR_INTERNAL', `The thread that encodes prompts failed: ${cause.message}.`, { cause }));
  }
}

function requestOf(spec: JobSpec, model: LoadedModel): PromptRequest {
  const { name, template, tokenizer, vocabSize, context } = promptModel(model);
  const toolTemplate = template === null || template.forTools === template ? null : template.forTools.source;
  return { spec, name, vocabSize, context, directory: model.resolved.directory, tokenizerDigest: tokenizer.digest, template: template?.source ?? null, toolTemplate };
}

/** Counted until it is too much for this thread. */
function isShort(value: unknown): boolean {
  const left: unknown[] = [value];
  for (let chars = 0; left.length > 0;) {
    const next = left.pop();
    chars += typeof next === 'string' ? next.length : ENTRY_CHARS;
    if (chars > INLINE_CHARS) return false;
    if (typeof next !== 'object' || next === null) continue;
    const keys = Array.isArray(next) ? [] : Object.keys(next);
    const values: readonly unknown[] = Array.isArray(next) ? next : Object.values(next);
    if (values.length * ENTRY_CHARS > INLINE_CHARS) return false;
    left.push(...keys, ...values);
  }
  return true;
}
