/** The extent of a JSON value within text that goes on after it. Brackets and quotes are counted; what is between them is not judged. */

export type Extent = 'more' | 'end' | 'past';

const QUOTE = '"';

export class JsonExtent {
  #depth = 0;
  #quoted = false;
  #escaped = false;

  /** @param char the next of a value whose first is `{`, `[` or `"`. `past`: nothing that JSON has outside of quotes. */
  push(char: string): Extent {
    if (this.#quoted) {
      if (this.#escaped) this.#escaped = false;
      else if (char === '\\') this.#escaped = true;
      else if (char === QUOTE) {
        this.#quoted = false;
        if (this.#depth === 0) return 'end';
      }
      return 'more';
    }
    if (char === QUOTE) this.#quoted = true;
    else if (char === '{' || char === '[') this.#depth += 1;
    else if (char === '}' || char === ']') {
      this.#depth -= 1;
      if (this.#depth === 0) return 'end';
    } else if (!/[\s\w+\-.,:]/.test(char)) return 'past';
    return 'more';
  }
}
