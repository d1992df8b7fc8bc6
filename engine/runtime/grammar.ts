/** Allowed tokens by a grammar, from a thread of its own (grammar-thread.mjs). One vocabulary, one grammar after the other. */
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';

import { EngineError } from '../core/errors.ts';
import { LIMITS } from '../core/limits.ts';
import type { TokenMask } from './native.ts';

export interface Vocabulary {
  /** What each token adds to the text, as Tokenizer.pieces has it. */
  readonly bytes: Uint8Array;
  readonly offsets: Uint32Array;
  readonly eosIds: readonly number[];
}

/** One chain: its tokens from the `from`-th on, which is how many it was asked with before, or all of them from 0. */
export interface ChainTokens {
  readonly chain: number;
  readonly from: number;
  readonly tokens: readonly number[];
}

interface Reply {
  readonly id: number;
  readonly masks?: readonly (TokenMask | null)[];
  readonly refused?: string;
}

interface Call {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: EngineError) => void;
}

/** Ends with the first failure: then it is disposed, and another one is started by whoever needs one. */
export class GrammarThread implements Disposable {
  readonly #worker: Worker;
  readonly #calls = new Map<number, Call>();
  #ids = 0;
  #ended: EngineError | null = null;

  constructor({ bytes, offsets, eosIds }: Vocabulary) {
    this.#worker = new Worker(threadFile(), { workerData: { vocabulary: { bytes, offsets }, eosIds }, stdout: true, stderr: true });
    this.#worker.on('message', (reply: Reply) => {
      const call = this.#calls.get(reply.id);
      if (reply.refused === undefined) return call?.resolve(reply);
      this.#end(refused(`The grammar of the format is refused: ${reply.refused}`));
    });
    this.#worker.on('error', (error) => this.#end(failed(`The grammar of the format cannot be followed: ${error.message}`)));
    this.#worker.on('exit', () => this.#end(failed('The grammar of the format cannot be followed: its thread ended.')));
    // A process does not stay for a thread that nobody waits for.
    this.#worker.unref();
  }

  get isUsable(): boolean {
    return this.#ended === null;
  }

  /** From here on masks are of this grammar, and of no tokens. @throws EngineError ERR_FORMAT: refused, or not compiled within the limit; ERR_OVERLOADED: its thread failed; ERR_CANCELLED. */
  async open(grammar: string, signal?: AbortSignal): Promise<void> {
    const limitMs = LIMITS.GRAMMAR_COMPILE_MS_MAX;
    await this.#call({ grammar }, limitMs, () => refused(`The grammar of the format takes more than ${limitMs / 1_000} s; give a smaller schema.`), signal);
  }

  /** null: the tokens of that chain are not of the grammar. @throws EngineError ERR_OVERLOADED: not within the limit, or its thread failed; ERR_CANCELLED. */
  async masks(asked: readonly ChainTokens[], signal?: AbortSignal): Promise<readonly (TokenMask | null)[]> {
    const limitMs = LIMITS.GRAMMAR_STEP_MS_MAX;
    return (await this.#call({ asked }, limitMs, () => failed(`The grammar of the format was not followed within ${limitMs / 1_000} s.`), signal)).masks ?? [];
  }

  /** Idempotent. */
  [Symbol.dispose](): void {
    this.#end(new EngineError('ERR_DISPOSED', 'The grammar was used after it was disposed.'));
  }

  async #call(request: object, limitMs: number, tooLate: () => EngineError, signal: AbortSignal | undefined): Promise<Reply> {
    if (this.#ended !== null) throw this.#ended;
    if (signal?.aborted === true) throw cancelled();
    const id = this.#ids++;
    const reply = new Promise<Reply>((resolve, reject) => this.#calls.set(id, { resolve, reject }));
    // What it is at cannot be interrupted: the thread goes with it.
    const abort = () => this.#end(cancelled());
    const late = setTimeout(() => this.#end(tooLate()), limitMs);
    signal?.addEventListener('abort', abort, { once: true });
    this.#worker.ref();
    this.#worker.postMessage({ id, ...request });
    try {
      return await reply;
    } finally {
      clearTimeout(late);
      signal?.removeEventListener('abort', abort);
      this.#calls.delete(id);
      if (this.#calls.size === 0) this.#worker.unref();
    }
  }

  #end(error: EngineError): void {
    if (this.#ended !== null) return;
    this.#ended = error;
    for (const { reject } of this.#calls.values()) reject(error);
    void this.#worker.terminate();
  }
}

function refused(sentence: string): EngineError {
  return new EngineError('ERR_FORMAT', sentence);
}

/** Of this machine at this moment: the job goes on elsewhere or later. */
function failed(sentence: string): EngineError {
  return new EngineError('ERR_OVERLOADED', sentence);
}

function cancelled(): EngineError {
  return new EngineError('ERR_CANCELLED', 'The call was cancelled.');
}

/** This file runs as engine/runtime/grammar.ts or within dist/: the thread's file belongs to the package around it. */
function threadFile(): string {
  let folder = path.dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const file = path.join(folder, 'engine', 'runtime', 'grammar-thread.mjs');
    if (existsSync(file)) return file;
    const parent = path.dirname(folder);
    if (parent === folder) throw new EngineError('ERR_FORMAT', 'The thread that follows grammars is missing from this installation.');
    folder = parent;
  }
}
