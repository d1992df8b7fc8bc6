/**
 * What a model says, as it comes, parted into text and calls. What was given out is never taken back: what may yet be a call is held back,
 * and what turns out to be none is text.
 */
import { LIMITS } from '../../core/limits.ts';
import { overlap } from '../detokenizer.ts';
import type { CallReader, CallSyntax, Step } from './syntax.ts';

/** In the order in which they were said. The first piece of a call has its name. */
export type Said =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'call'; readonly index: number; readonly name?: string; readonly arguments: string };

export interface CallRules {
  readonly syntax: CallSyntax;
  /** Names of functions; what calls another is text. */
  readonly offered: ReadonlySet<string>;
  /** Calls in one turn. What comes after the last of them is not looked at for more; of a single one, nothing that follows is said. */
  readonly most: number;
}

/**
 * Joined outputs depend on the joined texts only. Never throws, whatever the text is. White space beside a call is left out, at most
 * CALL_SPACE_CHARS_MAX characters before it.
 * @example
 * const parser = new CallParser({ syntax: hermes, offered: new Set(['f']), most: 128 });
 * parser.push('So: <tool_call>{"name": "f", "argum'); // [{ kind: 'text', text: 'So:' }]
 * parser.push('ents": {"x": 1}}</tool_call>'); // [{ kind: 'call', index: 0, name: 'f', arguments: '{"x": 1}' }]
 */
export class CallParser {
  readonly #rules: CallRules;
  /** `start`: nothing was said yet but white space; `around`: after an opening or a call; a reader: in one. */
  #state: 'start' | 'text' | 'around' | CallReader = 'start';
  #held = '';
  /** Since the opening that brought us here: text, if no call comes of it. */
  #raw = '';
  #opened = false;
  #calls = 0;
  #told = false;
  #said: Said[] = [];

  constructor(rules: CallRules) {
    this.#rules = rules;
  }

  push(text: string): readonly Said[] {
    this.#held += text;
    return this.#run(false);
  }

  /** Nothing more comes: the rest. */
  flush(): readonly Said[] {
    return this.#run(true);
  }

  #run(last: boolean): readonly Said[] {
    while (this.#held !== '' && this.#advance(last));
    if (last) this.#say(this.#raw);
    const said = this.#said;
    this.#said = [];
    return said;
  }

  /** false: more must come first. */
  #advance(last: boolean): boolean {
    if (this.#isSilenced) {
      this.#held = '';
      return false;
    }
    switch (this.#state) {
      case 'start': return this.#start(last);
      case 'text': return this.#text(last);
      case 'around': return this.#around(last);
      default: return this.#call(this.#state);
    }
  }

  /** One call was asked for, and it is over. */
  get #isSilenced(): boolean {
    return this.#rules.most === 1 && this.#calls === 1;
  }

  get #isFull(): boolean {
    return this.#calls >= this.#rules.most;
  }

  /** A text that begins with a call needs no opening in some syntaxes. */
  #start(last: boolean): boolean {
    const { opens, bare } = this.#rules.syntax;
    const text = this.#held.trimStart();
    if (bare.first && text.startsWith('{')) {
      const space = this.#held.length - text.length;
      const said = spaceBefore(this.#held, space);
      this.#say(this.#take(said));
      this.#raw = this.#take(space - said);
      this.#begin();
      return true;
    }
    if (text !== '' && !opens.some((open) => open.startsWith(text))) this.#state = 'text';
    return this.#text(last);
  }

  #text(last: boolean): boolean {
    const { opens } = this.#rules.syntax;
    const found = this.#isFull ? [] : opens.map((open) => ({ open, at: this.#held.indexOf(open) })).filter(({ at }) => at >= 0);
    const first = found.toSorted((a, b) => a.at - b.at)[0];
    if (first !== undefined) {
      this.#say(this.#take(spaceBefore(this.#held, first.at)));
      this.#raw = this.#take(this.#held.indexOf(first.open) + first.open.length);
      this.#state = 'around';
      this.#opened = true;
      return true;
    }
    const kept = last || this.#isFull ? 0 : Math.max(...opens.map((open) => overlap(this.#held, open)));
    const end = this.#held.length - kept;
    this.#say(this.#take(last || this.#isFull ? end : spaceBefore(this.#held, end)));
    return false;
  }

  #around(last: boolean): boolean {
    const { opens, silent, bare } = this.#rules.syntax;
    this.#skip();
    if (this.#raw.length > LIMITS.CALL_HEAD_CHARS_MAX) return this.#isText();
    const text = this.#held;
    const markers = this.#isFull ? silent : [...opens, ...silent];
    if (text === '' || (!last && markers.some((marker) => marker.length > text.length && marker.startsWith(text)))) return false;
    const marker = markers.find((known) => text.startsWith(known));
    if (marker !== undefined) {
      this.#take(marker.length);
      this.#opened ||= opens.includes(marker);
      // What closes a call is no part of anything.
      if (this.#opened) this.#raw += marker;
      return true;
    }
    if (this.#isFull || !(this.#opened || (bare.next && text.startsWith('{')))) return this.#isText();
    this.#begin();
    return true;
  }

  /** White space; after an opening it is text if no call comes of it. */
  #skip(): void {
    const space = this.#held.length - this.#held.trimStart().length;
    if (this.#opened) this.#raw += this.#take(Math.min(space, Math.max(0, LIMITS.CALL_HEAD_CHARS_MAX + 1 - this.#raw.length)));
    else this.#take(space);
  }

  #begin(): void {
    this.#told = false;
    this.#state = this.#rules.syntax.reader((name) => this.#rules.offered.has(name));
  }

  #call(reader: CallReader): boolean {
    let at = 0;
    let step: Step = 'more';
    // By code unit: markup and JSON's own characters are one each.
    while (step === 'more' && at < this.#held.length) step = reader.push(this.#held.charAt(at++));
    const read = this.#take(step === 'past' || step === 'garbage' ? at - 1 : at);
    if (reader.name === null) this.#raw += read;
    else this.#tell(reader.name, reader.take());
    if (step === 'garbage') return this.#isText();
    if (step === 'more') return true;
    this.#calls += 1;
    this.#raw = '';
    this.#state = 'around';
    this.#opened = false;
    return true;
  }

  #tell(name: string, fresh: string): void {
    const index = this.#calls;
    if (!this.#told) this.#said.push({ kind: 'call', index, name, arguments: fresh });
    else if (fresh !== '') this.#said.push({ kind: 'call', index, arguments: fresh });
    this.#told = true;
    this.#raw = '';
  }

  /** No call came of it. */
  #isText(): boolean {
    this.#say(this.#raw);
    this.#raw = '';
    this.#state = 'text';
    return true;
  }

  #say(text: string): void {
    if (text !== '') this.#said.push({ kind: 'text', text });
  }

  #take(chars: number): string {
    const taken = this.#held.slice(0, chars);
    this.#held = this.#held.slice(chars);
    return taken;
  }
}

/** Where the white space before `end` begins: it is left out if a call comes next. */
function spaceBefore(text: string, end: number): number {
  let from = end;
  while (from > 0 && end - from < LIMITS.CALL_SPACE_CHARS_MAX && /\s/.test(text.charAt(from - 1))) from -= 1;
  return from;
}
