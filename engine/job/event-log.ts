/**
 * From what is known of a job, at whatever moments, to its events in their one order. A function of the job alone: reports of a live run,
 * of the store and of a successor on another machine give the same events with the same numbers (DESIGN.md 3, Streams).
 */
import { assert } from '../core/assert.ts';
import { Detokenizer } from '../model/detokenizer.ts';
import type { ChainReport, RunReport } from '../runtime/native.ts';
import { castBallot, chainText, reasonOf } from './ballots.ts';
import type { FinishReason } from './generate.ts';
import { type TokenLogprob, tokenLogprob } from './logprobs.ts';
import type { PreparedJob } from './prepare.ts';
import { type TextDelta, TextSplitter, joinedDelta } from './splitter.ts';

/** `logprobs`: of tokens that are known to be content by now, if the job keeps them; the one that ends the text is none of them. */
interface Told {
  readonly seq: number;
  readonly chain: number;
  readonly delta: TextDelta;
  readonly logprobs?: readonly TokenLogprob[];
}

export type LogEvent =
  | (Told & { readonly kind: 'token'; readonly index: number; readonly token: number })
  | (Told & { readonly kind: 'finish'; readonly reason: FinishReason; readonly answer: string | null });

interface ChainLog {
  readonly detokenizer: Detokenizer;
  readonly splitter: TextSplitter;
  /** Characters that the splitter has been given. */
  chars: number;
  /** Places of tokens of which it is not known yet whether they begin the thinking. */
  undecided: number[];
  finished: boolean;
}

/**
 * Ordered by (step, chain). A token is of the step that made it, and so is the end of a chain that ended by itself; what a budget, the vote or
 * somebody outside ended has its end at the step that it did not get, because whether there would be one is known only then. Where a decided vote
 * cuts the chains (s*) is in the reports: a run is never stepped past it.
 */
export class EventLog {
  readonly #job: PreparedJob;
  readonly #chains: readonly ChainLog[];
  #step = 0;
  #seq = 0;

  constructor(job: PreparedJob) {
    this.#job = job;
    this.#chains = job.lengths.map(() => ({
      detokenizer: new Detokenizer(job.model.tokenizer, { stop: job.stop, kept: job.keptIds }),
      splitter: new TextSplitter(job),
      chars: 0,
      undecided: [],
      finished: false,
    }));
  }

  /** The number that the next event will have. */
  get seq(): number {
    return this.#seq;
  }

  /**
   * What the report adds, as it is asked for: a long job is not made into events all at once. To be read to its end before the next report. One
   * that knows less than those before adds nothing.
   * @param ended why chains were ended from outside; null: not known yet, and such chains are still open.
   */
  *push(report: RunReport, ended: FinishReason | null): Iterable<LogEvent> {
    const finishes = report.chains.map((chain) => reasonOf(chain, ended));
    for (; this.#chains.some(({ finished }) => !finished) && isKnown(report.chains, finishes, this.#step); this.#step++) {
      for (const [i, chain] of report.chains.entries()) yield* this.#stepOf(i, chain, finishes[i] ?? null);
    }
  }

  *#stepOf(i: number, chain: ChainReport, finish: FinishReason | null): Iterable<LogEvent> {
    const index = this.#step - 1;
    const token = chain.tokens[index];
    if (token !== undefined) {
      const { part } = this.#logOf(i).splitter;
      const delta = this.#textOf(i, token);
      yield { kind: 'token', seq: this.#seq++, chain: i, index, token, delta, ...this.#logprobsOf(chain, this.#contentAt(i, index, token, part, delta)) };
    }
    if (finish !== null && this.#step === lastStep(chain, finish)) yield this.#finish(i, chain, finish);
  }

  #textOf(i: number, token: number): TextDelta {
    const log = this.#logOf(i);
    // It ends its chain and is no part of the text, whether or not it is special.
    const text = this.#job.model.info.eosIds.includes(token) ? '' : log.detokenizer.push([token]);
    log.chars += text.length;
    return log.splitter.push(text);
  }

  /** Places of the tokens that are content, now that this one has come. @param part where the splitter was before it. */
  #contentAt(i: number, index: number, token: number, part: TextSplitter['part'], delta: TextDelta): readonly number[] {
    const log = this.#logOf(i);
    if (this.#job.logprobs === null || this.#job.model.info.eosIds.includes(token)) return [];
    if (part === 'content') return [index];
    const begun = [...log.undecided, index];
    log.undecided = log.splitter.part === 'start' ? begun : [];
    if (log.splitter.part !== 'content') return [];
    if (!log.splitter.thinks) return begun;
    // A token may end the thinking and begin the content.
    return delta.content === '' ? [] : [index];
  }

  #logprobsOf({ tokens, logprobs }: ChainReport, places: readonly number[]): Pick<Told, 'logprobs'> {
    if (this.#job.logprobs === null || logprobs === null) return {};
    return { logprobs: places.map((at) => tokenLogprob(this.#job.model.tokenizer, logprobs, at, tokens[at] ?? 0)) };
  }

  /** The rest of the text is what the whole has beyond what was given out, however it came to be held back. */
  #finish(i: number, chain: ChainReport, reason: FinishReason): LogEvent {
    const log = this.#logOf(i);
    log.finished = true;
    const text = chainText(this.#job, chain);
    const rest = log.splitter.push(text.slice(log.chars));
    const { answer } = castBallot(this.#job, i, chain, text);
    const delta = joinedDelta(rest, log.splitter.flush());
    const says = delta.content !== '' || (delta.calls ?? []).length > 0;
    return { kind: 'finish', seq: this.#seq++, chain: i, reason, answer, delta, ...this.#logprobsOf(chain, says ? log.undecided : []) };
  }

  #logOf(i: number): ChainLog {
    const log = this.#chains[i];
    assert(log !== undefined, 'a report is about the chains of its job');
    return log;
  }
}

/** Nothing that belongs to this step can still come: every chain has been there or has ended. */
function isKnown(chains: readonly ChainReport[], finishes: readonly (FinishReason | null)[], step: number): boolean {
  return chains.every(({ tokens }, i) => tokens.length >= step || finishes[i] !== null);
}

function lastStep({ tokens }: ChainReport, finish: FinishReason): number {
  return finish === 'stop' || finish === 'length' ? tokens.length : tokens.length + 1;
}
