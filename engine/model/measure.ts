/**
 * What the stages of a tokenizer.json make of a text, counted: each may make it longer, and a few in a row are enough for any memory.
 * Time is bounded elsewhere (engine/core/within.ts); this is for what a single call of the language can ask for.
 */
import { EngineError } from '../core/errors.ts';

export class Measure {
  readonly #charsMax: number;
  #chars = 0;

  constructor(charsMax: number) {
    this.#charsMax = charsMax;
  }

  /** A new text. */
  reset(): void {
    this.#chars = 0;
  }

  /**
   * Counts a text, or a list of as many entries; an empty one costs something too.
   * @throws EngineError ERR_TOKENIZER
   */
  add(chars: number): void {
    this.#chars += chars + 1;
    if (this.#chars > this.#charsMax) throw new EngineError('ERR_TOKENIZER', `The tokenizer makes more than ${this.#charsMax} characters of it.`);
  }
}

/** `replaceAll` with literal content, refused before the text outgrows the measure. */
export function replacedAll(text: string, pattern: string | RegExp, content: string, measure: Measure): string {
  return text.replaceAll(pattern, () => {
    measure.add(content.length);
    return content;
  });
}
