/** A call whose name stands bare before its arguments: `function<｜tool▁sep｜>f` and a fenced block, or `f[ARGS]{…}`. */
import { LIMITS } from '../../core/limits.ts';
import { JsonExtent } from './json-value.ts';
import type { CallReader, Step } from './syntax.ts';

export class NamedCall implements CallReader {
  readonly #isOffered: (name: string) => boolean;
  readonly #before: RegExp;
  readonly #extent = new JsonExtent();
  #head = '';
  #fresh = '';
  name: string | null = null;

  /** @param before all that stands before the arguments; group 1 is the name. */
  constructor(isOffered: (name: string) => boolean, before: RegExp) {
    this.#isOffered = isOffered;
    this.#before = before;
  }

  push(char: string): Step {
    if (this.name === null && char !== '{') {
      this.#head += char;
      return this.#head.length <= LIMITS.CALL_HEAD_CHARS_MAX ? 'more' : 'garbage';
    }
    this.name ??= this.#named();
    if (this.name === null) return 'garbage';
    const extent = this.#extent.push(char);
    if (extent !== 'past') this.#fresh += char;
    return extent;
  }

  take(): string {
    const fresh = this.#fresh;
    this.#fresh = '';
    return fresh;
  }

  #named(): string | null {
    const name = this.#before.exec(this.#head)?.[1];
    return name !== undefined && this.#isOffered(name) ? name : null;
  }
}
