/** Ids to text as they come: only text that no later token can change. */
import type { Tokenizer } from './tokenizer.ts';

/**
 * Joined outputs of `push` and `flush` equal the whole decode, cut before the first stop string.
 * @example
 * const detokenizer = new Detokenizer(tokenizer);
 * for (const id of ids) process.stdout.write(detokenizer.push([id]));
 * process.stdout.write(detokenizer.flush());
 */
export class Detokenizer {
  readonly #tokenizer: Tokenizer;
  readonly #skipSpecial: boolean;
  readonly #stop: readonly string[];
  readonly #kept: ReadonlySet<number> | undefined;
  readonly #utf8 = new TextDecoder('utf-8', { ignoreBOM: true });
  #started = false;
  #held = '';
  #stopped = false;

  constructor(tokenizer: Tokenizer, options: { readonly skipSpecial?: boolean; readonly kept?: ReadonlySet<number>; readonly stop?: readonly string[] } = {}) {
    this.#tokenizer = tokenizer;
    this.#skipSpecial = options.skipSpecial ?? true;
    this.#kept = options.kept;
    this.#stop = (options.stop ?? []).filter((stop) => stop !== '');
  }

  push(ids: readonly number[]): string {
    let text = '';
    for (const id of ids) text += this.#take(id);
    return this.#release(text);
  }

  /** What was held back: half a character becomes U+FFFD, the start of a stop string is text after all. */
  flush(): string {
    if (this.#stopped) return '';
    const text = this.#release(this.#utf8.decode()) + this.#held;
    this.#held = '';
    return text;
  }

  #take(id: number): string {
    let bytes = this.#tokenizer.piece(id, this.#skipSpecial, this.#kept);
    if (bytes.length === 0) return '';
    if (!this.#started) {
      this.#started = true;
      if (this.#tokenizer.stripLeadingSpace && bytes[0] === 0x20) bytes = bytes.subarray(1);
    }
    // stream: keeps an unfinished UTF-8 sequence for the next piece.
    return this.#utf8.decode(bytes, { stream: true });
  }

  #release(text: string): string {
    if (this.#stopped) return '';
    const pending = this.#held + text;
    const cut = earliest(pending, this.#stop);
    if (cut !== null) {
      this.#stopped = true;
      this.#held = '';
      return pending.slice(0, cut);
    }
    const keep = Math.max(0, ...this.#stop.map((stop) => overlap(pending, stop)));
    this.#held = pending.slice(pending.length - keep);
    return pending.slice(0, pending.length - keep);
  }
}

function earliest(text: string, stop: readonly string[]): number | null {
  const found = stop.map((s) => text.indexOf(s)).filter((at) => at >= 0);
  return found.length === 0 ? null : Math.min(...found);
}

/** Length of the longest end of `text` that is a proper beginning of `stop`. */
export function overlap(text: string, stop: string): number {
  for (let n = Math.min(stop.length - 1, text.length); n > 0; n--) if (text.endsWith(stop.slice(0, n))) return n;
  return 0;
}
