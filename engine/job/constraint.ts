/** Chains that keep a format: before each step, which tokens each of them may take. Derived from the tokens alone, so it outlives any checkpoint. */
import { EngineError } from '../core/errors.ts';
import { type ChainTokens, GrammarThread } from '../runtime/grammar.ts';
import type { RunReport, TokenMask } from '../runtime/native.ts';
import { grammarOf } from './grammar.ts';
import type { PreparedJob } from './prepare.ts';

/** Of one job, until it is disposed. */
export interface Constraint extends Disposable {
  /** For the next step, [width]; null for a chain that has finished. @throws EngineError ERR_FORMAT, ERR_OVERLOADED, ERR_CANCELLED. */
  masks(report: RunReport, signal?: AbortSignal): Promise<readonly (TokenMask | null)[]>;
}

interface Held {
  readonly key: string;
  readonly thread: GrammarThread;
}

/** Threads that wait for the next job on their model: a vocabulary takes them a second and 70 MB if it is large. */
const IDLE_MAX = 2;

/** A thread for each job that has a format, so that none waits for another's grammar or ends with it. */
export class Constraints implements Disposable {
  /** The one that was used last is the last. */
  readonly #idle: Held[] = [];
  #disposed = false;

  /**
   * null: the job may write any text.
   * @throws EngineError ERR_FORMAT: the model cannot end a text, or the grammar is refused or takes too long; ERR_OVERLOADED: its thread failed; ERR_OPTION; ERR_CANCELLED.
   */
  async open(job: PreparedJob, signal?: AbortSignal): Promise<Constraint | null> {
    if (job.format === null) return null;
    const { model } = job;
    if (model.info.eosIds.length === 0) throw new EngineError('ERR_FORMAT', `${model.resolved.name} has no token that ends a text, so it cannot keep a format.`);
    const held = this.#take(job);
    const thinks = job.thinking !== null && (job.opened || (model.template?.source.includes(job.thinking.open) ?? false));
    try {
      await held.thread.open(grammarOf(job.format, { thinking: thinks ? job.thinking : null, opened: job.opened, calls: job.calls?.syntax.form ?? null }), signal);
    } catch (error) {
      this.#give(held);
      throw error;
    }
    return new ThreadConstraint(held.thread, job.lengths.length, () => this.#give(held));
  }

  #take({ model: { tokenizer, info }, keptIds }: PreparedJob): Held {
    const key = JSON.stringify([tokenizer.digest, info.vocabSize, info.eosIds, [...keptIds]]);
    const at = this.#idle.findLastIndex((held) => held.key === key);
    const [held] = at < 0 ? [] : this.#idle.splice(at, 1);
    return held ?? { key, thread: new GrammarThread({ ...tokenizer.pieces(info.vocabSize, keptIds), eosIds: info.eosIds }) };
  }

  #give(held: Held): void {
    if (held.thread.isUsable) this.#idle.push(held);
    if (this.#disposed || this.#idle.length > IDLE_MAX) this.#idle.shift()?.thread[Symbol.dispose]();
  }

  /** Idempotent. Threads of jobs that still run end with those. */
  [Symbol.dispose](): void {
    this.#disposed = true;
    for (const { thread } of this.#idle.splice(0)) thread[Symbol.dispose]();
  }
}

class ThreadConstraint implements Constraint {
  readonly #thread: GrammarThread;
  /** Of each chain: tokens that the thread has seen, and the mask after them. */
  readonly #known: { count: number; mask: TokenMask | null }[];

  #give: (() => void) | null;

  constructor(thread: GrammarThread, width: number, give: () => void) {
    this.#thread = thread;
    this.#give = give;
    this.#known = Array.from({ length: width }, () => ({ count: 0, mask: null }));
  }

  async masks(report: RunReport, signal?: AbortSignal): Promise<readonly (TokenMask | null)[]> {
    const asked: ChainTokens[] = [];
    for (const [chain, { tokens, finish }] of report.chains.entries()) {
      const { count = 0, mask = null } = this.#known[chain] ?? {};
      if (finish === null && (mask === null || count !== tokens.length)) asked.push({ chain, from: count, tokens: [...tokens.subarray(count)] });
    }
    if (asked.length > 0) {
      const masks = await this.#thread.masks(asked, signal);
      for (const [i, { chain, from, tokens }] of asked.entries()) this.#known[chain] = { count: from + tokens.length, mask: checked(masks[i] ?? null, chain) };
    }
    return report.chains.map(({ finish }, chain) => (finish === null ? (this.#known[chain]?.mask ?? null) : null));
  }

  [Symbol.dispose](): void {
    this.#give?.();
    this.#give = null;
  }
}

function checked(mask: TokenMask | null, chain: number): TokenMask {
  if (mask === null) throw new EngineError('ERR_FORMAT', `What chain ${chain} has written is not in the format; another version may have written it.`);
  if (mask.every((word) => word === 0)) throw new EngineError('ERR_FORMAT', `The vocabulary has no token for what must come next in chain ${chain}.`);
  return mask;
}
