/** A running job's reports as numbered events, by step and then chain; of engine-platform.ts. */
import type { ChainDelta, JobEvent } from '../../engine/control/platform.ts';
import { splitThinking } from '../../engine/job/answer.ts';
import type { FinishReason, JobResult } from '../../engine/job/generate.ts';
import type { PreparedJob } from '../../engine/job/prepare.ts';
import type { JobState } from '../../engine/kv/head.ts';
import { Detokenizer } from '../../engine/model/detokenizer.ts';
import type { RunReport } from '../../engine/runtime/native.ts';

class Split {
  readonly #job: PreparedJob;
  readonly #detokenizer: Detokenizer;
  #text = '';
  #shown = { reasoning: 0, content: 0 };

  constructor(job: PreparedJob) {
    this.#job = job;
    this.#detokenizer = new Detokenizer(job.model.tokenizer, { stop: job.stop });
  }

  push(token: number): ChainDelta {
    return this.#take(this.#detokenizer.push([token]), false);
  }

  flush(): ChainDelta {
    return this.#take(this.#detokenizer.flush(), true);
  }

  #take(text: string, whole: boolean): ChainDelta {
    this.#text += text;
    const { thinking, opened } = this.#job;
    const { thinking: reasoning, answer } = splitThinking(this.#text, thinking, opened);
    // What may yet become the closing marker is held back.
    const close = answer === null && !whole ? (thinking?.close ?? '') : '';
    let held = 0;
    for (let n = 1; n < close.length; n++) if (reasoning.endsWith(close.slice(0, n))) held = n;
    const delta = { reasoning: reasoning.slice(this.#shown.reasoning, reasoning.length - held), content: (answer ?? '').slice(this.#shown.content) };
    this.#shown = { reasoning: this.#shown.reasoning + delta.reasoning.length, content: this.#shown.content + delta.content.length };
    return delta;
  }
}

export class EventLog {
  readonly events: JobEvent[] = [];
  readonly chains: { tokens: number; finish: string | null }[];
  readonly #splits: readonly Split[];
  #step = 0;

  constructor(job: PreparedJob) {
    this.#splits = job.lengths.map(() => new Split(job));
    this.chains = job.lengths.map(() => ({ tokens: 0, finish: null }));
  }

  advance(report: RunReport): void {
    for (; this.#step < report.step; this.#step++) {
      report.chains.forEach((chain, index) => this.#advance(index, chain.tokens, chain.finish as FinishReason | null));
    }
  }

  #advance(index: number, tokens: Int32Array, finish: FinishReason | null): void {
    const chain = this.chains[index];
    const split = this.#splits[index];
    const token = tokens[this.#step];
    if (chain === undefined || split === undefined || token === undefined) return;
    this.events.push({ kind: 'token', seq: this.events.length, chain: index, index: this.#step, token, delta: split.push(token) });
    chain.tokens += 1;
    if (finish !== null && tokens.length === chain.tokens) this.#finish(index, finish, null);
  }

  #finish(index: number, reason: FinishReason, answer: string | null): void {
    const chain = this.chains[index];
    const split = this.#splits[index];
    if (chain === undefined || split === undefined || chain.finish !== null) return;
    chain.finish = reason;
    this.events.push({ kind: 'finish', seq: this.events.length, chain: index, reason, answer, delta: split.flush() });
  }

  end(result: Omit<JobResult, 'timing'>, state: JobState): void {
    const tokens = result.chains.map((chain) => Int32Array.from(chain.tokens));
    const last = Math.max(...tokens.map(({ length }) => length));
    for (; this.#step < last; this.#step++) result.chains.forEach((chain, index) => this.#advance(index, tokens[index] ?? new Int32Array(0), chain.finish_reason));
    result.chains.forEach((chain, index) => this.#finish(index, chain.finish_reason, chain.answer));
    this.events.push({ kind: 'result', seq: this.events.length, state, result });
  }
}
