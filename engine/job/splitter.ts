/** A chain's text as it comes, parted into what it thinks, what it says and what it calls. */
import { CallParser, type CallRules, type Said } from '../model/calls/parser.ts';
import type { Call } from '../model/calls/syntax.ts';
import { overlap } from '../model/detokenizer.ts';
import { type Thinking, splitThinking } from './answer.ts';

export interface TextDelta {
  readonly reasoning: string;
  readonly content: string;
  /** In their order; there if and only if the job offers functions. */
  readonly calls?: readonly CallDelta[];
}

/** What comes to a call of the chain: first its name, then more of its arguments, which are JSON if the model writes JSON. */
export interface CallDelta {
  readonly index: number;
  /** Characters of this delta's content that stand before it. */
  readonly at: number;
  readonly name?: string;
  readonly arguments: string;
}

/** What parts the text of one job's chains. */
export interface TextRules {
  /** null: there is no thinking. */
  readonly thinking: Thinking | null;
  /** Whether the prompt already ends inside the thinking. */
  readonly opened: boolean;
  readonly calls: CallRules | null;
}

/** Joined outputs are a function of the joined texts: what was given out is never taken back. */
export class TextSplitter {
  readonly #thinking: ThinkingSplitter;
  readonly #calls: CallParser | null;

  constructor({ thinking, opened, calls }: TextRules) {
    this.#thinking = new ThinkingSplitter(thinking, opened);
    this.#calls = calls === null ? null : new CallParser(calls);
  }

  /** What the next character is, as far as that is certain: a call is content. */
  get part(): ThinkingSplitter['part'] {
    return this.#thinking.part;
  }

  /** Whether it thinks or has thought, if only an empty thought. */
  get thinks(): boolean {
    return this.#thinking.thinks;
  }

  push(text: string): TextDelta {
    const delta = this.#thinking.push(text);
    return this.#calls === null ? delta : deltaOf(delta.reasoning, this.#calls.push(delta.content));
  }

  /** What was held back. */
  flush(): TextDelta {
    const delta = this.#thinking.flush();
    return this.#calls === null ? delta : deltaOf(delta.reasoning, [...this.#calls.push(delta.content), ...this.#calls.flush()]);
  }
}

function deltaOf(reasoning: string, said: readonly Said[]): TextDelta {
  let content = '';
  const calls: CallDelta[] = [];
  for (const piece of said) {
    if (piece.kind === 'text') content += piece.text;
    else calls.push({ index: piece.index, at: content.length, ...(piece.name === undefined ? {} : { name: piece.name }), arguments: piece.arguments });
  }
  return { reasoning, content, calls };
}

/** The second comes after the first. */
export function joinedDelta(first: TextDelta, second: TextDelta): TextDelta {
  return {
    reasoning: first.reasoning + second.reasoning,
    content: first.content + second.content,
    ...(first.calls === undefined ? {} : { calls: [...first.calls, ...(second.calls ?? []).map((call) => ({ ...call, at: call.at + first.content.length }))] }),
  };
}

/** The calls of a whole answer, and what it says beside them. */
export function splitCalls(answer: string, rules: CallRules): { readonly content: string; readonly calls: readonly Call[] } {
  const parser = new CallParser(rules);
  const { content, calls: deltas = [] } = deltaOf('', [...parser.push(answer), ...parser.flush()]);
  const calls: Call[] = [];
  for (const { index, name, arguments: more } of deltas) calls[index] = { name: name ?? calls[index]?.name ?? '', arguments: (calls[index]?.arguments ?? '') + more };
  return { content, calls };
}

/**
 * Joined outputs equal `splitThinking` of the joined texts: an end that may yet turn out to be a delimiter is held back.
 * @example
 * const splitter = new ThinkingSplitter(DEFAULT_THINKING, true);
 * splitter.push('2+2 is 4</thi'); // { reasoning: '2+2 is 4', content: '' }
 * splitter.push('nk>4'); // { reasoning: '', content: '4' }
 */
export class ThinkingSplitter {
  readonly #delimiters: Thinking | null;
  readonly #opened: boolean;
  #part: 'start' | 'reasoning' | 'content';
  #thinks = false;
  #held = '';

  constructor(delimiters: Thinking | null, opened: boolean) {
    this.#delimiters = delimiters;
    this.#opened = opened;
    this.#part = delimiters === null ? 'content' : 'start';
  }

  /** What the next character is, as far as that is certain. */
  get part(): 'start' | 'reasoning' | 'content' {
    return this.#part;
  }

  /** Whether it thinks or has thought, if only an empty thought. */
  get thinks(): boolean {
    return this.#thinks;
  }

  push(text: string): TextDelta {
    this.#held += text;
    if (this.#part === 'start' && this.#delimiters !== null) this.#begin(this.#delimiters.open);
    if (this.#part === 'start') return { reasoning: '', content: '' };
    if (this.#part === 'content' || this.#delimiters === null) return { reasoning: '', content: this.#take(this.#held.length) };
    const { close } = this.#delimiters;
    const end = this.#held.indexOf(close);
    if (end < 0) return { reasoning: this.#take(this.#held.length - overlap(this.#held, close)), content: '' };
    const reasoning = this.#take(end);
    this.#part = 'content';
    return { reasoning, content: this.#take(this.#held.length).slice(close.length) };
  }

  /** What was held back. */
  flush(): TextDelta {
    const { thinking, answer } = this.#part === 'start' ? splitThinking(this.#held, this.#delimiters, this.#opened) : { thinking: this.#held, answer: null };
    this.#held = '';
    return { reasoning: thinking, content: answer ?? '' };
  }

  /** Whether the text begins with the opening delimiter; not before it is certain. */
  #begin(open: string): void {
    const text = this.#held.trimStart();
    if (text.startsWith(open)) {
      this.#held = text.slice(open.length);
      this.#part = 'reasoning';
    } else if (!open.startsWith(text)) {
      this.#part = this.#opened ? 'reasoning' : 'content';
    }
    this.#thinks = this.#part === 'reasoning';
  }

  #take(chars: number): string {
    const taken = this.#held.slice(0, chars);
    this.#held = this.#held.slice(chars);
    return taken;
  }
}
