/**
 * A call as one JSON object: `{"name": "f", "arguments": {…}}`, the keys in any order, `parameters` for `arguments`, and others beside them.
 * In the usual order the arguments are given out as they come; else, or where they are JSON within a text, when the object ends.
 */
import { LIMITS } from '../../core/limits.ts';
import { JsonExtent } from './json-value.ts';
import type { CallReader, Step } from './syntax.ts';

const ARGUMENTS: readonly string[] = ['arguments', 'parameters'];
const SPACE = /\s/;

/** Where the next character stands. `piece`: within quotes or brackets; `word`: a number, true, false or null. */
type Part = 'object' | 'key' | 'colon' | 'value' | 'piece' | 'word' | 'comma';

export class JsonCall implements CallReader {
  readonly #isOffered: (name: string) => boolean;
  #part: Part = 'object';
  /** null: the piece is a key. */
  #key: string | null = null;
  #extent = new JsonExtent();
  #piece = '';
  /** The piece is arguments, and goes out as it comes. */
  #flows = false;
  /** It was offered; whether this is a call is seen at its arguments. */
  #named: string | null = null;
  /** Kept until the end. */
  #arguments: string | null = null;
  #fresh = '';
  #chars = 0;
  name: string | null = null;

  constructor(isOffered: (name: string) => boolean) {
    this.#isOffered = isOffered;
  }

  push(char: string): Step {
    const step = this.#step(char);
    if (this.name !== null) return step === 'garbage' ? 'past' : step;
    this.#chars += 1;
    return step === 'past' || this.#chars > LIMITS.CALL_HELD_CHARS_MAX ? 'garbage' : step;
  }

  take(): string {
    const fresh = this.#fresh;
    this.#fresh = '';
    return fresh;
  }

  #step(char: string): Step {
    if (this.#part === 'piece') return this.#inside(char);
    if (this.#part === 'word') return this.#word(char);
    if (SPACE.test(char)) return this.#part === 'object' ? 'garbage' : 'more';
    switch (this.#part) {
      case 'object':
        return char === '{' ? this.#at('key') : 'garbage';
      case 'key':
        this.#key = null;
        return char === '"' ? this.#begin(char) : char === '}' ? this.#end() : 'garbage';
      case 'colon':
        return char === ':' ? this.#at('value') : 'garbage';
      case 'value':
        return this.#value(char);
      case 'comma':
        return char === ',' ? this.#at('key') : char === '}' ? this.#end() : 'garbage';
    }
  }

  #at(part: Part): Step {
    this.#part = part;
    return 'more';
  }

  #value(char: string): Step {
    if (this.name !== null) return char === '"' || char === '{' || char === '[' ? this.#begin(char) : this.#word(char);
    const isArguments = ARGUMENTS.includes(this.#key ?? '');
    if (char === '"' || (char === '{' && this.#key !== 'name') || (char === '[' && this.#key !== 'name' && !isArguments)) {
      this.#flows = isArguments && char === '{' && this.#named !== null;
      if (this.#flows) this.name = this.#named;
      return this.#begin(char);
    }
    // `null` is how some write that there are none.
    return this.#key === 'name' || (isArguments && char !== 'n') ? 'garbage' : this.#word(char);
  }

  #word(char: string): Step {
    this.#part = 'word';
    if (/[\w+\-.]/.test(char)) return 'more';
    this.#part = 'comma';
    return this.#step(char);
  }

  #begin(char: string): Step {
    this.#part = 'piece';
    this.#piece = '';
    this.#extent = new JsonExtent();
    return this.#inside(char);
  }

  #inside(char: string): Step {
    const extent = this.#extent.push(char);
    if (extent === 'past') return 'past';
    if (this.#flows) this.#fresh += char;
    // Nothing else of what is certainly a call is looked at.
    else if (this.name === null) this.#piece += char;
    return extent === 'end' ? this.#pieceEnds() : 'more';
  }

  #pieceEnds(): Step {
    this.#flows = false;
    if (this.#key === null) {
      this.#key = textOf(this.#piece) ?? '';
      return this.#at('colon');
    }
    this.#at('comma');
    if (this.name !== null) return 'more';
    if (this.#key === 'name') {
      this.#named = textOf(this.#piece);
      return this.#named !== null && this.#isOffered(this.#named) ? 'more' : 'garbage';
    }
    if (!ARGUMENTS.includes(this.#key)) return 'more';
    this.#arguments = this.#piece.startsWith('"') ? (textOf(this.#piece)?.trim() ?? '') : this.#piece;
    return this.#arguments.startsWith('{') ? 'more' : 'garbage';
  }

  #end(): Step {
    if (this.name !== null) return 'end';
    if (this.#named === null) return 'garbage';
    this.name = this.#named;
    this.#fresh = this.#arguments ?? '{}';
    return 'end';
  }
}

function textOf(json: string): string | null {
  try {
    const value: unknown = JSON.parse(json);
    return typeof value === 'string' ? value : null;
  } catch {
    return null;
  }
}
