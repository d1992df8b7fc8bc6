/** Chains that keep a format: before each step, which tokens each of them may take. Derived from the tokens alone, so it outlives any checkpoint. */
import { EngineError } from '../core/errors.ts';
import { type ChainTokens, GrammarThread } from '../runtime/grammar.ts';
import type { RunReport, TokenMask } from '../runtime/native.ts';
import { grammarOf } from './grammar.ts';
import type { LoadedModel, PreparedJob } from './prepare.ts';

/** Of one job. */
export interface Constraint {
  /** For the next step, [width]; null for a chain that has finished. @throws EngineError ERR_FORMAT, ERR_CANCELLED. */
  masks(report: RunReport, signal?: AbortSignal): Promise<readonly (TokenMask | null)[]>;
}

/** The thread of the model that was used last, with its vocabulary, and what xgrammar has compiled for it. */
export class Constraints implements Disposable {
  #held: { readonly key: string; readonly thread: GrammarThread } | null = null;

  /**
   * null: the job may write any text. One job at a time: the constraint of the one before ends here.
   * @throws EngineError ERR_FORMAT: the model cannot end a text, or the grammar is refused or takes too long; ERR_OPTION; ERR_CANCELLED.
   */
  async open(job: PreparedJob, signal?: AbortSignal): Promise<Constraint | null> {
    if (job.format === null) return null;
    const { model } = job;
    if (model.info.eosIds.length === 0) throw new EngineError('ERR_FORMAT', `${model.resolved.name} has no token that ends a text, so it cannot keep a format.`);
    const thread = this.#threadOf(model);
    const thinks = job.thinking !== null && (job.opened || (model.template?.source.includes(job.thinking.open) ?? false));
    await thread.open(grammarOf(job.format, { thinking: thinks ? job.thinking : null, opened: job.opened, calls: null }), signal);
    return new ThreadConstraint(thread, job.lengths.length);
  }

  #threadOf({ tokenizer, info }: LoadedModel): GrammarThread {
    const key = JSON.stringify([tokenizer.digest, info.vocabSize, info.eosIds]);
    if (this.#held !== null && (this.#held.key !== key || !this.#held.thread.isUsable)) this[Symbol.dispose]();
    this.#held ??= { key, thread: new GrammarThread({ ...tokenizer.pieces(info.vocabSize), eosIds: info.eosIds }) };
    return this.#held.thread;
  }

  /** Idempotent; it may be used again. */
  [Symbol.dispose](): void {
    this.#held?.thread[Symbol.dispose]();
    this.#held = null;
  }
}

class ThreadConstraint implements Constraint {
  readonly #thread: GrammarThread;
  /** Of each chain: tokens that the thread has seen, and the mask after them. */
  readonly #known: { count: number; mask: TokenMask | null }[];

  constructor(thread: GrammarThread, width: number) {
    this.#thread = thread;
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
}

function checked(mask: TokenMask | null, chain: number): TokenMask {
  if (mask === null) throw new EngineError('ERR_FORMAT', `What chain ${chain} has written is not in the format; another version may have written it.`);
  if (mask.every((word) => word === 0)) throw new EngineError('ERR_FORMAT', `The vocabulary has no token for what must come next in chain ${chain}.`);
  return mask;
}
