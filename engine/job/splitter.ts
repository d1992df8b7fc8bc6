/** A chain's text as it comes, parted into what it thinks and what it says. */
import { overlap } from '../model/detokenizer.ts';
import { type Thinking, splitThinking } from './answer.ts';

export interface TextDelta {
  readonly reasoning: string;
  readonly content: string;
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
